//! A machine joins with the real engine and the real join step, on real files and over a real network; what it would start is stood in for.

pub mod api;
pub mod kubeadm;
pub mod kubelet;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use gpuk_agent::config::{Config, Source, load};
use gpuk_agent::engine::{Engine, Event, Observer, Stop};
use gpuk_agent::facts::{Dmi, Facts, Instance};
use gpuk_agent::host::Host;
use gpuk_agent::host::apply::Failure;
use gpuk_agent::host::clock::SystemClock;
use gpuk_agent::host::kernel::RecordingKernel;
use gpuk_agent::host::network::{Answer, Get, Network, PlainAnswer, PlainRequest, RealNetwork, Unreachable};
use gpuk_agent::host::programs::{End, Output, Programs, Question};
use gpuk_agent::host::units::{UnitState, Units};
use gpuk_agent::look::Look;
use gpuk_agent::state::StepRecord;
use gpuk_agent::step::{Stage, Status, Step, UnitVerb};
use gpuk_agent::steps::identity::OwnIdentity;
use gpuk_agent::steps::join::Join;

use kubelet::Kubelet;

/// What a machine was told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// `cluster.endpoints`.
    pub endpoints: Vec<String>,
    /// `cluster.token`.
    pub token: String,
    /// `cluster.ca-cert-hashes`; without one, none is asked for.
    pub pin: Option<String>,
    /// The instance id, which becomes the name.
    pub name: String,
    /// No request of the agent's takes longer.
    pub request_limit: Duration,
    /// How many times shorter kubeadm's limits are than those it is given.
    pub pace: u32,
    /// How long the kubelet waits before it asks again.
    pub kubelet_pause: Duration,
}

/// Who is told of each point at which a join can be cut off.
pub trait Points {
    /// It got so far.
    fn reached(&self, point: &str);
}

/// Nobody is told.
pub struct Uncut;

impl Points for Uncut {
    fn reached(&self, _point: &str) {}
}

/// One machine; it lives as long as its kubelet does.
pub struct Machine {
    root: PathBuf,
    /// What it was told.
    pub orders: Orders,
    points: Box<dyn Points>,
    kubelet: RefCell<Kubelet>,
    /// How often kubeadm was started, and ended well.
    pub kubeadm: Cell<(u32, u32)>,
    /// When the agent made its requests.
    pub requests: RefCell<Vec<Instant>>,
    /// Everything that the engine said, for whoever looks for secrets.
    pub said: RefCell<Vec<String>>,
    /// How long the engine paused each time because of a finding of this code.
    pub pauses: RefCell<Vec<(String, Duration)>>,
}

impl Machine {
    /// A machine with its disk at `root`. Its kubelet is enabled: it starts with it.
    pub fn boot(root: &Path, orders: Orders, points: Box<dyn Points>) -> Rc<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let machine = Rc::new(Self {
            root: root.to_owned(),
            orders,
            points,
            kubelet: RefCell::default(),
            kubeadm: Cell::default(),
            requests: RefCell::default(),
            said: RefCell::default(),
            pauses: RefCell::default(),
        });
        kubelet::start(&machine);
        machine
    }

    /// Where a file of the machine is on this one.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, where it is there.
    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    /// Writes as kubeadm and the kubelet do, in place: a cut leaves half of it.
    pub fn write_in_place(&self, path: &str, text: &str) {
        let place = self.path(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        self.points.reached(&format!("before {path}"));
        std::fs::write(&place, "").unwrap();
        self.points.reached(&format!("{path} is empty"));
        std::fs::write(&place, &text[..text.len() / 2]).unwrap();
        self.points.reached(&format!("half of {path}"));
        std::fs::write(&place, text).unwrap();
        self.points.reached(&format!("after {path}"));
    }

    /// One round of the real engine with the steps identity and join; what came of the second.
    pub async fn bring_up(self: &Rc<Self>, patience: Duration) -> StepRecord {
        let (host, config, facts) = (self.host(), self.config(), self.facts());
        let (_switch, stop) = Stop::new();
        let watcher = Watcher(self);
        let engine = Engine { host: &host, config: &config, facts: &facts, observer: &watcher, stop };
        let steps: Vec<Box<dyn Step>> = vec![Box::new(OwnIdentity), Box::new(Alone)];
        engine.bring_up(&steps, patience).await.remove(1)
    }

    /// One look of the real join step.
    pub async fn look(self: &Rc<Self>) -> Status {
        let (host, config, facts) = (self.host(), self.config(), self.facts());
        Join.check(Look::new(&host, &config, &facts)).await.unwrap()
    }

    fn host(self: &Rc<Self>) -> Host {
        Host {
            programs: Box::new(StandIns(self.clone())),
            units: Box::new(StandIns(self.clone())),
            network: Box::new(Impatient(self.clone(), RealNetwork::default())),
            kernel: Box::new(RecordingKernel::default()),
            clock: Box::new(SystemClock),
            ..Host::of_fakes(&self.root).unwrap()
        }
    }

    fn config(&self) -> Config {
        let mut pairs =
            vec![("cluster.endpoints", self.orders.endpoints.join(",")), ("cluster.token", self.orders.token.clone())];
        pairs.push(match &self.orders.pin {
            Some(pin) => ("cluster.ca-cert-hashes", pin.clone()),
            None => ("cluster.unsafe-skip-ca-verification", "true".to_owned()),
        });
        let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        load(vec![Source::flags(pairs)]).unwrap().config
    }

    /// Its machine id is made of its name.
    pub fn machine_id(&self) -> String {
        gpuk_agent::digest::sha256(self.orders.name.as_bytes()).chars().take(32).collect()
    }

    fn facts(&self) -> Facts {
        let instance = Instance { cloud: "nocloud", id: self.orders.name.clone(), ..Instance::default() };
        Facts { machine_id: self.machine_id(), instance: Some(instance), dmi: Dmi::default(), ..Facts::default() }
    }

    fn say(&self, text: String) {
        self.said.borrow_mut().push(text);
    }
}

/// The join step without the steps that it needs.
struct Alone;

#[async_trait(?Send)]
impl Step for Alone {
    fn name(&self) -> &'static str {
        Join.name()
    }

    fn purpose(&self) -> &'static str {
        Join.purpose()
    }

    fn stage(&self) -> Stage {
        Join.stage()
    }

    fn limit(&self) -> Duration {
        Join.limit()
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        Join.check(look).await
    }

    fn judge(&self, failure: &Failure, look: Look<'_>) -> Option<Status> {
        Join.judge(failure, look)
    }
}

struct Watcher<'a>(&'a Rc<Machine>);

impl Observer for Watcher<'_> {
    fn event(&self, event: &Event<'_>) {
        let machine = self.0;
        match event {
            Event::Changing(_, change) => {
                machine.say(format!("{change:?}"));
                machine.points.reached(&format!("before: {change}"));
            }
            Event::Changed(_, change, _, failure) => {
                machine.say(format!("{change} {}", failure.map(ToString::to_string).unwrap_or_default()));
                machine.points.reached(&format!("after: {change}"));
            }
            Event::Waiting(_, record, pause) => {
                let code = record.finding.as_ref().map(|finding| finding.code.clone());
                machine.pauses.borrow_mut().push((code.unwrap_or_default(), *pause));
                machine.say(format!("{record:?}"));
            }
            Event::Ended(_, record) => machine.say(format!("{record:?}")),
            Event::Started(_) | Event::LaneEnded(..) => {}
        }
    }
}

/// The machine's network, with a shorter limit: a test's proxy is near.
struct Impatient(Rc<Machine>, RealNetwork);

#[async_trait(?Send)]
impl Network for Impatient {
    async fn get(&self, mut request: Get) -> Result<Answer, Unreachable> {
        self.0.requests.borrow_mut().push(Instant::now());
        request.limit = request.limit.min(self.0.orders.request_limit);
        self.1.get(request).await
    }

    async fn plain(&self, request: PlainRequest) -> Result<PlainAnswer, Unreachable> {
        self.1.plain(request).await
    }

    async fn connect(&self, to: std::net::SocketAddr, namespace: Option<&Path>, limit: Duration) -> Result<(), Unreachable> {
        self.1.connect(to, namespace, limit).await
    }

    fn own_address(&self) -> Option<std::net::IpAddr> {
        self.1.own_address()
    }
}

/// kubeadm, mkdir, the journal and systemd, as far as a join uses them.
struct StandIns(Rc<Machine>);

#[async_trait(?Send)]
impl Programs for StandIns {
    async fn ask(&self, question: Question) -> Result<Output> {
        anyhow::ensure!(matches!(question, Question::UnitLog { .. }), "nothing else is asked");
        Ok(Output { code: Some(0), stdout: self.0.kubelet.borrow().log.join("\n"), stderr: String::new() })
    }

    async fn run(&self, argv: &[String], limit: Duration) -> Result<Output> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let ended = match words[..] {
            ["mkdir", "-p", path] => std::fs::create_dir_all(self.0.path(path)).map_err(|error| error.to_string()),
            ["kubeadm", "join", "--config", path] => tokio::time::timeout(limit, kubeadm::join(&self.0, path)).await?,
            _ => anyhow::bail!("{argv:?} is not stood in for"),
        };
        let (code, stderr) = ended.map_or_else(|said| (1, said), |()| (0, String::new()));
        Ok(Output { code: Some(code), stdout: String::new(), stderr })
    }

    async fn run_apart(&self, argv: &[String], _limit: Duration) -> End {
        End::NotStarted(format!("{argv:?} is not stood in for"))
    }
}

#[async_trait(?Send)]
impl Units for StandIns {
    async fn state(&self, unit: &str) -> Result<Option<UnitState>> {
        // The agent compares systemd's time with the kernel's.
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        std::fs::create_dir_all(self.0.path("/proc"))?;
        std::fs::write(self.0.path("/proc/uptime"), &uptime)?;
        Ok((unit == "kubelet.service").then(|| self.0.kubelet.borrow().state.clone()))
    }

    async fn act(&self, verb: UnitVerb, _unit: &str, _limit: Duration) -> Result<()> {
        match verb {
            UnitVerb::Start if self.0.kubelet.borrow().state.is_running() => {}
            UnitVerb::Start | UnitVerb::Restart => kubelet::start(&self.0),
            UnitVerb::Stop => kubelet::stop(&self.0),
            UnitVerb::Enable | UnitVerb::Reload => {}
        }
        Ok(())
    }

    async fn reboot(&self) -> Result<()> {
        anyhow::bail!("no join needs that")
    }
}

/// Looks until it finds something, or gives up.
pub async fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
