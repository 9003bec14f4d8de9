//! A fault stands until something cured it: a reset that the driver tells of, or a new boot; the same one after two boots is hardware.

use std::collections::BTreeSet;

use super::{Action, Explainer, Fault, Kind, Severity};
use crate::host::kernel_log::Record;

/// How many earlier boots with the same fault on the same device tell that no reboot cures it.
const BOOTS: usize = 2;

/// A fault that the kernel's log told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The line, with its time as dmesg(1) writes it, so that it is found again.
    pub line: String,
    /// What it means.
    pub fault: Fault,
}

impl Told {
    /// What makes two lines tell of the same thing.
    fn same(&self) -> (String, Option<&str>) {
        (self.fault.id(), self.fault.device.as_deref())
    }

    fn stands(&self) -> bool {
        let needs_hands = match self.fault.kind {
            // A process may be called `NVRM: Xid 79`, and the kernel begins some lines with its name; no name has room for an address.
            Kind::Xid | Kind::Sxid => self.fault.device.is_some(),
            // What the driver says of itself may be over; whether it is, the machine shows better than an old line.
            Kind::Nvrm => self.fault.action == Action::Reboot,
            Kind::Module => false,
        };
        self.fault.severity == Severity::Critical && needs_hands
    }
}

/// A fault that an earlier look remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The boot in which it was seen.
    pub boot_id: String,
    /// It, as it was told then.
    pub told: Told,
}

/// A fault that nothing cured yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it was told first.
    pub told: Told,
    /// How often the log has it in this boot.
    pub times: usize,
    /// It was there in so many boots before that another reboot helps nothing.
    pub is_hardware: bool,
}

/// What the kernel's log says, sorted into what stands and what is only worth knowing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What keeps work off a GPU, the worst first.
    pub standing: Vec<Standing>,
    /// Each warning once, with the number of its lines.
    pub warnings: Vec<(Told, usize)>,
}

/// Explains a remembered line.
pub fn told(line: &str) -> Option<Told> {
    Explainer::default().explain(line).map(|fault| Told { line: line.to_owned(), fault })
}

/// Which faults stand, given the log of this boot and what was remembered. The log may have lost its oldest lines meanwhile, so what
/// stood at the last look in this boot stands on unless the log has its cure.
pub fn judge(boot_id: &str, log: &[Record], remembered: &[Remembered]) -> Verdict {
    let mut seen: Vec<(Told, usize)> =
        remembered.iter().filter(|one| one.boot_id == boot_id).map(|one| (one.told.clone(), 0)).collect();
    let mut explainer = Explainer::default();
    for record in log.iter().filter(|record| record.is_from_kernel()) {
        if is_load_of_driver(&record.text) {
            seen.retain(|(told, _)| told.fault.id() != "nvrm-adapter-init-failed");
        }
        // Another program's name or words inside a line do not count.
        let begins = ["NVRM:", "nvidia-nvswitch"].iter().any(|begin| record.text.starts_with(begin));
        let Some(fault) = begins.then(|| explainer.explain(&record.text)).flatten() else { continue };
        if is_recovered(&fault) {
            seen.retain(|(told, _)| told.fault.kind != Kind::Xid || told.fault.device != fault.device);
        }
        let new = Told { line: record.to_string(), fault };
        match seen.iter_mut().find(|(told, _)| told.same() == new.same() && told.fault.action == new.fault.action) {
            Some((_, times)) => *times += 1,
            None => seen.push((new, 1)),
        }
    }
    let mut verdict = Verdict::default();
    for (told, times) in seen {
        if told.stands() {
            let is_hardware = earlier_boots(boot_id, &told, remembered) >= BOOTS;
            verdict.standing.push(Standing { told, times, is_hardware });
        } else if told.fault.severity == Severity::Warning && times > 0 {
            verdict.warnings.push((told, times));
        }
    }
    // The sort is stable: of equally bad ones the first that was told comes first.
    verdict.standing.sort_by_key(|standing| std::cmp::Reverse(standing.told.fault.action));
    verdict
}

fn earlier_boots(boot_id: &str, told: &Told, remembered: &[Remembered]) -> usize {
    let earlier = remembered.iter().filter(|one| one.boot_id != boot_id && one.told.same() == told.same());
    earlier.map(|one| one.boot_id.as_str()).collect::<BTreeSet<_>>().len()
}

/// The driver says that this GPU needs nothing any more (Xid 154, "GPU recovery action changed … to 0x0 (None)").
fn is_recovered(fault: &Fault) -> bool {
    fault.kind == Kind::Xid && fault.action == Action::None
}

/// The driver's module was loaded (again): what it could not start before, it tries anew.
fn is_load_of_driver(text: &str) -> bool {
    text.starts_with("NVRM: loading NVIDIA")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: &str = "NVRM: Xid (PCI:0000:05:00): 79, pid=1, name=a, GPU has fallen off the bus.";
    const ECC: &str = "NVRM: Xid (PCI:0000:06:00): 64, pid=2, name=b, Row Remapper: failed";

    fn log(texts: &[&str]) -> Vec<Record> {
        let record = |(number, text): (usize, &&str)| Record {
            priority: 4,
            sequence: number as u64,
            since_boot: std::time::Duration::from_millis(1500 + number as u64),
            text: (*text).to_owned(),
        };
        texts.iter().enumerate().map(record).collect()
    }

    fn remembered(boot_id: &str, line: &str) -> Remembered {
        Remembered { boot_id: boot_id.to_owned(), told: told(line).unwrap() }
    }

    fn standing(log: &[Record], remembered: &[Remembered]) -> Vec<(String, bool)> {
        judge("now", log, remembered).standing.iter().map(|one| (one.told.fault.to_string(), one.is_hardware)).collect()
    }

    #[test]
    fn a_critical_fault_stands_and_the_worst_comes_first() {
        let verdict = judge("now", &log(&["usb 1-1: new device", ECC, LOST, LOST]), &[]);
        let found: Vec<(&str, usize)> = verdict.standing.iter().map(|one| (one.told.line.as_str(), one.times)).collect();
        assert_eq!(found, [(format!("[    1.502000] {LOST}").as_str(), 2), (format!("[    1.501000] {ECC}").as_str(), 1)]);
        assert_eq!(verdict.warnings, []);
    }

    #[test]
    fn a_warning_does_not_stand_and_is_counted() {
        let warning = "NVRM: Xid (PCI:0000:05:00): 13, Graphics SM Warp Exception";
        let unknown = "NVRM: Xid (PCI:0000:05:00): 999, words of a later driver";
        let verdict = judge("now", &log(&[warning, warning, unknown, "NVRM: Xid (PCI:0000:05:00): 43, x"]), &[]);
        let warnings: Vec<(String, usize)> = verdict.warnings.iter().map(|(told, times)| (told.fault.id(), *times)).collect();
        assert_eq!((verdict.standing.len(), warnings), (0, vec![("xid-13".to_owned(), 2), ("xid-999".to_owned(), 1)]));
    }

    #[test]
    fn another_boot_clears_it_and_the_third_with_the_same_asks_for_the_hardware() {
        let name = "Xid 79 (GPU has fallen off the bus) on 0000:05:00.0".to_owned();
        assert_eq!(standing(&[], &[remembered("before", LOST)]), []);
        let once = [remembered("before", LOST), remembered("before", LOST)];
        assert_eq!(standing(&log(&[LOST]), &once), [(name.clone(), false)]);
        let twice = [remembered("first", LOST), remembered("second", LOST)];
        assert_eq!(standing(&log(&[LOST]), &twice), [(name.clone(), true)]);
        let other_device = LOST.replace(":05:", ":07:");
        let others = [remembered("first", LOST), remembered("second", &other_device), remembered("second", ECC)];
        assert_eq!(standing(&log(&[LOST]), &others), [(name, false)]);
    }

    #[test]
    fn what_the_log_has_lost_in_this_boot_stands_on() {
        let name = "Xid 79 (GPU has fallen off the bus) on 0000:05:00.0".to_owned();
        let kept = [remembered("now", &format!("[    1.5] {LOST}"))];
        assert_eq!(standing(&log(&["usb 1-1: new device"]), &kept), [(name.clone(), false)]);
        assert_eq!(standing(&log(&[LOST]), &kept), [(name, false)], "once, though it is seen and remembered");
    }

    #[test]
    fn the_driver_tells_what_is_cured() {
        let needed = "NVRM: Xid (PCI:0000:06:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)";
        let cured = "NVRM: Xid (PCI:0000:06:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)";
        assert_eq!(standing(&log(&[ECC, needed]), &[]).len(), 2);
        assert_eq!(standing(&log(&[ECC, needed, cured]), &[]), []);
        assert_eq!(standing(&log(&[ECC, cured, ECC]), &[]).len(), 1, "and it came back");
        assert_eq!(standing(&log(&[LOST, cured]), &[]).len(), 1, "another GPU's");
        assert_eq!(standing(&log(&[cured]), &[remembered("now", ECC)]), []);
    }

    #[test]
    fn a_driver_that_is_loaded_again_starts_its_gpus_anew() {
        let failed = "NVRM: GPU 0000:00:04.0: RmInitAdapter failed! (0x62:0x25:2535)";
        let loads = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.261.03";
        assert_eq!(standing(&log(&[loads, failed]), &[]).len(), 1);
        assert_eq!(standing(&log(&[failed, loads]), &[]), []);
        assert_eq!(standing(&log(&[LOST, loads]), &[]).len(), 1);
    }

    #[test]
    fn nobody_but_the_driver_makes_a_fault() {
        let forged = [
            "NVRM: Xid 79[1234]: segfault at 0 ip 0 sp 0 error 4",
            "a[1234]: segfault at 0 ip 0 in NVRM: Xid (PCI:0000:05:00): 79, [0+1000]",
            "audit: comm=\"x\" NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus.",
        ];
        assert_eq!(standing(&log(&forged), &[]), []);
        let mut written = log(&[LOST]);
        // LOG_USER, which the kernel gives to what is written to /dev/kmsg.
        written[0].priority = 8 + 4;
        assert_eq!(standing(&written, &[]), []);
        assert_eq!(standing(&log(&["NVRM: The NVIDIA probe routine was not called for 1 device(s)."]), &[]), []);
    }
}
