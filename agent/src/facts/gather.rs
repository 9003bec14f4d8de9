//! Every fact names one file; one that cannot be read is noted as unseen instead of guessed.

use super::{CgroupVersion, Dmi, Facts, OperatingSystem, marks, pci};
use crate::cloud::{self, UserData};
use crate::config::Config;
use crate::host::Host;
use crate::look::Look;

/// The facts, and the user-data that was found beside them (it may hold secrets, so it is no fact).
pub struct Gathered {
    /// What is known.
    pub facts: Facts,
    /// The instance's user-data, when there is any.
    pub user_data: Option<UserData>,
    /// Why there may be user-data that was not read.
    pub without_user_data: Option<String>,
}

/// Looks at the machine once. What cannot be seen is listed in [`Facts::unseen`].
pub async fn gather(host: &Host, config: &Config) -> Gathered {
    let none = Facts::default();
    let mut reader = Reader { look: Look::new(host, config, &none), unseen: Vec::new() };
    let mut facts = Facts {
        os: reader
            .text("/etc/os-release")
            .or_else(|| reader.text("/usr/lib/os-release"))
            .map(|text| operating_system(&text))
            .unwrap_or_default(),
        machine_id: reader.line("/etc/machine-id").unwrap_or_default(),
        ..Facts::default()
    };
    if reader.look.running_system() {
        running(&mut reader, host, &mut facts);
    }
    match marks::marks(reader.look) {
        Ok(marks) => facts.marks = marks,
        Err(error) => reader.unseen.push(format!("{error:#}")),
    }
    facts.unseen = reader.unseen;
    let (user_data, trouble) = match cloud::ask(Look::new(host, config, &facts)).await {
        Ok(metadata) => {
            facts.instance = metadata.instance;
            match metadata.user_data {
                Ok(user_data) => (user_data, None),
                Err(error) => (None, Some(format!("user-data: {error:#}"))),
            }
        }
        Err(error) => (None, Some(format!("instance metadata: {error:#}"))),
    };
    facts.unseen.extend(trouble.clone());
    Gathered { facts, user_data, without_user_data: trouble }
}

/// Facts of a running system; an image has none of them.
fn running(reader: &mut Reader<'_>, host: &Host, facts: &mut Facts) {
    facts.kernel = reader.line("/proc/sys/kernel/osrelease").unwrap_or_default();
    facts.boot_id = reader.line("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    facts.hostname = reader.line("/proc/sys/kernel/hostname").unwrap_or_default();
    facts.dmi = Dmi {
        system_vendor: reader.line("/sys/class/dmi/id/sys_vendor"),
        product_name: reader.line("/sys/class/dmi/id/product_name"),
        product_uuid: reader.line("/sys/class/dmi/id/product_uuid"),
        board_asset_tag: reader.line("/sys/class/dmi/id/board_asset_tag"),
        chassis_asset_tag: reader.line("/sys/class/dmi/id/chassis_asset_tag"),
    };
    // Only the unified hierarchy has this file at its top (cgroups(7)).
    facts.cgroup = match reader.look.exists("/sys/fs/cgroup/cgroup.controllers") {
        Ok(true) => Some(CgroupVersion::V2),
        Ok(false) => Some(CgroupVersion::V1),
        Err(error) => {
            reader.unseen.push(format!("{error:#}"));
            None
        }
    };
    match pci::devices(reader.look) {
        Ok(devices) => {
            (facts.gpus, facts.nvswitches) = (devices.gpus, devices.nvswitches);
            reader.unseen.extend(devices.without_names.map(|error| format!("{error:#}")));
        }
        Err(error) => reader.unseen.push(format!("{error:#}")),
    }
    facts.memory = host.kernel.memory();
    facts.disks = host.kernel.disks();
}

struct Reader<'a> {
    look: Look<'a>,
    unseen: Vec<String>,
}

impl Reader<'_> {
    fn text(&mut self, path: &str) -> Option<String> {
        self.look.text(path).unwrap_or_else(|error| {
            self.unseen.push(format!("{error:#}"));
            None
        })
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
mod tests {
    use super::operating_system;

    #[test]
    fn os_release_values_may_be_quoted() {
        let os = operating_system("PRETTY_NAME=\"Ubuntu 22.04.4 LTS\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID='22.04'\n");
        assert_eq!((os.id.as_str(), os.version.as_str(), os.name.as_str()), ("ubuntu", "22.04", "Ubuntu 22.04.4 LTS"));
        assert_eq!(os.like, ["debian"]);
    }
}
