//! Every fact names one file; one that cannot be read is noted as unseen instead of guessed.

use std::time::Instant;

use super::{CgroupVersion, Dmi, Facts, OperatingSystem, SourceTiming, marks, pci};
use crate::cloud::{self, Trouble};
use crate::config::Config;
use crate::host::Host;
use crate::look::Look;
use crate::role;
use crate::unknown::{About, Unknown};

/// The facts, and the user-data that was found beside them (it may hold secrets, so it is no fact).
pub struct Gathered {
    /// What is known.
    pub facts: Facts,
    /// The instance's user-data, when there is any, perhaps packed.
    pub user_data: Option<Vec<u8>>,
    /// Why it is not known what the node is to be, e.g. because its user-data could not be read.
    pub unknown: Option<Unknown>,
    /// Why the machine may be something else than its facts say. It matters only where nobody gave it a role.
    pub role_unknown: Option<Unknown>,
}

/// Looks at the machine once. What cannot be seen is listed in [`Facts::unseen`]; `say` hears when somebody is waited for.
pub async fn gather(host: &Host, config: &Config, say: &dyn Fn(&str)) -> Gathered {
    let none = Facts::default();
    let mut reader = Reader { look: Look::new(host, config, &none), unseen: Vec::new(), sources: Vec::new() };
    // What a cloud is recognised by comes first, so that the rest can be read while the cloud is asked.
    let known = reader.timed("firmware", |reader| Facts {
        // The word is in an image until its first boot (machine-id(5)).
        machine_id: reader.line("/etc/machine-id").filter(|id| id != "uninitialized").unwrap_or_default(),
        dmi: if reader.look.running_system() { firmware(reader) } else { Dmi::default() },
        ..Facts::default()
    });
    let asked = async {
        let began = Instant::now();
        (cloud::ask(Look::new(host, config, &known), say).await, took("metadata", began))
    };
    let rest = async {
        let mut facts = known.clone();
        facts.os = reader.timed("files", |reader| reader.os());
        let without_gpus = if reader.look.running_system() {
            let without_gpus = running(&mut reader, host, &mut facts);
            facts.gpus_unseen = without_gpus.as_ref().map(ToString::to_string);
            without_gpus
        } else {
            facts.gpus_unseen = Some("they show when the image is booted".to_owned());
            None
        };
        let without_marks = match marks::marks(reader.look) {
            Ok(marks) => {
                facts.marks = marks;
                None
            }
            Err(error) => Some(Unknown::new(About::Marks, Trouble::from(error).about("what was installed on this machine"))),
        };
        (facts, without_gpus, without_marks)
    };
    let ((answer, metadata), (mut facts, without_gpus, without_marks)) = tokio::join!(asked, rest);
    facts.unseen = reader.unseen;
    facts.sources = reader.sources;
    facts.sources.push(metadata);
    let (mut user_data, mut unknown, mut role_unknown) = (None, None, None);
    match answer {
        Ok(metadata) => {
            facts.instance = metadata.instance;
            facts.unseen.extend(metadata.unseen);
            role_unknown = metadata.without_tags.map(|trouble| Unknown::new(About::Tags, trouble.about("the instance's tags")));
            match metadata.user_data {
                Ok(found) => user_data = found,
                Err(trouble) => unknown = Some(Unknown::new(About::Metadata, trouble.about("user-data"))),
            }
        }
        Err(trouble) => unknown = Some(Unknown::new(About::Metadata, trouble.about("instance metadata"))),
    }
    // What the platform says of the role counts before what is on the disk.
    role_unknown = role_unknown.or(without_marks.filter(|_| role::layer(&facts).is_none()));
    facts.unseen.extend([&unknown, &without_gpus, &role_unknown].into_iter().flatten().map(ToString::to_string));
    unknown = unknown.or(without_gpus);
    Gathered { facts, user_data, unknown, role_unknown }
}

fn took(name: &'static str, began: Instant) -> SourceTiming {
    SourceTiming { name, took_microseconds: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX) }
}

fn firmware(reader: &mut Reader<'_>) -> Dmi {
    Dmi {
        system_vendor: reader.line("/sys/class/dmi/id/sys_vendor"),
        product_name: reader.line("/sys/class/dmi/id/product_name"),
        product_uuid: reader.line("/sys/class/dmi/id/product_uuid"),
        product_serial: reader.line("/sys/class/dmi/id/product_serial"),
        board_asset_tag: reader.line("/sys/class/dmi/id/board_asset_tag"),
        chassis_asset_tag: reader.line("/sys/class/dmi/id/chassis_asset_tag"),
    }
}

/// Facts of a running system; an image has none of them. The answer is why there may be GPUs that were not seen.
fn running(reader: &mut Reader<'_>, host: &Host, facts: &mut Facts) -> Option<Unknown> {
    reader.timed("kernel", |reader| {
        facts.kernel = reader.line("/proc/sys/kernel/osrelease").unwrap_or_default();
        facts.boot_id = reader.line("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        facts.hostname = reader.line("/proc/sys/kernel/hostname").unwrap_or_default();
        // Only the unified hierarchy has this file at its top (cgroups(7)).
        let unified = reader.look.exists("/sys/fs/cgroup/cgroup.controllers");
        facts.cgroup = reader.seen(unified).map(|unified| if unified { CgroupVersion::V2 } else { CgroupVersion::V1 });
        facts.memory = host.kernel.memory();
        facts.disks = host.kernel.disks();
    });
    reader.timed("pci", |reader| {
        let devices = pci::devices(reader.look);
        (facts.gpus, facts.nvswitches) = (devices.gpus, devices.nvswitches);
        reader.unseen.extend(devices.unseen.iter().map(|error| format!("{error:#}")));
        let unread: Vec<String> = devices.unread.iter().map(|error| format!("{error:#}")).collect();
        let trouble = Trouble::Unreadable(unread.join("; ")).about("the GPUs of this machine");
        (!unread.is_empty()).then(|| Unknown::new(About::Gpus, trouble))
    })
}

struct Reader<'a> {
    look: Look<'a>,
    unseen: Vec<String>,
    sources: Vec<SourceTiming>,
}

impl Reader<'_> {
    fn timed<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> T) -> T {
        let began = Instant::now();
        let result = work(self);
        self.sources.push(took(name, began));
        result
    }

    /// The result, or a note of why there is none.
    fn seen<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.unseen.push(format!("{error:#}"))).ok()
    }

    fn text(&mut self, path: &str) -> Option<String> {
        let text = self.look.text(path);
        self.seen(text).flatten()
    }

    fn os(&mut self) -> OperatingSystem {
        let text = self.text("/etc/os-release").or_else(|| self.text("/usr/lib/os-release"));
        text.map(|text| operating_system(&text)).unwrap_or_default()
    }

    /// The first line without white space around it; an empty one is `None`.
    fn line(&mut self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let line = text.lines().next().unwrap_or_default().trim();
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// Reads os-release(5): `KEY=value` lines, values perhaps in quotes.
fn operating_system(text: &str) -> OperatingSystem {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    OperatingSystem {
        id: value("ID"),
        like: value("ID_LIKE").split_whitespace().map(str::to_owned).collect(),
        version: value("VERSION_ID"),
        name: value("PRETTY_NAME"),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use super::{Gathered, gather, operating_system};
    use crate::host::Host;

    /// What is gathered where these are links to themselves, which nobody can follow, beside these files.
    async fn gathered(loops: &[&str], files: &[(&str, &str)]) -> Gathered {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        loops.iter().for_each(|path| std::os::unix::fs::symlink(path.rsplit('/').next().unwrap(), place(path)).unwrap());
        files.iter().for_each(|(path, text)| std::fs::write(place(path), text).unwrap());
        let config = crate::config::load(Vec::new()).unwrap().config;
        gather(&Host::of_fakes(root.path()).unwrap(), &config, &|_| {}).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_may_be_a_gpu_is_not_taken_for_none() {
        let vendor = "sys/bus/pci/devices/0000:01:00.0/vendor";
        let seen = gathered(&[vendor], &[]).await;
        let unknown = seen.unknown.unwrap();
        assert!(!unknown.may_pass() && unknown.to_string().contains(vendor), "{unknown}");
        assert!(seen.facts.unseen.iter().any(|unseen| unseen.contains(vendor)));
        assert!(seen.facts.gpus_unseen.is_some_and(|why| why.contains(vendor)));
        // That the platform is silent too hides nothing.
        let seen = gathered(&[vendor], &[("sys/class/dmi/id/product_name", "Google Compute Engine")]).await;
        assert!(seen.unknown.unwrap().may_pass());
        assert!(seen.facts.unseen.iter().any(|unseen| unseen.contains(vendor)), "{:?}", seen.facts.unseen);
        // Nobody needs the NUMA node to know what the machine is.
        let (class, node) = ("sys/bus/pci/devices/0000:01:00.0/class", "sys/bus/pci/devices/0000:01:00.0/numa_node");
        assert!(gathered(&[node], &[(vendor, "0x10de"), (class, "0x030200")]).await.unknown.is_none());
    }

    #[tokio::test]
    async fn marks_that_cannot_be_read_are_not_taken_for_none() {
        let seen = gathered(&["etc/eks"], &[]).await;
        let unknown = seen.role_unknown.unwrap();
        assert!(!unknown.may_pass() && unknown.to_string().contains("/etc/eks") && seen.unknown.is_none(), "{unknown}");
        // A tag is louder than what is on the disk.
        let tagged = r#"{"v1": {"instance_id": "i-1"}, "ds": {"meta_data": {"tags": {"instance": {"gpuk/role": "worker"}}}}}"#;
        let seen = gathered(&["etc/eks"], &[("run/cloud-init/instance-data.json", tagged)]).await;
        assert!(seen.role_unknown.is_none(), "{:?}", seen.role_unknown);
    }

    #[test]
    fn os_release_values_may_be_quoted() {
        let os = operating_system("PRETTY_NAME=\"Ubuntu 22.04.4 LTS\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID='22.04'\n");
        assert_eq!((os.id.as_str(), os.version.as_str(), os.name.as_str()), ("ubuntu", "22.04", "Ubuntu 22.04.4 LTS"));
        assert_eq!(os.like, ["debian"]);
    }
}
