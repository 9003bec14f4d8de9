//! Of containerd's many settings a node depends on few: which runtime, how it makes cgroups, the pause image and CNI's folders.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::effective::{CRI, CRI_IMAGES, CRI_RUNTIME, Effective, Layout, find};
use super::generation::Generation;

/// One setting that a node depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Name of the runtime of pods that name none.
    DefaultRuntime,
    /// Something in a runtime's table, by the keys that lead to it.
    Runtime(String, Vec<String>),
    /// The image of the container that holds a pod's namespaces.
    PauseImage,
    /// The folder (in later versions: folders) of CNI plugins.
    CniBin,
    /// The folder of CNI configurations.
    CniConf,
    /// Container Device Interface.
    Cdi,
    /// The cgroup switch of runtimes before shims; containerd 1.x refuses it with today's runtimes.
    OldSystemdCgroup,
}

impl Setting {
    /// The plugin and the keys under which a file of this layout has it.
    pub fn place(&self, layout: Layout, bin_dirs: bool) -> (&'static str, Vec<String>) {
        let runtime = match layout {
            Layout::Version1 => "cri",
            Layout::Version2 => CRI,
            Layout::Version3 => CRI_RUNTIME,
        };
        let newest = layout == Layout::Version3;
        let keys: &[&str] = match self {
            Self::DefaultRuntime => &["containerd", "default_runtime_name"],
            Self::Runtime(name, below) => {
                let path = ["containerd", "runtimes", name].map(str::to_owned);
                return (runtime, path.into_iter().chain(below.iter().cloned()).collect());
            }
            Self::PauseImage if newest => &["pinned_images", "sandbox"],
            Self::PauseImage => &["sandbox_image"],
            Self::CniBin if newest && bin_dirs => &["cni", "bin_dirs"],
            Self::CniBin => &["cni", "bin_dir"],
            Self::CniConf => &["cni", "conf_dir"],
            Self::Cdi => &["enable_cdi"],
            Self::OldSystemdCgroup => &["systemd_cgroup"],
        };
        let plugin = if newest && *self == Self::PauseImage { CRI_IMAGES } else { runtime };
        (plugin, keys.iter().map(|key| (*key).to_owned()).collect())
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DefaultRuntime => formatter.write_str("the default runtime"),
            Self::Runtime(name, keys) => write!(formatter, "{} of runtime {name}", keys.join(".")),
            Self::PauseImage => formatter.write_str("the pause image"),
            Self::CniBin => formatter.write_str("the folder of CNI plugins"),
            Self::CniConf => formatter.write_str("the folder of CNI configurations"),
            Self::Cdi => formatter.write_str("enable_cdi"),
            Self::OldSystemdCgroup => formatter.write_str("systemd_cgroup"),
        }
    }
}

/// The settings as containerd uses them; `None` is "not configured, containerd's default".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Name of the default runtime, containerd's default included.
    pub default_runtime: String,
    /// The runtimes, containerd's default `runc` included where it is one.
    pub runtimes: BTreeMap<String, Table>,
    /// The pause image.
    pub pause_image: Option<String>,
    /// Folders of CNI plugins.
    pub cni_bin: Option<Vec<String>>,
    /// Folder of CNI configurations.
    pub cni_conf: Option<String>,
    /// Container Device Interface.
    pub cdi: Option<bool>,
    /// The old cgroup switch is on.
    pub old_systemd_cgroup: bool,
    /// The folders are (or would be) written as `bin_dirs`.
    pub bin_dirs: bool,
}

/// The type of runc's shim.
pub const RUNC_TYPE: &str = "io.containerd.runc.v2";

impl View {
    /// Picks the settings out of the effective configuration.
    pub fn of(effective: &Effective, generation: &Generation) -> Self {
        let layout = if generation.merges_sections() { Layout::Version3 } else { Layout::Version2 };
        let get_as = |setting: &Setting, bin_dirs: bool| {
            let (plugin, keys) = setting.place(layout, bin_dirs);
            effective.sections.get(plugin).and_then(|section| find(section, &keys))
        };
        let text = |setting: &Setting| get_as(setting, false).and_then(Value::as_str).map(str::to_owned);
        let single = if generation.has_bin_dir() { text(&Setting::CniBin) } else { None };
        let many = if generation.has_bin_dirs() { get_as(&Setting::CniBin, true).and_then(Value::as_array) } else { None };
        let many = many.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        let bin_dirs = generation.has_bin_dirs() && single.is_none();
        Self {
            default_runtime: text(&Setting::DefaultRuntime).unwrap_or_else(|| "runc".to_owned()),
            runtimes: runtimes(effective, layout, generation),
            pause_image: text(&Setting::PauseImage),
            cni_bin: single.map(|one| vec![one]).or(many),
            cni_conf: text(&Setting::CniConf),
            cdi: get_as(&Setting::Cdi, false).and_then(Value::as_bool),
            old_systemd_cgroup: get_as(&Setting::OldSystemdCgroup, false).and_then(Value::as_bool).unwrap_or(false),
            bin_dirs,
        }
    }

    /// Whether runc's shim starts this runtime's containers.
    pub fn is_runc_shim(runtime: &Table) -> bool {
        runtime.get("runtime_type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("io.containerd.runc."))
    }
}

fn runtimes(effective: &Effective, layout: Layout, generation: &Generation) -> BTreeMap<String, Table> {
    let (plugin, keys) = Setting::Runtime(String::new(), Vec::new()).place(layout, false);
    let configured = effective.sections.get(plugin).and_then(|section| find(section, &keys[..2])).and_then(Value::as_table);
    let mut runtimes: BTreeMap<String, Table> =
        configured.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_table()?.clone()))).collect();
    // Until 2.0 any configured runtime makes the built-in one disappear.
    if generation.merges_sections() || configured.is_none() {
        let runc = runtimes.entry("runc".to_owned()).or_default();
        runc.entry("runtime_type").or_insert(RUNC_TYPE.into());
    }
    runtimes
}
