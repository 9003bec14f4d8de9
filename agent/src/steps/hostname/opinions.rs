//! A machine's host name is set by whoever comes last: cloud-init, systemd-hostnamed, a DHCP client. What each would have it be is on the disk.
//!
//! Nothing is decided by what is read here; it only tells a person who else was at work. So what cannot be read is no opinion.

use serde_json::Value;

use crate::cloud::{CloudInit, INSTANCE_DATA};
use crate::look::Look;

/// Somebody's idea of the machine's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// The name, perhaps with a domain.
    pub name: String,
    /// Who has it, and where it was read, e.g. `the DHCP lease /run/systemd/netif/leases/2`.
    pub whose: String,
    /// It is cloud-init's.
    pub is_cloud_inits: bool,
}

impl Opinion {
    /// Whether it would lead to this host name: whoever is told a name with a domain may use the first label alone.
    pub fn is_for(&self, hostname: &str) -> bool {
        self.name == hostname || self.name.split('.').next() == Some(hostname)
    }
}

/// Leases of systemd-networkd (`sd_dhcp_lease_save`), of dhclient (dhclient.leases(5); Debian's and Red Hat's place) and of NetworkManager,
/// which writes either form, by directory and by a part of the files' names.
const LEASES: [(&str, &str); 4] = [
    ("/run/systemd/netif/leases", ""),
    ("/var/lib/dhcp", ".leases"),
    ("/var/lib/dhclient", ".lease"),
    ("/var/lib/NetworkManager", "lease"),
];

/// The name that cloud-init set last (module Set Hostname).
const SET_HOSTNAME: &str = "/var/lib/cloud/data/set-hostname";

/// Every opinion that can be read, the DHCP servers' first.
pub fn all(look: Look<'_>) -> Vec<Opinion> {
    let mut opinions = Vec::new();
    for (directory, part) in LEASES {
        for file in look.list(directory).unwrap_or_default().into_iter().filter(|file| file.contains(part)) {
            let path = format!("{directory}/{file}");
            let name = text(look, &path).and_then(|lease| from_lease(&lease));
            opinions.extend(name.map(|name| Opinion { name, whose: format!("the DHCP lease {path}"), is_cloud_inits: false }));
        }
    }
    let set: Option<Value> = text(look, SET_HOSTNAME).and_then(|data| serde_json::from_str(&data).ok());
    let set =
        set.and_then(|data| data.get("hostname").and_then(Value::as_str).map(str::to_owned)).filter(|name| !name.is_empty());
    let known = CloudInit::read(look).ok().flatten().and_then(|known| known.local_hostname());
    for (path, name) in [(SET_HOSTNAME, set), (INSTANCE_DATA, known)] {
        opinions.extend(name.map(|name| Opinion { name, whose: format!("cloud-init ({path})"), is_cloud_inits: true }));
    }
    opinions
}

fn text(look: Look<'_>, path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&look.read(path).ok()??).into_owned())
}

/// `HOSTNAME=name`, or `option host-name "name";` in the last lease of the file.
fn from_lease(text: &str) -> Option<String> {
    let name = |line: &str| {
        let line = line.trim();
        let value = line.strip_prefix("HOSTNAME=").or_else(|| line.strip_prefix("option host-name ")?.strip_suffix(';'));
        value.map(|value| value.trim().trim_matches('"').to_owned())
    };
    text.lines().filter_map(name).rfind(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

    use super::*;
    use crate::facts::Facts;
    use crate::host::Host;

    #[test]
    fn each_one_is_found_where_it_writes() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("run/systemd/netif/leases/2", "# private\nADDRESS=10.0.0.5\nHOSTNAME=networkd\n"),
            (
                "var/lib/dhcp/dhclient.eth0.leases",
                "lease {\n  option host-name \"old\";\n}\nlease {\n  option host-name \"dhclient\";\n}\n",
            ),
            ("var/lib/dhcp/dhclient.conf", "option host-name \"no-lease\";\n"),
            ("var/lib/NetworkManager/internal-1-eth0.lease", "HOSTNAME=manager\n"),
            ("var/lib/NetworkManager/secret_key", "HOSTNAME=no-lease\n"),
            ("var/lib/cloud/data/set-hostname", "{\"hostname\": \"set\", \"fqdn\": \"set.example.com\"}"),
            ("run/cloud-init/instance-data.json", "{\"v1\": {\"local_hostname\": \"ip-10-0-0-5.ec2.internal\"}}"),
        ];
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::of_fakes(root.path()).unwrap();
        let config = crate::config::load(Vec::new()).unwrap().config;
        let found = all(Look::new(&host, &config, &Facts::default()));
        let names: Vec<(&str, bool)> = found.iter().map(|opinion| (opinion.name.as_str(), opinion.is_cloud_inits)).collect();
        let expected =
            [("networkd", false), ("dhclient", false), ("manager", false), ("set", true), ("ip-10-0-0-5.ec2.internal", true)];
        assert_eq!(names, expected);
        assert_eq!(found[0].whose, "the DHCP lease /run/systemd/netif/leases/2");
        assert!(found[4].is_for("ip-10-0-0-5") && found[4].is_for("ip-10-0-0-5.ec2.internal") && !found[4].is_for("ip-10-0-0"));
    }

    #[test]
    fn what_cannot_be_read_is_no_opinion() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/cloud-init/instance-data.json")).unwrap();
        std::fs::create_dir_all(root.path().join("run/systemd/netif/leases")).unwrap();
        std::fs::write(root.path().join("run/systemd/netif/leases/2"), b"HOSTNAME=\nNEXT=\xff\n").unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let config = crate::config::load(Vec::new()).unwrap().config;
        assert_eq!(all(Look::new(&host, &config, &Facts::default())), []);
    }

    #[test]
    fn a_name_that_cloud_init_does_not_know_is_no_opinion() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/cloud-init")).unwrap();
        let host = Host::of_fakes(root.path()).unwrap();
        let config = crate::config::load(Vec::new()).unwrap().config;
        for name in ["unknown", ""] {
            let data = format!("{{\"v1\": {{\"local_hostname\": \"{name}\"}}}}");
            std::fs::write(root.path().join("run/cloud-init/instance-data.json"), data).unwrap();
            assert_eq!(all(Look::new(&host, &config, &Facts::default())), []);
        }
    }
}
