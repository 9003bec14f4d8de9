//! A machine of fakes whose kernel's log says what a test wants, over one boot and several.

use super::super::tests::{check, code, facts, machine};
use super::*;
use crate::facts::{Facts, Gpu};
use crate::host::Host;
use crate::host::kernel_log::ScriptedKernelLog;
use crate::state::{Round, StepRecord, Verdict};

const LOST: &str = "NVRM: Xid (PCI:0000:05:00): 79, pid=1, name=a, GPU has fallen off the bus.";
const PAGE_FAULT: &str = "NVRM: Xid (PCI:0000:05:00): 31, pid=1, name=a, MMU Fault";

fn facts_with_gpu() -> Facts {
    Facts { gpus: vec![Gpu { address: "0000:05:00.0".to_owned(), ..Gpu::default() }], ..facts() }
}

async fn look(host: &mut Host, log: &[&str]) -> Status {
    host.kernel_log = Box::new(ScriptedKernelLog::of(log));
    check(&GpuFaults, host, &facts_with_gpu(), "").await
}

/// What the service would have kept of this look, in that boot.
fn round(boot_id: &str, status: &Status) -> Round {
    let record = match status {
        Status::Broken(finding) => StepRecord::of(NAME, Verdict::Broken, finding.clone()),
        _ => StepRecord { finding: None, ..StepRecord::of(NAME, Verdict::Ready, Finding::new("", "", "", "")) },
    };
    Round { boot_id: boot_id.to_owned(), steps: vec![record], finished: true, ..Round::default() }
}

fn remember(host: &Host, instance_id: &str, rounds: Vec<Round>) {
    let mut state = State::load(host, instance_id, crate::config::Role::Worker);
    state.rounds = rounds;
    state.save(host).unwrap();
}

fn broken(status: &Status) -> &Finding {
    match status {
        Status::Broken(finding) => finding,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_without_gpus_has_no_faults() {
    let (_root, host) = machine(&[]);
    assert_eq!(check(&GpuFaults, &host, &facts(), "").await, Status::Ready("no NVIDIA GPU for containers".to_owned()));
    let unseen = Facts { gpus_unseen: Some("/sys is not there".to_owned()), ..facts() };
    let config = crate::config::load(Vec::new()).unwrap().config;
    assert!(GpuFaults.check(Look::new(&host, &config, &unseen)).await.is_err());
}

#[tokio::test]
async fn a_log_that_may_not_be_read_is_no_verdict() {
    let (_root, host) = machine(&[]);
    let (config, facts) = (crate::config::load(Vec::new()).unwrap().config, facts_with_gpu());
    let error = GpuFaults.check(Look::new(&host, &config, &facts)).await.unwrap_err();
    assert!(format!("{error:#}").contains("/dev/kmsg"), "{error:#}");
}

#[tokio::test]
async fn a_quiet_log_and_warnings_are_ready() {
    let (_root, mut host) = machine(&[]);
    let quiet = look(&mut host, &["usb 1-1: new device"]).await;
    assert_eq!(quiet, Status::Ready("no fault of a GPU in the kernel's log".to_owned()));
    let Status::Ready(warned) = look(&mut host, &[PAGE_FAULT, PAGE_FAULT]).await else { unreachable!() };
    assert_eq!(warned, "nothing that keeps work off a GPU; warnings: Xid 31 (GPU memory page fault) on 0000:05:00.0 (2 times)");
}

#[tokio::test]
async fn a_critical_fault_is_told_with_its_line_and_remedy() {
    let (_root, mut host) = machine(&[]);
    let ecc = "NVRM: Xid (PCI:0000:06:00): 64, Row Remapper";
    let status = look(&mut host, &[ecc, PAGE_FAULT, LOST]).await;
    let finding = broken(&status);
    assert_eq!(code(&status), "xid-79");
    assert_eq!(finding.what, "Xid 79 (GPU has fallen off the bus) on 0000:05:00.0, and another fault");
    assert_eq!(finding.why, format!("[    2.000000] {LOST}\n[    0.000000] {ecc}"));
    assert!(finding.remedy.contains("systemctl reboot"), "{}", finding.remedy);
}

#[tokio::test]
async fn a_fault_stands_in_its_boot_and_comes_back_as_hardware() {
    let (_root, mut host) = machine(&[]);
    let fault = look(&mut host, &[LOST]).await;
    // This boot is "b". The log has lost the line meanwhile.
    remember(&host, "i-1", vec![round("b", &fault)]);
    assert_eq!(code(&look(&mut host, &[]).await), "xid-79");
    remember(&host, "i-1", vec![round("b", &fault), round("b", &Status::Ready(String::new()))]);
    assert!(matches!(look(&mut host, &[]).await, Status::Ready(_)), "it was cured before the log lost it");
    remember(&host, "i-1", vec![round("a", &fault)]);
    assert!(matches!(look(&mut host, &[]).await, Status::Ready(_)), "another boot");
    assert!(broken(&look(&mut host, &[LOST]).await).remedy.contains("systemctl reboot"));
    remember(&host, "i-1", vec![round("0", &fault), round("a", &fault)]);
    assert_eq!(broken(&look(&mut host, &[LOST]).await).remedy, INSPECT);
    remember(&host, "i-2", vec![round("0", &fault), round("a", &fault), round("b", &fault)]);
    assert!(broken(&look(&mut host, &[LOST]).await).remedy.contains("systemctl reboot"), "another instance's history");
    assert!(matches!(look(&mut host, &[]).await, Status::Ready(_)));
}

#[tokio::test]
async fn a_state_that_is_cut_decides_nothing() {
    let (_root, mut host) = machine(&[("var/lib/gpuk-agent/state.json", "{\"instanceId\":\"i-1\",\"rou")]);
    assert!(matches!(look(&mut host, &[]).await, Status::Ready(_)));
    assert_eq!(code(&look(&mut host, &[LOST]).await), "xid-79");
}
