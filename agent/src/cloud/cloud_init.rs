//! cloud-init writes what it learned of this boot's instance into `/run`, so it cannot be an older instance's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tags::tags;
use super::{Metadata, Trouble};
use crate::facts::Instance;
use crate::look::Look;

/// Written in every boot, for anyone to read ("Instance metadata", cloud-init documentation). From then on what cloud-init
/// keeps under `/var/lib/cloud/instance` is of this boot's instance.
pub const INSTANCE_DATA: &str = "/run/cloud-init/instance-data.json";

/// The user-data as cloud-init found it.
const USER_DATA: &str = "/var/lib/cloud/instance/user-data.txt";

/// Platforms by cloud-init's own names ("Datasources reference", cloud-init documentation), in lower case as it writes them.
const PLATFORMS: [&str; 30] = [
    "aeza",
    "akamai",
    "aliyun",
    "altcloud",
    "azure",
    "bigstep",
    "cloudcix",
    "cloudsigma",
    "cloudstack",
    "configdrive",
    "digitalocean",
    "exoscale",
    "gce",
    "hetzner",
    "ibmcloud",
    "lxd",
    "maas",
    "nwcs",
    "opennebula",
    "openstack",
    "oracle",
    "ovf",
    "rbxcloud",
    "scaleway",
    "smartos",
    "tencentcloud",
    "upcloud",
    "vmware",
    "vultr",
    "wsl",
];

/// What cloud-init knows of this boot's instance.
pub struct CloudInit(Value);

impl CloudInit {
    /// Reads its file; `None` where it did not run.
    pub fn read(look: Look<'_>) -> Result<Option<Self>, Trouble> {
        let Some(text) = look.text(INSTANCE_DATA)? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Some(Self(value))),
            Err(error) => {
                Err(Trouble::Unreadable(format!("reading {INSTANCE_DATA}: {error}. It can be made anew: cloud-init init")))
            }
        }
    }

    /// The platform by cloud-init's name, e.g. `ec2`.
    pub fn platform(&self) -> Option<String> {
        self.text("platform").or_else(|| self.text("cloud_name"))
    }

    /// The name in facts of a platform that no row claims.
    pub fn platform_without_row(&self) -> &'static str {
        let platform = self.platform();
        PLATFORMS.into_iter().find(|known| platform.as_deref() == Some(known)).unwrap_or("cloud-init")
    }

    /// The host name that it would set.
    pub fn local_hostname(&self) -> Option<String> {
        self.text("local_hostname")
    }

    fn text(&self, key: &str) -> Option<String> {
        // Without any data source cloud-init calls every machine the same, and what it does not know "unknown" or null.
        let known = |text: &&str| !text.is_empty() && *text != "unknown" && !text.starts_with("iid-datasource");
        self.0.pointer(&format!("/v1/{key}")).and_then(Value::as_str).filter(known).map(str::to_owned)
    }

    /// The instance under the name `cloud`; without an id there is none.
    pub fn metadata(&self, cloud: &'static str, look: Look<'_>) -> Metadata {
        let instance = self.text("instance_id").map(|id| Instance {
            cloud,
            id,
            source: INSTANCE_DATA.to_owned(),
            name: self.local_hostname(),
            region: self.text("region"),
            zone: self.text("availability_zone"),
            tags: self.tags(),
            ..Instance::default()
        });
        Metadata { instance, user_data: user_data(look), ..Metadata::default() }
    }

    /// The tags in a metadata tree like EC2's, where the owner allows them there. Data sources that keep what they read
    /// name the tree `meta-data`, all others `meta_data` (cloud-init, `DataSource.persist_instance_data`).
    fn tags(&self) -> BTreeMap<String, String> {
        let tree = ["meta-data", "meta_data"].iter().find_map(|name| self.0.pointer(&format!("/ds/{name}/tags/instance")));
        let pairs = tree.and_then(Value::as_object).into_iter().flatten();
        tags(pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))))
    }
}

/// The user-data that cloud-init kept. Unreadable (e.g. only for root) costs the configuration in it, not the identity.
pub fn user_data(look: Look<'_>) -> Result<Option<Vec<u8>>, Trouble> {
    Ok(look.read(USER_DATA)?)
}
