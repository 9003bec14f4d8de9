//! A pod starts when runtime, cgroup driver and folders agree with the kubelet's; everything else is the operator's own.

use std::path::PathBuf;

use anyhow::Result;
use toml::{Table, Value};

use super::effective::{find, leaves};
use super::generation::Generation;
use super::view::{RUNC_TYPE, Setting, View};
use crate::config::Runtime;
use crate::look::Look;

/// What the configuration of the agent asks of containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The main file, unless the unit's command line names another.
    pub config_file: PathBuf,
    /// The CRI socket.
    pub socket: String,
    /// The pause image; `None` keeps what is configured.
    pub pause_image: Option<String>,
    /// The folder of CNI plugins; `None` keeps what is configured and works.
    pub cni_bin_dir: Option<String>,
    /// The folder of CNI configurations; `None` keeps what is configured.
    pub cni_conf_dir: Option<String>,
    /// The NVIDIA runtime must be known.
    pub nvidia: bool,
    /// Pods that name no runtime class use it. When false, a default runtime that exists is kept.
    pub nvidia_by_default: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            config_file: "/etc/containerd/config.toml".into(),
            socket: "/run/containerd/containerd.sock".to_owned(),
            pause_image: None,
            cni_bin_dir: None,
            cni_conf_dir: None,
            nvidia: false,
            nvidia_by_default: false,
        }
    }
}

impl Wanted {
    /// What this machine's configuration and facts ask for.
    pub fn of(look: Look<'_>) -> Self {
        let config = &look.config.containerd;
        let text = |path: &PathBuf| path.display().to_string();
        Self {
            config_file: config.config_file.clone(),
            socket: text(&config.socket),
            pause_image: config.pause_image.clone(),
            cni_bin_dir: config.cni_bin_dir.as_ref().map(text),
            cni_conf_dir: config.cni_conf_dir.as_ref().map(text),
            nvidia: look.wants_gpus(),
            nvidia_by_default: config.default_runtime == Runtime::Nvidia,
        }
    }
}

/// Where upstream and most network add-ons put CNI plugins; also containerd's default.
const UPSTREAM_CNI: &str = "/opt/cni/bin";
/// Where Debian's package puts them; also what its containerd is configured for.
const DEBIAN_CNI: &str = "/usr/lib/cni";
/// containerd's default.
const CNI_CONF: &str = "/etc/cni/net.d";
/// The start of the NVIDIA runtime's file names: plain, `.cdi`, `.legacy`.
const NVIDIA_RUNTIME: &str = "nvidia-container-runtime";

/// Which of the two usual folders have CNI plugins in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CniFolders {
    upstream: bool,
    debian: bool,
}

impl CniFolders {
    /// Looks into both.
    pub fn look(look: Look<'_>) -> Result<Self> {
        let filled = |folder: &str| look.list(folder).map(|names| !names.is_empty());
        Ok(Self { upstream: filled(UPSTREAM_CNI)?, debian: filled(DEBIAN_CNI)? })
    }
}

/// The settings that are not as they must be, with what they must be, in a fixed order.
pub fn differences(view: &View, wanted: &Wanted, cni: CniFolders, generation: &Generation) -> Vec<(Setting, Value)> {
    let mut found: Vec<(Setting, Value)> = Vec::new();
    let default = default_runtime(view, wanted);
    if default != view.default_runtime {
        found.push((Setting::DefaultRuntime, default.clone().into()));
    }
    for (name, runtime) in runtimes(view, wanted, &default) {
        let present = view.runtimes.get(&name).cloned().unwrap_or_default();
        let different = leaves(&runtime).into_iter().filter(|(path, value)| find(&present, path) != Some(value));
        found.extend(different.map(|(path, value)| (Setting::Runtime(name.clone(), path), value)));
    }
    if let Some(image) = wanted.pause_image.as_ref().filter(|image| Some(*image) != view.pause_image.as_ref()) {
        found.push((Setting::PauseImage, image.clone().into()));
    }
    if let Some(folder) = cni_folder(view, wanted, cni) {
        let value = if view.bin_dirs { vec![folder].into() } else { folder.into() };
        found.push((Setting::CniBin, value));
    }
    let conf = view.cni_conf.as_deref().unwrap_or(CNI_CONF);
    if let Some(folder) = wanted.cni_conf_dir.as_deref().filter(|folder| *folder != conf) {
        found.push((Setting::CniConf, folder.into()));
    }
    let cdi =
        if generation.needs_enable_cdi() { view.cdi == Some(true) } else { !generation.has_bin_dir() || view.cdi != Some(false) };
    if wanted.nvidia && !cdi && (generation.major > 1 || generation.needs_enable_cdi()) {
        found.push((Setting::Cdi, true.into()));
    }
    if generation.major == 1 && view.old_systemd_cgroup && view.runtimes.get(&default).is_some_and(View::is_runc_shim) {
        found.push((Setting::OldSystemdCgroup, false.into()));
    }
    found
}

fn default_runtime(view: &View, wanted: &Wanted) -> String {
    let exists = |name: &str| view.runtimes.contains_key(name) || (wanted.nvidia && name == "nvidia");
    match view.default_runtime.as_str() {
        _ if wanted.nvidia && wanted.nvidia_by_default => "nvidia".to_owned(),
        name if exists(name) => name.to_owned(),
        _ => "runc".to_owned(),
    }
}

/// The runtimes as they must be: those that are there, those that are missing, and systemd as the cgroup driver of each.
fn runtimes(view: &View, wanted: &Wanted, default: &str) -> Vec<(String, Table)> {
    let mut runtimes = view.runtimes.clone();
    if default == "runc" || wanted.nvidia {
        runtimes.entry("runc".to_owned()).or_default().entry("runtime_type").or_insert(RUNC_TYPE.into());
    }
    if wanted.nvidia {
        let template = runtimes.get("runc").cloned().unwrap_or_default();
        let nvidia = runtimes.entry("nvidia".to_owned()).or_insert(template);
        nvidia.entry("runtime_type").or_insert(RUNC_TYPE.into());
        // The GPU operator has it elsewhere (/usr/local/nvidia/toolkit): any place is right.
        let is_nvidia = |value: &Value| {
            let name = value.as_str().and_then(|path| path.rsplit('/').next());
            name.is_some_and(|name| name.starts_with(NVIDIA_RUNTIME))
        };
        if !find(nvidia, &["options", "BinaryName"]).is_some_and(is_nvidia) {
            set_option(nvidia, "BinaryName", format!("/usr/bin/{NVIDIA_RUNTIME}").into());
        }
    }
    for runtime in runtimes.values_mut().filter(|runtime| View::is_runc_shim(runtime)) {
        set_option(runtime, "SystemdCgroup", true.into());
    }
    runtimes.into_iter().collect()
}

fn set_option(runtime: &mut Table, key: &str, value: Value) {
    let options = runtime.entry("options").or_insert_with(|| Table::new().into());
    match options.as_table_mut() {
        Some(options) => {
            options.insert(key.to_owned(), value);
        }
        None => *options = Table::from_iter([(key.to_owned(), value)]).into(),
    }
}

/// The folder that `bin_dir` must become, or `None` when it is right.
///
/// A folder that someone chose is kept. Of the two usual ones (packages write them into the file, nobody chose them) an empty one
/// gives way to the one that has plugins.
fn cni_folder(view: &View, wanted: &Wanted, cni: CniFolders) -> Option<String> {
    let configured: Vec<&str> = match &view.cni_bin {
        Some(folders) => folders.iter().map(String::as_str).collect(),
        None => vec![UPSTREAM_CNI],
    };
    if let Some(folder) = &wanted.cni_bin_dir {
        return (!configured.contains(&folder.as_str())).then(|| folder.clone());
    }
    match configured.as_slice() {
        [UPSTREAM_CNI] if !cni.upstream && cni.debian => Some(DEBIAN_CNI.to_owned()),
        [DEBIAN_CNI] if !cni.debian && cni.upstream => Some(UPSTREAM_CNI.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Facts, Gpu};
    use crate::host::Host;

    #[test]
    fn a_gpu_that_is_kept_for_a_virtual_machine_asks_for_no_nvidia_runtime() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let config = crate::config::load(Vec::new()).unwrap().config;
        for (driver, nvidia) in [(Some("vfio-pci"), false), (Some("nvidia"), true), (None, true)] {
            let gpu = Gpu { driver: driver.map(str::to_owned), ..Gpu::default() };
            let facts = Facts { gpus: vec![gpu], ..Facts::default() };
            assert_eq!(Wanted::of(Look::new(&host, &config, &facts)).nvidia, nvidia, "{driver:?}");
        }
    }
}
