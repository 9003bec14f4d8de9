//! Everything that the agent decides rests on what it knows of the machine: here it is, with where each thing came from.

use std::time::Duration;

use serde::Serialize;

use crate::cli::Exit;
use crate::facts::{Facts, Gpu, Instance, SourceTiming};
use crate::identity;
use crate::role::{self, Answer};
use crate::session::Session;
use crate::show::{Style, print, print_json};

/// The facts as JSON: those of `facts.rs`, and what follows from them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    /// The node's name, when the machine has one.
    node: Option<String>,
    /// `role`, `gpu` and `because`.
    #[serde(flatten)]
    role: Answer,
    #[serde(flatten)]
    facts: &'a Facts,
}

/// Prints everything known. Exit 3 when something could not be looked at.
pub fn facts(session: &Session, json: bool) -> Exit {
    let facts = &session.facts;
    let report =
        Report { node: identity::name(session.look()), role: role::answer(&session.config, &session.settings, facts), facts };
    if json {
        print_json(&report);
    } else {
        print(&human(&report, Style::of_stdout()));
    }
    if facts.unseen.is_empty() { Exit::Fine } else { Exit::Unseen }
}

fn human(report: &Report<'_>, style: Style) -> String {
    let facts = report.facts;
    let mut table = Table { style, text: String::new() };
    table.row("node", report.node.as_deref().unwrap_or("no name yet"), "");
    table.row("role", &report.role.to_string(), "");
    match &facts.instance {
        Some(instance) => instance_rows(&mut table, instance),
        None => table.row("instance", "unknown", ""),
    }
    table.row("system", &facts.os.name, "/etc/os-release");
    table.row("kernel", &facts.kernel, "/proc/sys/kernel/osrelease");
    let dmi = [&facts.dmi.system_vendor, &facts.dmi.product_name];
    table.row("machine", &dmi.into_iter().flatten().cloned().collect::<Vec<_>>().join(" "), "/sys/class/dmi/id");
    table.row("product id", facts.dmi.product_uuid.as_deref().unwrap_or_default(), "/sys/class/dmi/id/product_uuid");
    table.row("machine id", &facts.machine_id, "/etc/machine-id");
    table.row("boot id", &facts.boot_id, "/proc/sys/kernel/random/boot_id");
    table.row("host name", &facts.hostname, "/proc/sys/kernel/hostname");
    if facts.memory > 0 {
        table.row("memory", &size(facts.memory), "/proc/meminfo");
    }
    for disk in &facts.disks {
        table.row("disk", &format!("{}: {} free of {}", disk.mount, size(disk.free), size(disk.size)), "statvfs");
    }
    if let Some(cgroup) = facts.cgroup {
        table.row("cgroup", &format!("{cgroup:?}").to_lowercase(), "/sys/fs/cgroup");
    }
    match facts.gpus.as_slice() {
        [] => table.row("gpu", "none", "/sys/bus/pci/devices"),
        gpus => gpus.iter().for_each(|found| table.row("gpu", &gpu(found), "/sys/bus/pci/devices")),
    }
    for unseen in &facts.unseen {
        table.row("not seen", unseen, "");
    }
    let took: Vec<String> = facts.sources.iter().map(|source| format!("{} {}", source.name, milliseconds(source))).collect();
    table.row("took", &took.join(", "), "");
    table.text
}

fn instance_rows(table: &mut Table, instance: &Instance) {
    table.row("cloud", instance.cloud, "");
    table.row("instance", &instance.id, &instance.source);
    let optional = [
        ("name", &instance.name),
        ("region", &instance.region),
        ("zone", &instance.zone),
        ("type", &instance.instance_type),
        ("address", &instance.address),
        ("provider id", &instance.provider_id),
        ("managed", &instance.managed),
    ];
    for (label, value) in optional {
        table.row(label, value.as_deref().unwrap_or_default(), "");
    }
    for (key, value) in &instance.tags {
        table.row("tag", &format!("{key}={value}"), "");
    }
}

fn gpu(gpu: &Gpu) -> String {
    let model = gpu.model.clone().unwrap_or_else(|| format!("NVIDIA device {:#06x}", gpu.device));
    let driver = gpu.driver.as_deref().map_or_else(|| "no driver".to_owned(), |driver| format!("driver {driver}"));
    let kind = if gpu.is_virtual { ", virtual function" } else { "" };
    format!("{model} at {}, {driver}{kind}", gpu.address)
}

/// Bytes as a person says them, in binary units.
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes < GIB { format!("{} MiB", bytes >> 20) } else { format!("{:.1} GiB", bytes as f64 / GIB as f64) }
}

/// Most sources take less than a millisecond, which must not read as nothing.
fn milliseconds(source: &SourceTiming) -> String {
    format!("{:.1} ms", Duration::from_micros(source.took_microseconds).as_secs_f64() * 1000.0)
}

struct Table {
    style: Style,
    text: String,
}

impl Table {
    /// One fact; an empty one is left out.
    fn row(&mut self, label: &str, value: &str, source: &str) {
        if value.is_empty() {
            return;
        }
        let source = if source.is_empty() { String::new() } else { format!("  {}", self.style.faint(&format!("({source})"))) };
        self.text.push_str(&format!("{} {value}{source}\n", self.style.strong(&format!("{label:<12}"))));
    }
}
