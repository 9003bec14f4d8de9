//! A control plane is four plain programs and a handful of certificates: no
//! container and no virtual machine is needed to have a real one.

mod configuration;
pub mod objects;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{run, run_with_input};
use crate::parts::{Parts, Program};
use crate::process::{Life, Process};
use crate::progress::{timed, wait_for};
pub use configuration::TOKEN;
use configuration::{Ports, Settings};

const LIMIT: Duration = Duration::from_secs(120);

/// Where nodes find the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reachable {
    /// Under the address that QEMU's user-mode network gives to the host.
    #[default]
    FromMachines,
    /// On this machine's loopback address only.
    FromHere,
}

impl Reachable {
    fn address(self) -> &'static str {
        match self {
            Self::FromMachines => crate::machine::HOST,
            Self::FromHere => "127.0.0.1",
        }
    }
}

/// What kind of cluster to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterOptions {
    /// Where nodes find the API server.
    pub reachable: Reachable,
    /// With a scheduler: pods get a node.
    pub scheduler: bool,
    /// Its API server answers nobody who does not say who he is.
    pub no_anonymous_access: bool,
    /// Other control plane nodes may join: its etcd is found at the same address as its API server, which must be one of this network's.
    pub grows: bool,
    /// How long its processes live.
    pub life: Life,
}

/// A running control plane.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    tools: Tools,
    servers: Vec<Process>,
    api_server: Option<Process>,
    /// Removes the folder at last, after the processes.
    _folder: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Tools {
    kubeadm: PathBuf,
    kubectl: PathBuf,
    etcd: PathBuf,
    api_server: PathBuf,
    controller_manager: PathBuf,
    scheduler: Option<PathBuf>,
}

impl Tools {
    fn get(parts: &Parts, options: ClusterOptions) -> Result<Self> {
        Ok(Self {
            kubeadm: parts.program(Program::Kubeadm)?,
            kubectl: parts.program(Program::Kubectl)?,
            etcd: parts.program(Program::Etcd)?,
            api_server: parts.program(Program::ApiServer)?,
            controller_manager: parts.program(Program::ControllerManager)?,
            scheduler: options.scheduler.then(|| parts.program(Program::Scheduler)).transpose()?,
        })
    }
}

impl Cluster {
    /// Starts a control plane in a temporary folder.
    pub fn start(parts: &Parts, options: ClusterOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gpuk-cluster-").tempdir()?;
        let mut cluster = Self::start_in(parts, options, folder.path())?;
        cluster._folder = Some(folder);
        Ok(cluster)
    }

    /// Starts a control plane that keeps everything it writes in `directory`, which must be empty.
    pub fn start_in(parts: &Parts, options: ClusterOptions, directory: &Path) -> Result<Self> {
        let tools = Tools::get(parts, options)?;
        let settings = Settings {
            directory: directory.to_owned(),
            address: options.reachable.address(),
            grows: options.grows,
            ports: free_ports()?,
            life: options.life,
            anonymous_access: !options.no_anonymous_access,
        };
        timed("starting the control plane", || {
            let mut cluster = Self { settings, tools, servers: Vec::new(), api_server: None, _folder: None };
            cluster.make_certificates()?;
            cluster.start_server("etcd", &cluster.tools.etcd.clone(), cluster.settings.etcd())?;
            cluster.start_api_server()?;
            cluster.upload()?;
            let arguments = cluster.settings.controller_manager();
            cluster.start_server("kube-controller-manager", &cluster.tools.controller_manager.clone(), arguments)?;
            if let Some(scheduler) = cluster.tools.scheduler.clone() {
                cluster.start_server("kube-scheduler", &scheduler, cluster.settings.scheduler())?;
            }
            cluster.wait_until_signed()?;
            Ok(cluster)
        })
    }

    /// The folder with its certificates, data and logs.
    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// Where nodes find the API server, for example `https://10.0.2.2:41234`.
    pub fn endpoint(&self) -> String {
        self.settings.endpoint()
    }

    /// The API server's port on this machine's loopback interface.
    pub fn port(&self) -> u16 {
        self.settings.ports.api_server
    }

    /// An administrator's kubeconfig, for use on this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.settings.file("kubeconfig/super-admin.conf")
    }

    /// The same for a program on a node.
    pub fn kubeconfig_of_nodes(&self) -> Result<String> {
        let file = self.kubeconfig();
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(with_server(&text, &self.endpoint()))
    }

    /// The program `kubectl`.
    pub fn kubectl_program(&self) -> &Path {
        &self.tools.kubectl
    }

    /// The process ids of its servers.
    pub fn process_ids(&self) -> Vec<u32> {
        self.servers.iter().chain(&self.api_server).map(Process::id).collect()
    }

    /// Kills the API server and waits for its end; everything else goes on.
    pub fn stop_api_server(&mut self) -> Result<()> {
        match self.api_server.take() {
            Some(mut server) => server.kill(),
            None => Ok(()),
        }
    }

    /// Starts the API server, on the same port as before, and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            let (settings, program) = (&self.settings, &self.tools.api_server);
            self.api_server = Some(settings.start("kube-apiserver", program, &settings.api_server())?);
        }
        self.wait_until_ready()
    }

    /// Runs `kubectl` as an administrator and answers its standard output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// Runs `kubectl` with something to read, for example for `apply -f -`.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.tools.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--request-timeout=20s");
        // Its cache of the API's kinds must not land in somebody's home.
        command.arg("--cache-dir").arg(self.settings.file("kubectl")).args(arguments);
        run_with_input(&mut command, input.as_bytes(), Duration::from_secs(60))
    }

    /// The end of each server's log.
    pub fn logs(&self, lines: usize) -> String {
        let servers = self.servers.iter().chain(&self.api_server);
        servers.map(|server| server.last_words(lines)).collect::<Vec<_>>().join("\n---\n")
    }

    fn start_server(&mut self, name: &str, program: &Path, arguments: Vec<String>) -> Result<()> {
        let server = self.settings.start(name, program, &arguments)?;
        self.servers.push(server);
        Ok(())
    }

    fn kubeadm(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.tools.kubeadm);
        command.args(["init", "phase"]).args(arguments).current_dir(&self.settings.directory);
        run(&mut command, LIMIT).map(drop)
    }

    fn make_certificates(&self) -> Result<()> {
        fs::write(self.settings.file("certificates.yaml"), self.settings.kubeadm_configuration(true))?;
        fs::write(self.settings.file("upload.yaml"), self.settings.kubeadm_configuration(false))?;
        self.kubeadm(&["certs", "all", "--config", "certificates.yaml"])?;
        for role in ["super-admin", "controller-manager", "scheduler"] {
            self.kubeadm(&["kubeconfig", role, "--config", "certificates.yaml", "--kubeconfig-dir", "kubeconfig"])?;
            // The address is for nodes; from here the server is on the loopback interface.
            let file = self.settings.file(&format!("kubeconfig/{role}.conf"));
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            fs::write(&file, with_server(&text, &format!("https://127.0.0.1:{}", self.port())))?;
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let what = "the API server to be ready";
        let start = std::time::Instant::now();
        loop {
            match self.kubectl(&["get", "--raw", "/readyz"]) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > LIMIT => {
                    return Err(error.context(format!("waiting for {what}")));
                }
                Err(_) => {}
            }
            for server in self.servers.iter_mut().chain(&mut self.api_server) {
                server.expect_running().with_context(|| format!("waiting for {what}"))?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What `kubeadm init` puts into a cluster for the nodes that will join.
    fn upload(&self) -> Result<()> {
        let kubeconfig = "kubeconfig/super-admin.conf";
        self.kubeadm(&["upload-config", "all", "--config", "upload.yaml", "--kubeconfig", kubeconfig])?;
        self.kubeadm(&["bootstrap-token", "--config", "upload.yaml", "--kubeconfig", kubeconfig])?;
        self.announce(&self.endpoint())?;
        // Made by `kubeadm init` itself and by none of its phases.
        let administrators = ["kubeadm:cluster-admins", "--clusterrole=cluster-admin", "--group=kubeadm:cluster-admins"];
        self.kubectl(&[&["create", "clusterrolebinding"], &administrators[..]].concat()).map(drop)
    }

    /// Lets machines join as control plane nodes: uploads the certificates under this key, and says where etcd is. kubeadm learns that from
    /// the mirror pods of etcd, which plain processes have not.
    pub fn admit_control_plane(&self, certificate_key: &str) -> Result<()> {
        let text = self.settings.kubeadm_configuration(true);
        let text = text.replacen("bootstrapTokens:", &format!("certificateKey: {certificate_key}\nbootstrapTokens:"), 1);
        fs::write(self.settings.file("upload-certs.yaml"), text)?;
        let kubeconfig = "kubeconfig/super-admin.conf";
        self.kubeadm(&["upload-certs", "--upload-certs", "--config", "upload-certs.yaml", "--kubeconfig", kubeconfig])?;
        self.kubectl_with(&["apply", "-f", "-"], &self.settings.mirror_pod()).map(drop)
    }

    /// Joining nodes see the signature of their token: before that they cannot trust anything.
    fn wait_until_signed(&self) -> Result<()> {
        let id = TOKEN.split('.').next().unwrap_or_default();
        wait_for("the signature of the bootstrap token", LIMIT, || {
            let keys = ["get", "configmap", "cluster-info", "-n", "kube-public", "-o", "jsonpath={.data}"];
            Ok(self.kubectl(&keys)?.contains(&format!("jws-kubeconfig-{id}")).then_some(()))
        })
    }
}

fn free_ports() -> Result<Ports> {
    // All are held until all are known, so that no two are the same.
    let listeners: Vec<_> = (0..5).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_>>()?;
    let [api_server, etcd_client, etcd_peer, controller_manager, scheduler] = ports[..] else {
        bail!("no five free ports");
    };
    Ok(Ports { api_server, etcd_client, etcd_peer, controller_manager, scheduler })
}

/// A kubeconfig with another address of its cluster's API server.
fn with_server(kubeconfig: &str, server: &str) -> String {
    let line = |line: &str| match line.split_once("server: ") {
        Some((indent, _)) => format!("{indent}server: {server}\n"),
        None => format!("{line}\n"),
    };
    kubeconfig.lines().map(line).collect()
}
