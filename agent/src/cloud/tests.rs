//! Fixtures in, facts out: firmware as files below a root, and a scripted network that answers as the protocols are documented.

#![allow(clippy::disallowed_methods, reason = "a test makes its own files")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::config::schema::{self, Kind};
use crate::config::{Config, Source};
use crate::facts::{Gathered, Instance, gather};
use crate::host::Host;
use crate::host::kernel::RecordingKernel;
use crate::host::network::{PlainAnswer, PlainRequest, ScriptedNetwork, Unreachable, UnreachableKind};

/// A machine of files and answers. Time is virtual: run its tests with `start_paused`.
pub struct Machine {
    root: tempfile::TempDir,
    network: ScriptedNetwork,
    settings: Vec<(String, String)>,
    kernel: RecordingKernel,
    /// What was said while it was waited.
    pub said: RefCell<Vec<String>>,
    /// Every request, as method, URL and its headers.
    pub seen: Rc<RefCell<Vec<PlainRequest>>>,
}

impl Machine {
    /// A machine whose firmware says this, by the names of `/sys/class/dmi/id`.
    pub fn with_firmware(firmware: &[(&str, &str)]) -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
            network: ScriptedNetwork::default(),
            settings: Vec::new(),
            kernel: RecordingKernel::default(),
            said: RefCell::default(),
            seen: Rc::default(),
        };
        let machine = machine.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        firmware.iter().fold(machine, |machine, (name, text)| machine.file(&format!("/sys/class/dmi/id/{name}"), text))
    }

    /// With a file.
    pub fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// With a disk that holds these files.
    pub fn disk(mut self, device: &str, files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
        self.kernel.disks.insert(device.to_owned(), files.collect());
        self.file(device, "")
    }

    /// With a value in the configuration.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With an answer for URLs that begin so; the first rule that fits holds.
    pub fn answering(mut self, prefix: &str, rule: impl Fn(&PlainRequest) -> Result<PlainAnswer, Unreachable> + 'static) -> Self {
        let seen = Rc::clone(&self.seen);
        self.network = self.network.answering_plain(prefix, move |request| {
            seen.borrow_mut().push(request.clone());
            rule(request)
        });
        self
    }

    /// Gathers the machine's facts.
    pub async fn gather(self) -> Seen {
        let mut host = Host::of_fakes(self.root.path()).unwrap();
        host.network = Box::new(self.network);
        host.kernel = Box::new(self.kernel);
        let config: Config = crate::config::load(vec![Source::flags(self.settings)]).unwrap().config;
        let began = tokio::time::Instant::now();
        let gathered = gather(&host, &config, &|line| self.said.borrow_mut().push(line.to_owned())).await;
        Seen { gathered, took: began.elapsed(), said: self.said.take(), requests: self.seen.take() }
    }
}

/// What came of a look.
pub struct Seen {
    pub gathered: Gathered,
    pub took: Duration,
    pub said: Vec<String>,
    pub requests: Vec<PlainRequest>,
}

impl Seen {
    pub fn instance(&self) -> &Instance {
        self.gathered.facts.instance.as_ref().unwrap_or_else(|| panic!("no instance: {:?}", self.gathered.facts.unseen))
    }

    pub fn user_data(&self) -> Option<String> {
        self.gathered.user_data.as_ref().map(|bytes| String::from_utf8(bytes.clone()).unwrap())
    }

    pub fn unseen(&self) -> String {
        self.gathered.facts.unseen.join("\n")
    }
}

/// An answer with this status and body.
pub fn answer(status: u16, body: &str) -> Result<PlainAnswer, Unreachable> {
    Ok(PlainAnswer { status, headers: http::HeaderMap::new(), body: body.as_bytes().to_vec() })
}

/// Nobody listens.
pub fn refused() -> Result<PlainAnswer, Unreachable> {
    Err(Unreachable { kind: UnreachableKind::Refused, text: "connection refused".to_owned() })
}

const EC2: &[(&str, &str)] = &[("sys_vendor", "Amazon EC2\n"), ("board_asset_tag", "i-0123456789abcdef0\n")];

const INSTANCE_DATA: &str = r#"{"v1": {"instance_id": "i-0feed", "region": "eu-west-1", "availability_zone": "eu-west-1a",
    "local_hostname": "gpu-1", "cloud_name": "aws", "platform": "ec2"}}"#;

#[test]
fn every_cloud_can_be_named() {
    let key = schema::find("cloud", "name").unwrap();
    let Kind::Choice(choices) = key.kind else { unreachable!() };
    let rows = super::clouds();
    let mut known: Vec<&str> = rows.iter().map(|cloud| cloud.name()).chain(["auto", "none"]).collect();
    let mut choices = choices.to_vec();
    known.sort_unstable();
    choices.sort_unstable();
    assert_eq!(choices, known);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_is_silent_costs_the_limit_once_and_is_spoken_of() {
    let seen = Machine::with_firmware(EC2).set("cloud.limit", "4s").gather().await;
    assert_eq!(seen.took, Duration::from_secs(4));
    assert_eq!(seen.said.len(), 1, "{:?}", seen.said);
    for words in ["ec2", "http://169.254.169.254", "http://[fd00:ec2::254]", "at most 4s"] {
        assert!(seen.said[0].contains(words), "{:?}", seen.said);
    }
    // The firmware knows the id, and nobody knows the user-data.
    assert_eq!((seen.instance().id.as_str(), seen.instance().source.as_str()), ("i-0123456789abcdef0", "DMI board_asset_tag"));
    let trouble = seen.gathered.unknown.clone().unwrap();
    assert!(trouble.may_pass(), "{trouble}");
    assert!(seen.unseen().contains("http://169.254.169.254") && seen.unseen().contains("4.0 s"), "{}", seen.unseen());
}

#[tokio::test(start_paused = true)]
async fn cloud_init_knows_what_the_service_does_not_say() {
    let seen = Machine::with_firmware(EC2)
        .file("/run/cloud-init/instance-data.json", INSTANCE_DATA)
        .file("/var/lib/cloud/instance/user-data.txt", "#cloud-config\n")
        .gather()
        .await;
    let instance = seen.instance();
    assert_eq!((instance.cloud, instance.id.as_str(), instance.zone.as_deref()), ("ec2", "i-0feed", Some("eu-west-1a")));
    assert_eq!(instance.provider_id.as_deref(), Some("aws:///eu-west-1a/i-0feed"));
    assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));
    assert!(seen.gathered.unknown.is_none());
    assert!(seen.unseen().contains("not answered within 5.0 s"), "{}", seen.unseen());
    // Tags are among what it kept only where it could see them, and one of them may say what the node is.
    let trouble = seen.gathered.role_unknown.unwrap();
    assert!(trouble.may_pass() && trouble.to_string().starts_with("the instance's tags: ec2"), "{trouble}");
}

#[tokio::test(start_paused = true)]
async fn cloud_init_kept_the_tags_that_the_service_does_not_say() {
    for tree in ["meta-data", "meta_data"] {
        let tags = r#"{"Name": "gpu one", "gpuk/role": "observed", "eks:cluster-name": "prod", "join-token": "x", "n": 1}"#;
        let data = INSTANCE_DATA.replacen('{', &format!(r#"{{"ds": {{"{tree}": {{"tags": {{"instance": {tags}}}}}}}, "#), 1);
        let seen = Machine::with_firmware(EC2).file("/run/cloud-init/instance-data.json", &data).gather().await;
        let instance = seen.instance();
        assert_eq!(instance.tags.keys().collect::<Vec<_>>(), ["Name", "eks:cluster-name", "gpuk/role"], "{tree}");
        assert_eq!(instance.name.as_deref(), Some("gpu one"));
        assert_eq!(instance.managed.as_deref(), Some("EKS: tag eks:cluster-name is \"prod\""));
        assert!(seen.gathered.unknown.is_none() && seen.gathered.role_unknown.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_id_there_is_no_instance_but_a_trouble_that_may_pass() {
    let seen = Machine::with_firmware(&[("product_name", "Google Compute Engine")]).gather().await;
    assert_eq!(seen.gathered.facts.instance, None);
    assert!(seen.gathered.unknown.unwrap().may_pass());
}

#[tokio::test(start_paused = true)]
async fn a_page_in_between_is_told_at_once_from_silence() {
    let page = |_: &PlainRequest| answer(200, "<html><body>Please log in</body></html>");
    let seen = Machine::with_firmware(&[("sys_vendor", "Amazon EC2")]).answering("http://169.254.169.254", page).gather().await;
    assert_eq!(seen.took, Duration::ZERO);
    let trouble = seen.gathered.unknown.unwrap();
    assert!(!trouble.may_pass() && trouble.to_string().contains("39 bytes"), "{trouble}");
    assert!(!trouble.to_string().contains("log in"), "what a stranger says is not repeated: {trouble}");
}

#[tokio::test(start_paused = true)]
async fn bare_metal_is_known_by_its_mainboard_and_nobody_is_asked() {
    let uuid = ("product_uuid", "4C4C4544-0042-3510-8052-B3C04F4B4E32\n");
    let ec2 = |_: &PlainRequest| answer(200, "i-0123");
    let seen = Machine::with_firmware(&[uuid]).answering("http://", ec2).gather().await;
    assert_eq!((seen.instance().cloud, seen.instance().id.as_str()), ("none", "4c4c4544-0042-3510-8052-b3c04f4b4e32"));
    assert!(seen.requests.is_empty(), "{:?}", seen.requests);

    let shared = ("product_uuid", "03000200-0400-0500-0006-000700080009");
    let seen = Machine::with_firmware(&[shared]).gather().await;
    assert_eq!(seen.instance().id, "0123456789abcdef0123456789abcdef");

    let seen = Machine::with_firmware(EC2).set("cloud.name", "none").answering("http://", ec2).gather().await;
    assert_eq!((seen.instance().cloud, seen.requests.len()), ("none", 0));
}

#[tokio::test(start_paused = true)]
async fn a_board_whose_uuid_may_not_be_read_has_no_id_at_all() {
    // A directory in its place cannot be read by anyone, root included.
    let seen = Machine::with_firmware(&[]).file("/sys/class/dmi/id/product_uuid/x", "").gather().await;
    assert_eq!(seen.gathered.facts.instance, None);
    assert!(seen.unseen().contains("product_uuid"), "{}", seen.unseen());
}

#[tokio::test(start_paused = true)]
async fn a_virtual_machine_that_no_row_claims_is_asked_once() {
    let guest = "processor : 0\nflags\t\t: fpu hypervisor lm\n";
    let seen = Machine::with_firmware(&[]).file("/proc/cpuinfo", guest).answering("http://", |_| refused()).gather().await;
    assert_eq!((seen.instance().cloud, seen.requests.len()), ("none", 1));

    let page = |_: &PlainRequest| answer(200, "<html>");
    let seen = Machine::with_firmware(&[]).file("/proc/cpuinfo", guest).answering("http://", page).gather().await;
    assert_eq!((seen.instance().cloud, seen.requests.len()), ("none", 1));

    let compatible = |request: &PlainRequest| {
        if request.url.ends_with("/instance-id") { answer(200, "i-00000042\n") } else { answer(404, "") }
    };
    let seen = Machine::with_firmware(&[]).file("/proc/cpuinfo", guest).answering("http://", compatible).gather().await;
    assert_eq!((seen.instance().cloud, seen.instance().id.as_str()), ("ec2", "i-00000042"));
}

#[tokio::test(start_paused = true)]
async fn where_ec2_was_before_silence_is_waited_for() {
    let guest = "flags : hypervisor\n";
    let kept = |cloud: &str| format!(r#"{{"instanceId": "i-1", "cloud": "{cloud}", "node": "gpu-1"}}"#);
    let machine = |cloud: &str| {
        let machine = Machine::with_firmware(&[]).file("/proc/cpuinfo", guest).set("cloud.limit", "4s");
        machine.file("/var/lib/gpuk-agent/identity.json", &kept(cloud))
    };
    let seen = machine("ec2").gather().await;
    let trouble = seen.gathered.unknown.unwrap();
    assert!(trouble.may_pass() && trouble.to_string().contains("identity.json"), "{trouble}");
    assert_eq!((seen.took, seen.said.len()), (Duration::from_secs(4), 1));
    // Elsewhere nobody was there, and nobody is waited for.
    assert!(machine("none").gather().await.gathered.unknown.is_none());
    assert!(machine("ec2").set("cloud.name", "none").gather().await.gathered.unknown.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_answers_not_yet_is_there() {
    let guest = "flags : hypervisor\n";
    for status in [429, 503] {
        let machine = || Machine::with_firmware(&[]).file("/proc/cpuinfo", guest).set("cloud.limit", "4s");
        let tries = Rc::new(RefCell::new(0));
        let late = move |request: &PlainRequest| {
            *tries.borrow_mut() += 1;
            match request.url.ends_with("/instance-id") {
                true if *tries.borrow() < 10 => answer(status, ""),
                true => answer(200, "i-00000042"),
                false => answer(404, ""),
            }
        };
        let seen = machine().answering("http://", late).gather().await;
        assert_eq!((seen.instance().cloud, seen.instance().id.as_str()), ("ec2", "i-00000042"));
        assert!(seen.gathered.unknown.is_none() && seen.said.len() == 1, "{:?}", seen.said);

        let seen = machine().answering("http://", move |_| answer(status, "")).gather().await;
        let trouble = seen.gathered.unknown.unwrap();
        assert!(trouble.may_pass() && trouble.to_string().contains(&status.to_string()), "{trouble}");
        assert_eq!(seen.took, Duration::from_secs(4));
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_waited_for_is_told_and_all_of_it() {
    // The answer to one question must not hide that another one has none.
    let serial = ("product_serial", "ds=nocloud;s=http://seeds/");
    let half = |request: &PlainRequest| {
        if request.url.ends_with("/meta-data") { answer(200, "instance-id: i-1\n") } else { answer(503, "") }
    };
    let seen = Machine::with_firmware(&[serial]).answering("http://seeds", half).gather().await;
    assert_eq!(seen.said.len(), 1);
    assert!(seen.said[0].contains("from http://seeds (/user-data answers with status 503), at most"), "{:?}", seen.said);
    // One address of a service answers; the other one lost the race, and nobody waits for it any more.
    let one = |request: &PlainRequest| {
        if request.url.ends_with("/latest/user-data") { answer(503, "") } else { answer(200, "i-1") }
    };
    let seen = Machine::with_firmware(EC2).answering("http://[fd00:ec2::254]", one).gather().await;
    let trouble = seen.gathered.unknown.unwrap().to_string();
    for words in [&seen.said[0], &trouble] {
        assert!(words.contains("fd00") && !words.contains("169.254.169.254"), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_platform_without_a_row_is_known_by_cloud_init() {
    let data = r#"{"v1": {"instance_id": "4711", "platform": "hetzner"}}"#;
    let seen =
        Machine::with_firmware(&[("sys_vendor", "Hetzner")]).file("/run/cloud-init/instance-data.json", data).gather().await;
    assert_eq!((seen.instance().cloud, seen.instance().id.as_str()), ("hetzner", "4711"));
    let nameless = Machine::with_firmware(&[]).file("/run/cloud-init/instance-data.json", r#"{"v1": {"instance_id": "4711"}}"#);
    assert_eq!(nameless.gather().await.instance().cloud, "cloud-init");

    let broken = Machine::with_firmware(&[]).file("/run/cloud-init/instance-data.json", "{\"v1\"").gather().await;
    assert_eq!(broken.gathered.facts.instance, None);
    assert!(!broken.gathered.unknown.unwrap().may_pass());

    let both = Machine::with_firmware(EC2).file("/run/cloud-init/instance-data.json", "{\"v1\"").gather().await;
    let trouble = both.gathered.unknown.unwrap().to_string();
    let (service, file) = (trouble.find("not answered within").unwrap(), trouble.find("instance-data.json").unwrap());
    assert!(trouble.starts_with("instance metadata: ec2") && service < file, "{trouble}");
}
