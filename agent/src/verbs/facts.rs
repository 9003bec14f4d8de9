//! Everything that the agent decides rests on what it knows of the machine: here it is, with where each thing came from.

mod driver;

use std::time::Duration;

use serde::Serialize;

use self::driver::Driver;
use crate::cli::Exit;
use crate::facts::{Facts, Gpu, Instance, SourceTiming};
use crate::identity;
use crate::role::{self, Answer};
use crate::session::Session;
use crate::show::{Style, print, print_json};
use crate::step::Finding;
use crate::unknown::Unknown;

/// The facts as JSON: those of `facts.rs`, and what follows from them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    /// The node's name, when the machine has one.
    node: Option<String>,
    /// `role`, `gpu` and `because`.
    #[serde(flatten)]
    role: Answer,
    /// Why the node may be to be something else, and what to type.
    unknown: Option<Finding>,
    /// What the loaded driver says, where one is loaded.
    driver: Option<Driver>,
    #[serde(flatten)]
    facts: &'a Facts,
}

/// Prints everything known. Exit 3 when something could not be looked at, and that of every other verb when it is unknown what the node
/// is to be.
pub async fn facts(session: &Session, json: bool) -> Exit {
    let report = report(session, driver::driver(session.look()).await);
    if json {
        print_json(&report);
    } else {
        print(&human(&report, Style::of_stdout()));
    }
    match &session.unknown {
        Some(unknown) => unknown.exit(),
        None if session.facts.unseen.is_empty() && report.driver.as_ref().is_none_or(Driver::was_seen) => Exit::Fine,
        None => Exit::Unseen,
    }
}

fn report(session: &Session, driver: Option<Driver>) -> Report<'_> {
    let facts = &session.facts;
    Report {
        node: identity::name(session.look()),
        role: role::answer(&session.config, &session.settings, facts),
        unknown: session.unknown.as_ref().map(Unknown::finding),
        driver,
        facts,
    }
}

fn human(report: &Report<'_>, style: Style) -> String {
    let facts = report.facts;
    let mut table = Table { style, text: String::new() };
    table.row("node", report.node.as_deref().unwrap_or("no name yet"), "");
    match &report.unknown {
        None => table.row("role", &report.role.to_string(), ""),
        Some(finding) => {
            table.row("role", &format!("not known; {} as far as it was seen", report.role), "");
            table.row("unknown", &finding.to_string(), "");
            finding.remedy.lines().for_each(|remedy| table.row("remedy", remedy, ""));
        }
    }
    match &facts.instance {
        Some(instance) => instance_rows(&mut table, instance),
        None => table.row("instance", "unknown", ""),
    }
    table.row("system", &facts.os.name, "/etc/os-release");
    table.row("kernel", &facts.kernel, "/proc/sys/kernel/osrelease");
    let dmi = [&facts.dmi.system_vendor, &facts.dmi.product_name];
    table.row("machine", &dmi.into_iter().flatten().cloned().collect::<Vec<_>>().join(" "), "/sys/class/dmi/id");
    table.row("product uuid", facts.dmi.product_uuid.as_deref().unwrap_or_default(), "/sys/class/dmi/id/product_uuid");
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
    match (facts.gpus.as_slice(), &facts.gpus_unseen) {
        ([], None) => table.row("gpu", "none", "/sys/bus/pci/devices"),
        ([], Some(why)) => table.row("gpu", &format!("not looked at: {why}"), ""),
        (gpus, _) => gpus.iter().for_each(|found| table.row("gpu", &gpu(found), "/sys/bus/pci/devices")),
    }
    for nvswitch in &facts.nvswitches {
        table.row("nvswitch", &format!("at {nvswitch}"), "/sys/bus/pci/devices");
    }
    if let Some(driver) = &report.driver {
        driver.rows(&mut table);
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
    let kind = if gpu.is_virtual { ", virtual function" } else { "" };
    let held = match (gpu.driver.as_deref(), gpu.virtual_functions.map_or(0, |functions| functions.enabled)) {
        (Some(driver), 0) if !gpu.is_for_containers() => format!("not for containers ({driver})"),
        (driver, enabled) => {
            let driver = driver.map_or_else(|| "no driver".to_owned(), |driver| format!("driver {driver}"));
            match enabled {
                0 => driver,
                1 => format!("{driver}, divided into 1 virtual function"),
                _ => format!("{driver}, divided into {enabled} virtual functions"),
            }
        }
    };
    format!("{model} at {}, {held}{kind}", gpu.address)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Trouble;
    use crate::facts::VirtualFunctions;
    use crate::host::Host;
    use crate::unknown::About;

    fn session(facts: Facts, unknown: Option<Unknown>) -> Session {
        let root = tempfile::tempdir().unwrap();
        let loaded = crate::config::load(Vec::new()).unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        Session { host, facts, config: loaded.config, settings: loaded.settings, unknown }
    }

    fn shown(facts: Facts) -> String {
        human(&report(&session(facts, None), None), Style::default())
    }

    #[test]
    fn every_gpu_says_whether_containers_get_it() {
        let card = |driver: &str, enabled: u16| Gpu {
            address: "0000:01:00.0".to_owned(),
            model: Some("L4".to_owned()),
            driver: Some(driver.to_owned()),
            virtual_functions: Some(VirtualFunctions { possible: 16, enabled }),
            ..Gpu::default()
        };
        assert_eq!(gpu(&card("nvidia", 0)), "L4 at 0000:01:00.0, driver nvidia");
        assert_eq!(gpu(&card("vfio-pci", 0)), "L4 at 0000:01:00.0, not for containers (vfio-pci)");
        assert_eq!(gpu(&card("nvidia", 4)), "L4 at 0000:01:00.0, driver nvidia, divided into 4 virtual functions");
    }

    #[test]
    fn a_bus_that_was_not_looked_at_is_not_an_empty_one() {
        assert!(shown(Facts::default()).contains("gpu          none"));
        let unread = shown(Facts { gpus_unseen: Some("no permission".to_owned()), ..Facts::default() });
        assert!(unread.contains("gpu          not looked at: no permission"), "{unread}");
        let switched = shown(Facts { nvswitches: vec!["0000:05:00.0".to_owned()], ..Facts::default() });
        assert!(switched.contains("nvswitch     at 0000:05:00.0"), "{switched}");
    }

    #[tokio::test]
    async fn while_the_platform_is_silent_the_role_is_not_known() {
        let silent = Trouble::Unreachable { url: "http://169.254.169.254/latest".to_owned(), why: "no answer".to_owned() };
        for (trouble, exit) in [(silent, Exit::Waiting), (Trouble::Unreadable("a page".to_owned()), Exit::Broken)] {
            let session = session(Facts::default(), Some(Unknown::new(About::Metadata, trouble)));
            let report = report(&session, None);
            let (json, text) = (serde_json::to_value(&report).unwrap(), human(&report, Style::default()));
            assert!(json["unknown"]["code"].as_str().unwrap().starts_with("metadata-"), "{json}");
            assert!(text.contains("role         not known") && text.contains("[cloud]"), "{text}");
            assert_eq!((facts(&session, true).await, crate::verbs::config::show(&session, true, true)), (exit, exit));
        }
        assert_eq!(facts(&session(Facts::default(), None), true).await, Exit::Fine);
    }
}
