//! Serves the metadata of one machine until it is stopped.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use metadata_stand_in::{Cloud, Fault, Machine, Service};

/// Stands for the metadata service of a cloud.
#[derive(Debug, Parser)]
struct Arguments {
    /// ec2, ec2-optional-token, ec2-compatible, gce, azure, openstack, linode or nocloud.
    #[arg(long)]
    cloud: Cloud,
    /// Where to listen, e.g. 169.254.169.254:80.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// A JSON file with the machine; an example machine without it.
    #[arg(long)]
    machine: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { cloud, listen, machine } = Arguments::parse();
    let machine = match machine {
        None => Machine::example(cloud),
        Some(path) => {
            let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("reading the machine in {}", path.display()))?
        }
    };
    let service = Service::start(cloud, machine, Fault::None, &listen).with_context(|| format!("listening on {listen}"))?;
    println!("{}", service.url());
    loop {
        std::thread::park();
    }
}
