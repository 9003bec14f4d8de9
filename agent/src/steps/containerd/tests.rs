//! Roots made of text: what the step says of them, and of a containerd that runs on them.

use std::collections::BTreeMap;
use std::path::Path;

use super::changes::{RESTART_DUE, UNIT, refused};
use super::view::View;
use super::wanted::Wanted;
use super::{Containerd, examine, generation, running};
use crate::config::{Config, load};
use crate::facts::{Facts, Gpu};
use crate::host::Host;
use crate::host::clock::FixedClock;
use crate::host::cluster::ScriptedCluster;
use crate::host::files::Files;
use crate::host::gpus::ScriptedGpus;
use crate::host::kernel::RecordingKernel;
use crate::host::kernel_log::ScriptedKernelLog;
use crate::host::network::ScriptedNetwork;
use crate::host::programs::{Output, ScriptedPrograms};
use crate::host::runtime::{RuntimeStatus, ScriptedRuntime};
use crate::host::units::{ScriptedUnits, UnitState};
use crate::look::Look;
use crate::step::{Change, Contents, Finding, Status, UnitVerb};
use crate::steps::tests::{check as step_check, machine};

struct Root {
    _directory: tempfile::TempDir,
    host: Host,
    config: Config,
    facts: Facts,
}

const MAIN: &str = "/etc/containerd/config.toml";

impl Root {
    fn new(build: &str, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let host = Host {
            files: Files::below(directory.path()).expect("the root"),
            programs: Box::new(
                ScriptedPrograms::default().answering("/usr/bin/containerd", Output { code: Some(0), ..Output::default() }),
            ),
            units: Box::new(ScriptedUnits::default()),
            kernel: Box::new(RecordingKernel::default()),
            kernel_log: Box::new(ScriptedKernelLog::default()),
            network: Box::new(ScriptedNetwork::default()),
            runtime: Box::new(ScriptedRuntime::default()),
            gpus: Box::new(ScriptedGpus::default()),
            cluster: Box::new(ScriptedCluster::answering(Ok(None))),
            clock: Box::new(FixedClock::at(0)),
        };
        let root =
            Self { _directory: directory, host, config: load(Vec::new()).expect("defaults").config, facts: Facts::default() };
        if !build.is_empty() {
            root.put("/usr/bin/containerd", &program(build));
        }
        for (path, text) in files {
            root.put(path, text.as_bytes());
        }
        root
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let contents = Contents { bytes: bytes.to_vec(), secret: false };
        self.apply(&[Change::Write { path: path.into(), contents, mode: 0o644 }]);
    }

    fn text(&self, path: &str) -> String {
        self.look().text(path).expect("reading").unwrap_or_default()
    }

    fn look(&self) -> Look<'_> {
        Look::new(&self.host, &self.config, &self.facts)
    }

    fn check(&self, wanted: &Wanted) -> Status {
        wait(examine(self.look(), wanted)).expect("a status")
    }

    fn pending(&self, wanted: &Wanted) -> (String, Vec<Change>) {
        match self.check(wanted) {
            Status::Pending { why, changes } => (why, changes),
            other => unreachable!("{other:?}"),
        }
    }

    fn broken(&self, wanted: &Wanted) -> Finding {
        match self.check(wanted) {
            Status::Broken(finding) => finding,
            other => unreachable!("{other:?}"),
        }
    }

    fn apply(&self, changes: &[Change]) {
        for change in changes {
            wait(self.host.apply(change)).expect("applied");
        }
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

const V1_7: &str = "path\tgithub.com/containerd/containerd/cmd/containerd\nmod\tgithub.com/containerd/containerd\t(devel)\t\n\
    build\t-ldflags=\"-X github.com/containerd/containerd/version.Version=v1.7.24 -s -w\"\n";
const V2_0: &str =
    "path\tgithub.com/containerd/containerd/v2/cmd/containerd\ndep\tgithub.com/containerd/containerd/v2\tv2.0.0\th1:x=\n";
const V2_4: &str =
    "path\tgithub.com/containerd/containerd/v2/cmd/containerd\ndep\tgithub.com/containerd/containerd/v2\tv2.4.2\th1:x=\n";

/// The least ELF file in which Go's build information can be found.
fn program(build: &str) -> Vec<u8> {
    let names = b"\0.shstrtab\0.go.buildinfo\0";
    let mut information = vec![0_u8; 32];
    information[..14].copy_from_slice(b"\xff Go buildinf:");
    information[14..16].copy_from_slice(&[8, 2]);
    for text in ["go1.26", &format!("{0}{build}{0}", "-".repeat(16))] {
        let mut length = text.len();
        while length >= 128 {
            information.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        information.push(length as u8);
        information.extend(text.bytes());
    }
    let mut file = vec![0_u8; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut sections = vec![0_u8; 64];
    for (name, bytes) in [(1_u32, names.as_slice()), (11, &information)] {
        let mut section = vec![0_u8; 64];
        section[..4].copy_from_slice(&name.to_le_bytes());
        section[0x18..0x20].copy_from_slice(&(file.len() as u64).to_le_bytes());
        section[0x20..0x28].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        sections.extend(section);
        file.extend(bytes);
    }
    let table = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 1, 0]);
    file.extend(sections);
    file
}

fn generation_of(root: &Root) -> Option<(u32, Option<u32>)> {
    let generation = generation::read(root.look(), Path::new("/usr/bin/containerd")).expect("a look")?;
    Some((generation.major, generation.minor))
}

#[test]
fn the_generation_is_read_from_what_is_there() {
    assert_eq!(generation_of(&Root::new(V1_7, &[])), Some((1, Some(7))));
    assert_eq!(generation_of(&Root::new(V2_4, &[])), Some((2, Some(4))));
    let bare = V2_4.lines().next().unwrap_or_default();
    assert_eq!(generation_of(&Root::new(bare, &[])), Some((2, None)));
    let dpkg = |package: &'static str, version: &str, list: &str| {
        let status = format!("Package: {package}\nStatus: install ok installed\nVersion: {version}\n");
        let list_file = format!("/var/lib/dpkg/info/{package}.list");
        generation_of(&Root::new(bare, &[("/var/lib/dpkg/status", &status), (&list_file, list)]))
    };
    assert_eq!(dpkg("containerd.io", "2:2.2.1-1~debian", "/usr/bin/containerd\n"), Some((2, Some(2))));
    assert_eq!(dpkg("containerd", "2.2.1-1", "/usr/bin/ctr\n"), Some((2, None)), "it owns another file");
    assert_eq!(dpkg("containerd", "1.6.20~ds1", "/usr/bin/containerd\n"), Some((2, None)), "the program knows better");
    let root = Root::new("", &[("/usr/bin/containerd", "#!/bin/sh\n")]);
    assert_eq!(generation_of(&root), None);
    assert_eq!(root.broken(&Wanted::default()).code, "containerd-unknown");
}

#[test]
fn the_unit_names_the_program_and_its_configuration() {
    let unit = "[Service]\nExecStart=-/opt/bin/containerd \\\n  --config=/srv/c.toml\n";
    let root = Root::new(V1_7, &[("/etc/systemd/system/containerd.service", unit)]);
    root.put("/opt/bin/containerd", &program(V2_4));
    let service = generation::service(root.look()).expect("a look").expect("a program");
    assert_eq!(
        (service.binary.as_path(), service.config_file.as_deref()),
        (Path::new("/opt/bin/containerd"), Some(Path::new("/srv/c.toml")))
    );
    root.put("/etc/systemd/system/containerd.service.d/x.conf", b"[Service]\nExecStart=\nExecStart=/usr/bin/containerd\n");
    let service = generation::service(root.look()).expect("a look").expect("a program");
    assert_eq!((service.binary.as_path(), service.config_file), (Path::new("/usr/bin/containerd"), None));
    assert_eq!(Root::new("", &[]).broken(&Wanted::default()).code, "containerd-absent");
}

#[test]
fn a_second_look_after_the_changes_finds_the_same_bytes() {
    for build in [V1_7, V2_0, V2_4] {
        let root = Root::new(build, &[]);
        let wanted =
            Wanted { nvidia: true, nvidia_by_default: true, cni_bin_dir: Some("/x/cni".to_owned()), ..Wanted::default() };
        let (_, changes) = root.pending(&wanted);
        root.apply(&changes);
        let written = root.text(MAIN);
        assert!(matches!(root.check(&wanted), Status::Ready(_)), "{written}");
        assert!(written.contains("default_runtime_name = \"nvidia\""), "{written}");
        assert_eq!(written.contains("bin_dirs = [\"/x/cni\"]"), build == V2_4, "{written}");
    }
}

#[test]
fn nothing_is_touched_before_containerd_has_read_a_copy() {
    let root = Root::new(
        V1_7,
        &[(MAIN, "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n"), ("/etc/containerd/conf.d/a.toml", "")],
    );
    let (_, changes) = root.pending(&Wanted::default());
    let shown: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let stage = "/run/gpuk-agent/containerd";
    assert_eq!(
        shown,
        [
            format!("write {stage}{MAIN}"),
            format!("write {stage}/etc/containerd/conf.d/a.toml"),
            format!("run /usr/bin/containerd --config {stage}{MAIN} config dump"),
            format!("write {MAIN}"),
            format!("remove {stage}{MAIN}"),
            format!("remove {stage}/etc/containerd/conf.d/a.toml"),
        ]
    );
    root.apply(&changes[..2]);
    assert!(root.text(&format!("{stage}{MAIN}")).contains(&format!("imports = [\"{stage}/etc/containerd/conf.d/a.toml\"]")));
}

#[test]
fn cut_off_after_any_change_the_next_round_ends_in_the_same_place() {
    let files = [
        (MAIN, "version = 2\nimports = [\"conf.d/*.toml\"]\n"),
        ("/etc/containerd/conf.d/a.toml", "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"),
    ];
    let whole = Root::new(V1_7, &files);
    let (_, changes) = whole.pending(&Wanted::default());
    whole.apply(&changes);
    for cut in 0..changes.len() {
        let root = Root::new(V1_7, &files);
        root.apply(&changes[..cut]);
        let mut rounds = 0;
        while let Status::Pending { changes, .. } = root.check(&Wanted::default()) {
            root.apply(&changes);
            rounds += 1;
            assert!(rounds < 3, "cut off after {cut}: no end");
        }
        for (path, _) in files {
            assert_eq!(root.text(path), whole.text(path), "cut off after {cut}");
        }
        let copy = format!("{}{MAIN}", super::changes::STAGE);
        assert!(!root.look().exists(&copy).expect("a look"), "cut off after {cut}: {copy} was left");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_line_and_column() {
    let root = Root::new(V1_7, &[(MAIN, "version = 2\n[plugins\n")]);
    let finding = root.broken(&Wanted::default());
    assert_eq!(finding.code, "containerd-config-unreadable");
    assert!(finding.why.contains("config.toml, line 2, column 9"), "{finding:?}");
    let root = Root::new(V1_7, &[(MAIN, "imports = [\"gone.toml\"]\n")]);
    assert!(root.broken(&Wanted::default()).what.contains("/etc/containerd/gone.toml"));
    let root = Root::new(V2_4, &[(MAIN, "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\"]\ncontainerd = 7\n")]);
    assert_eq!(root.broken(&Wanted::default()).code, "containerd-config-shape");
}

#[test]
fn who_masks_whom_is_said() {
    let cri = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"";
    let main = format!("imports = [\"conf.d/*.toml\"]\n{cri}.registry]\nconfig_path = \"/certs\"\n");
    let drop_in = format!("{cri}.containerd.runtimes.nvidia]\nruntime_type = \"io.containerd.runc.v2\"\n");
    let root = Root::new(V1_7, &[(MAIN, &main), ("/etc/containerd/conf.d/99-nvidia.toml", &drop_in)]);
    let (why, changes) = root.pending(&Wanted::default());
    assert!(
        why.contains("/etc/containerd/conf.d/99-nvidia.toml replaces the CRI section of /etc/containerd/config.toml"),
        "{why}"
    );
    assert!(why.contains("registry.config_path"), "{why}");
    root.apply(&changes);
    assert_eq!(root.text(MAIN), main, "the section that counts is in the drop-in");
    assert!(root.text("/etc/containerd/conf.d/99-nvidia.toml").contains("runtimes.runc]"));
    assert!(matches!(root.check(&Wanted::default()), Status::Ready(evidence) if evidence.contains("registry.config_path")));
}

#[test]
fn a_version_3_drop_in_makes_2_0_forget_a_version_2_file() {
    let main = "version = 2\nimports = [\"a.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"old\"\n";
    let files = [(MAIN, main), ("/etc/containerd/a.toml", "version = 3\n")];
    let root = Root::new(V2_0, &files);
    let (why, changes) = root.pending(&Wanted::default());
    assert!(why.contains("has no effect"), "{why}");
    root.apply(&changes);
    assert!(root.text("/etc/containerd/a.toml").contains("io.containerd.cri.v1.runtime"));
    let root = Root::new(V2_4, &files);
    root.apply(&root.pending(&Wanted::default()).1);
    assert!(root.text(MAIN).contains("runtimes.runc.options]"), "2.4 brings each file to its own version first");
}

#[test]
fn credentials_are_neither_shown_nor_kept() {
    let text =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example\".auth]\npassword = \"hunter2\"\n";
    let (_, changes) = Root::new(V1_7, &[(MAIN, text)]).pending(&Wanted::default());
    assert!(!format!("{changes:?}").contains("hunter2"), "{changes:?}");
}

#[test]
fn an_empty_folder_of_cni_plugins_gives_way() {
    let debian = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n";
    let bin_dir = |files: &[(&str, &str)]| {
        let root = Root::new(V1_7, files);
        root.apply(&root.pending(&Wanted::default()).1);
        let text = root.text(MAIN);
        text.lines().find_map(|line| line.strip_prefix("bin_dir = ").map(str::to_owned))
    };
    assert_eq!(bin_dir(&[(MAIN, debian), ("/opt/cni/bin/bridge", "")]).as_deref(), Some("\"/opt/cni/bin\""));
    assert_eq!(bin_dir(&[(MAIN, debian)]).as_deref(), Some("\"/usr/lib/cni\""));
    assert_eq!(bin_dir(&[("/usr/lib/cni/bridge", "")]).as_deref(), Some("\"/usr/lib/cni\""));
    assert_eq!(bin_dir(&[("/usr/lib/cni/bridge", ""), ("/opt/cni/bin/bridge", "")]), None);
    let chosen = debian.replace("/usr/lib/cni", "/srv/cni");
    assert_eq!(bin_dir(&[(MAIN, &chosen), ("/opt/cni/bin/bridge", "")]).as_deref(), Some("\"/srv/cni\""));
}

fn active() -> UnitState {
    UnitState { load: "loaded".to_owned(), active: "active".to_owned(), file: "enabled".to_owned(), ..UnitState::default() }
}

fn running(unit: Option<UnitState>, runtime: Option<RuntimeStatus>, files: &[(&str, &str)]) -> Status {
    let mut root = Root::new(V2_4, files);
    root.host.units = Box::new(unit.map_or_else(ScriptedUnits::default, |unit| ScriptedUnits::with([(UNIT, unit)])));
    root.host.runtime = Box::new(ScriptedRuntime { status: runtime, tried: None, ..ScriptedRuntime::default() });
    let view = View { runtimes: BTreeMap::from([("runc".to_owned(), toml::Table::new())]), ..View::default() };
    wait(running::examine(root.look(), &Wanted::default(), &view, "fine".to_owned())).expect("a status")
}

fn acts(status: Status) -> Vec<UnitVerb> {
    let Status::Pending { changes, .. } = status else { return Vec::new() };
    changes.iter().filter_map(|change| if let Change::Unit(verb, _) = change { Some(*verb) } else { None }).collect()
}

fn code(status: Status) -> String {
    match status {
        Status::Waiting(finding) | Status::Broken(finding) => finding.code,
        other => format!("{other:?}"),
    }
}

#[test]
fn ready_is_what_the_socket_says() {
    let ready = RuntimeStatus { runtime_ready: true, ..RuntimeStatus::default() };
    assert!(
        matches!(running(Some(active()), Some(ready.clone()), &[]), Status::Ready(text) if text.contains("no CNI configuration yet"))
    );
    assert_eq!(code(running(Some(active()), None, &[])), "containerd-silent");
    assert_eq!(code(running(Some(active()), Some(RuntimeStatus::default()), &[])), "containerd-not-ready");
    let other = RuntimeStatus { handlers: vec!["crun".to_owned()], ..ready.clone() };
    assert_eq!(acts(running(Some(active()), Some(other), &[])), [UnitVerb::Restart], "it reads other files than these");
    assert_eq!(acts(running(Some(active()), Some(ready), &[(RESTART_DUE, "")])), [UnitVerb::Restart], "a round was cut off");
}

#[test]
fn the_unit_is_started_enabled_or_waited_for() {
    let state = |change: fn(&mut UnitState)| {
        let mut state = active();
        change(&mut state);
        running(Some(state), None, &[])
    };
    assert_eq!(acts(state(|unit| unit.active = "inactive".to_owned())), [UnitVerb::Start]);
    assert_eq!(
        acts(state(|unit| (unit.active, unit.file) = ("failed".to_owned(), "disabled".to_owned()))),
        [UnitVerb::Start, UnitVerb::Enable]
    );
    assert_eq!(acts(state(|unit| unit.file = "disabled".to_owned())), [UnitVerb::Enable]);
    assert_eq!(code(state(|unit| unit.active = "activating".to_owned())), "containerd-starting");
    assert_eq!(code(state(|unit| unit.load = "masked".to_owned())), "containerd-masked");
    assert_eq!(code(running(None, None, &[])), "containerd-unit-absent");
}

#[test]
fn a_refusal_names_the_real_files() {
    let command = format!("/usr/bin/containerd --config /run/gpuk-agent/containerd{MAIN} config dump");
    let said = format!("failed to load TOML: /run/gpuk-agent/containerd{MAIN}: (2, 1): unexpected token");
    let Some(Status::Broken(finding)) = refused(&command, &said) else { unreachable!("no verdict") };
    assert_eq!(finding.why, format!("failed to load TOML: {MAIN}: (2, 1): unexpected token"));
    assert_eq!(refused("modprobe overlay", "no"), None);
}

#[tokio::test]
async fn gpus_that_must_be_there_and_are_not_are_an_error_on_a_running_system() {
    const ALWAYS: &str = "[gpu]\nenabled = \"always\"\n";
    let (folder, mut host) = machine(&[]);
    let gpus = |gpus: &[Gpu]| Facts { gpus: gpus.to_vec(), ..Facts::default() };
    let of_a_guest = Gpu { driver: Some("vfio-pci".to_owned()), ..Gpu::default() };
    for (facts, configuration, expected) in [
        (gpus(&[]), "", "containerd-absent"),
        (gpus(&[]), ALWAYS, "gpu-absent"),
        (gpus(std::slice::from_ref(&of_a_guest)), ALWAYS, "gpu-absent"),
        (gpus(&[of_a_guest, Gpu::default()]), ALWAYS, "containerd-absent"),
    ] {
        assert_eq!(code(step_check(&Containerd, &host, &facts, configuration).await), expected, "{facts:?}");
    }
    host.files = Files::below(folder.path()).expect("an image");
    assert_eq!(code(step_check(&Containerd, &host, &gpus(&[]), ALWAYS).await), "containerd-absent", "an image is built anywhere");
}
