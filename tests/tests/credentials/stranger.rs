//! A machine that never joined: a folder for its disk, the real network, the real OpenSSH client, and a kubeadm that only tries the token.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use gpuk_agent::config::{Source, load};
use gpuk_agent::engine::{Engine, Silent, Stop};
use gpuk_agent::facts::{Facts, Instance};
use gpuk_agent::host::Host;
use gpuk_agent::host::apply::Failure;
use gpuk_agent::host::clock::SystemClock;
use gpuk_agent::host::cluster::{ClusterError, ScriptedCluster};
use gpuk_agent::host::files::Files;
use gpuk_agent::host::network::RealNetwork;
use gpuk_agent::host::programs::{End, Output, Programs, Question, RealPrograms};
use gpuk_agent::look::Look;
use gpuk_agent::state::StepRecord;
use gpuk_agent::step::{Stage, Status, Step};
use gpuk_agent::steps::join::Join;
use vm_tests::Cluster;

/// A machine and what it was told.
pub struct Stranger {
    root: tempfile::TempDir,
    kubectl: PathBuf,
    settings: Vec<(String, String)>,
    /// Every command line that was run.
    pub seen: Rc<RefCell<Vec<String>>>,
}

/// How the attempt to join ended.
pub struct Joined {
    /// Of the step.
    pub record: StepRecord,
    /// Whether the cluster served kubeadm's configuration to the discovery file.
    pub opened: bool,
}

impl Joined {
    /// The code of the finding at the end; empty where kubeadm was reached.
    pub fn code(&self) -> &str {
        if self.opened { "" } else { self.record.finding.as_ref().map_or("no finding", |finding| finding.code.as_str()) }
    }
}

impl Stranger {
    /// Told where the cluster is, and nothing that opens it.
    pub fn of(cluster: &Cluster) -> Self {
        let root = tempfile::tempdir().unwrap();
        let stranger = Self { root, kubectl: cluster.kubectl_program().to_owned(), settings: Vec::new(), seen: Rc::default() };
        stranger.set("cluster.endpoints", &cluster.endpoint())
    }

    /// With this value of the configuration.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(name, _)| name != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With this file.
    pub fn with(self, path: &str, text: &str) -> Self {
        integration::write(self.root.path(), path.trim_start_matches('/'), text);
        self
    }

    /// With this private key.
    pub fn with_key(self, key: &Path) -> Self {
        let stranger = self.with("/etc/gpuk/join-key", &std::fs::read_to_string(key).unwrap());
        let path = stranger.root.path().join("etc/gpuk/join-key");
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        stranger
    }

    fn in_session<T>(&self, work: impl AsyncFnOnce(&Host, &gpuk_agent::config::Config, &Facts) -> T) -> T {
        let files = Files::as_running_system(self.root.path()).unwrap();
        let programs = Rooted {
            root: self.root.path().to_owned(),
            kubectl: self.kubectl.clone(),
            real: RealPrograms::new(&files),
            seen: Rc::clone(&self.seen),
        };
        let host = Host {
            files,
            programs: Box::new(programs),
            network: Box::new(RealNetwork::default()),
            cluster: Box::new(ScriptedCluster::answering(Err(ClusterError::NoCredential(String::new())))),
            clock: Box::new(SystemClock),
            ..Host::of_fakes(self.root.path()).unwrap()
        };
        let config = load(vec![Source::flags(self.settings.clone())]).unwrap().config;
        let instance = Instance { cloud: "nocloud", id: "gpu-1".to_owned(), ..Instance::default() };
        let facts = Facts { machine_id: "0a".repeat(16), instance: Some(instance), ..Facts::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(&host, &config, &facts))
    }

    /// One look, as `plan` takes it.
    pub fn look(&self) -> Status {
        self.in_session(async |host, config, facts| Join.check(Look::new(host, config, facts)).await.unwrap())
    }

    /// Looks, asks and joins, as `up` does, without waiting for what may come back.
    pub fn up(&self) -> Joined {
        let record = self.in_session(async |host, config, facts| {
            let (_switch, stop) = Stop::new();
            let engine = Engine { host, config, facts, observer: &Silent, stop };
            let steps: Vec<Box<dyn Step>> = vec![Box::new(JoinAlone)];
            engine.bring_up(&steps, Duration::ZERO).await.remove(0)
        });
        let opened = self.seen.borrow().iter().any(|line| line == OPENED);
        eprintln!("{:?}: {}", record.verdict, record.text);
        Joined { record, opened }
    }
}

/// The step without the steps that it needs.
struct JoinAlone;

#[async_trait::async_trait(?Send)]
impl Step for JoinAlone {
    fn name(&self) -> &'static str {
        Join.name()
    }

    fn purpose(&self) -> &'static str {
        Join.purpose()
    }

    fn stage(&self) -> Stage {
        Join.stage()
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        Join.check(look).await
    }

    fn judge(&self, failure: &Failure, look: Look<'_>) -> Option<Status> {
        Join.judge(failure, look)
    }
}

/// Said where kubeadm would have joined.
const OPENED: &str = "the discovery file opened the cluster";

/// Real programs, which find the machine's files below the folder. kubeadm is not among them: it would join this machine.
struct Rooted {
    root: PathBuf,
    kubectl: PathBuf,
    real: RealPrograms,
    seen: Rc<RefCell<Vec<String>>>,
}

#[async_trait::async_trait(?Send)]
impl Programs for Rooted {
    async fn ask(&self, question: Question) -> Result<Output> {
        bail!("nobody answers {question:?} here")
    }

    async fn run(&self, argv: &[String], _limit: Duration) -> Result<Output> {
        self.seen.borrow_mut().push(argv.join(" "));
        if argv.first().is_none_or(|program| program != "kubeadm") {
            return Ok(Output { code: Some(0), ..Output::default() });
        }
        let mut kubectl = Command::new(&self.kubectl);
        kubectl.arg("--kubeconfig").arg(self.root.join("run/gpuk-agent/join/discovery.conf")).env("HOME", self.root.join("root"));
        kubectl.args(["get", "configmap", "-n", "kube-system", "kubeadm-config"]);
        let asked = kubectl.output()?;
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        self.seen.borrow_mut().push(OPENED.to_owned());
        // What kubeadm says of a fault that no further try cures.
        Ok(Output { code: Some(1), stdout: String::new(), stderr: "\t[ERROR Swap]: enough".to_owned() })
    }

    async fn run_apart(&self, argv: &[String], limit: Duration) -> End {
        self.seen.borrow_mut().push(argv.join(" "));
        let rooted = |word: &String| {
            ["/run/gpuk-agent", "/etc/gpuk"].iter().fold(word.clone(), |word, folder| {
                word.replace(&format!("\"{folder}"), &format!("\"{}{folder}", self.root.display()))
            })
        };
        self.real.run_apart(&argv.iter().map(rooted).collect::<Vec<_>>(), limit).await
    }
}
