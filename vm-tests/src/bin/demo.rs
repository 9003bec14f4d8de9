//! The demonstration: what an agent does is best seen from power-on to `kubectl get nodes`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use vm_tests::machine::Listener;
use vm_tests::process::{Life, kill_left_behind};
use vm_tests::progress::{say, seconds};
use vm_tests::scene::{BREAKS, Break, LIMIT, SHORT, Stage, as_typed, doctor, last_words, wait_for_agent, worth_showing};
use vm_tests::{Cache, Cluster, ClusterOptions, Image, Machine, MachineOptions, Packages, ingress};

/// Boots a blank virtual machine with the agent in it and shows how it becomes a Ready node of a real cluster.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the machine and the cluster running, and say how to look around
    #[arg(long, conflicts_with = "fault")]
    keep: bool,

    /// Prepare a fault and show what the agent says about it
    #[arg(long = "break", value_name = "NAME", value_parser = fault)]
    fault: Option<&'static Break>,

    /// Run a command in the machine that --keep left
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["keep", "fault", "stop"])]
    exec: Option<String>,

    /// Stop the machine and the cluster that --keep left
    #[arg(long, conflicts_with_all = ["keep", "fault"])]
    stop: bool,
}

fn fault(name: &str) -> Result<&'static Break, String> {
    let names = || BREAKS.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
    Break::named(name).ok_or_else(|| format!("right would be one of: {}", names()))
}

const INSTANCE_ID: &str = "i-demo";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (&arguments.exec, arguments.stop, arguments.fault) {
        (Some(command), _, _) => return exec(command),
        (_, true, _) => stop(),
        (_, _, Some(fault)) => show_fault(fault),
        (_, _, None) => show_join(arguments.keep),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("\ndemo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what will be done before anything is done.
fn announce() {
    let missing = Packages::look().missing().join(" ");
    let packages =
        if missing.is_empty() { "nothing: all packages are there".to_owned() } else { format!("Debian packages: {missing}") };
    let cache = Cache::open().map(|cache| cache.directory().display().to_string());
    say(format_args!(
        "This shows a blank virtual machine become a Ready Kubernetes node.\n\
         It installs    {packages}\n\
         It builds      Kubernetes {} and etcd from their Go modules, a Debian 13 image, and the agent\n\
         It keeps them  in {} (the first time takes about ten minutes, later ones seconds)\n\
         It starts      a control plane on this machine's loopback interface, and one virtual machine\n",
        vm_tests::parts::KUBERNETES,
        cache.unwrap_or_else(|error| format!("{error:#}")),
    ));
}

/// `port` of this machine leads to port 80 of the one that is started.
fn boot(image: &Image, user_data: &str, port: Option<u16>, keep: Option<&PathBuf>) -> Result<Machine> {
    say(format_args!("\nuser-data of the machine, all of it:\n{}", user_data.trim_end().replace('\n', "\n  ")));
    let mut options = MachineOptions::new(INSTANCE_ID, user_data);
    options.forwards = port.map(|port| (port, 80)).into_iter().collect();
    options.listener = Listener::new(|line| {
        if let Some(text) = worth_showing(line) {
            say(text);
        }
    });
    say("\npower on");
    match keep {
        None => Machine::boot(image, options),
        Some(folder) => {
            options.life = Life::Detached;
            let folder = folder.join("machine");
            fs::create_dir(&folder)?;
            Machine::boot_in(image, options, &folder)
        }
    }
}

fn show_join(keep: bool) -> Result<()> {
    announce();
    let folder = keep.then(new_folder).transpose()?;
    let life = if keep { Life::Detached } else { Life::WithUs };
    let directory = folder.as_ref().map(|folder| folder.join("cluster"));
    if let Some(directory) = &directory {
        fs::create_dir(directory)?;
    }
    let stage = Stage::set(ClusterOptions { life, ..ClusterOptions::default() }, directory.as_deref())?;
    if let Some(folder) = &folder {
        remember(folder, &stage.cluster.process_ids())?;
    }
    let user_data = stage.way_in()?.user_data() + &ingress::user_data();
    let port = ingress::free_port()?;
    let mut machine = boot(&ingress::image(&stage.image)?, &user_data, Some(port), folder.as_ref())?;
    if let Some(folder) = &folder {
        remember(folder, &[stage.cluster.process_ids(), vec![machine.process_id()]].concat())?;
    }
    let shown = watch_join(&stage.cluster, &mut machine, port);
    if let Err(error) = shown {
        say(last_words(&mut machine));
        if keep {
            say(how_to_look(&stage.cluster));
        }
        return Err(error);
    }
    if keep {
        say(how_to_look(&stage.cluster));
    }
    Ok(())
}

fn watch_join(cluster: &Cluster, machine: &mut Machine, port: u16) -> Result<()> {
    cluster.wait_ready(INSTANCE_ID, LIMIT)?;
    say(format_args!("\nThe node is Ready, {} after power-on.", seconds(machine.uptime())));
    wait_for_agent(machine, LIMIT)?;
    say(format_args!("\n$ kubectl get nodes -o wide\n{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?));
    say("\nAn ingress is started: a pod behind NodePort 32245, and kube-proxy.");
    ingress::start(cluster, machine, INSTANCE_ID)?;
    say(format_args!("\n$ curl --include http://NODE/etc/hostname\n{}", ingress::answer(port)?));
    let timeline = machine.run("gpuk-agent timeline", SHORT)?;
    say(as_typed("gpuk-agent timeline", &timeline));
    let doctor = doctor(machine)?;
    say(as_typed("gpuk-agent doctor", &doctor));
    ensure!(doctor.code == 0, "the node is Ready, but the doctor ended with {}", doctor.code);
    Ok(())
}

fn show_fault(fault: &Break) -> Result<()> {
    announce();
    let stage = Stage::set(ClusterOptions::default(), None)?;
    say(format_args!("\nThe fault: {}.", fault.fault));
    fault.with(&stage, |user_data| {
        let mut machine = boot(&stage.image, &user_data, None, None)?;
        match fault.wait_for_verdict(&mut machine, LIMIT) {
            Ok(output) => {
                say(format_args!("\nThe agent knows, {} after power-on.", seconds(machine.uptime())));
                say(as_typed("gpuk-agent doctor", &output));
                Ok(())
            }
            Err(error) => {
                say(last_words(&mut machine));
                Err(error)
            }
        }
    })
}

fn folder() -> Result<PathBuf> {
    Ok(Cache::open()?.directory().join("demo"))
}

/// An empty folder for a machine and a cluster that outlive this program.
fn new_folder() -> Result<PathBuf> {
    let folder = folder()?;
    if folder.exists() {
        bail!("a machine was kept already; look at it with vm-tests/demo --exec COMMAND, or end it with vm-tests/demo --stop");
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// One process id a line, for --stop.
fn remember(folder: &std::path::Path, processes: &[u32]) -> Result<()> {
    let lines: String = processes.iter().map(|id| format!("{id}\n")).collect();
    fs::write(folder.join("processes"), lines).context("writing down the processes")
}

fn how_to_look(cluster: &Cluster) -> String {
    format!(
        "\nLeft running:\n  {} --kubeconfig {} get nodes\n  vm-tests/demo --exec 'journalctl -u gpuk-agent'\nEnd it with:\n  vm-tests/demo --stop",
        cluster.kubectl_program().display(),
        cluster.kubeconfig().display()
    )
}

fn stop() -> Result<()> {
    let folder = folder()?;
    let cache = Cache::open()?.directory().display().to_string();
    let processes = fs::read_to_string(folder.join("processes")).unwrap_or_default();
    for id in processes.lines().filter_map(|line| line.parse().ok()) {
        // A process id may have been given to another program since: ours run programs or kernels from the cache.
        kill_left_behind(id, &cache)?;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    say("stopped");
    Ok(())
}

fn exec(command: &str) -> ExitCode {
    let answer = folder().and_then(|folder| Machine::ask(&folder.join("machine"), command, Duration::from_secs(600)));
    match answer {
        Ok(output) => {
            print!("{}", output.stdout);
            eprint!("{}", output.stderr);
            ExitCode::from(u8::try_from(output.code).unwrap_or(1))
        }
        Err(error) => {
            say(format_args!("demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
