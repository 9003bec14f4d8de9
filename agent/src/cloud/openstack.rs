//! OpenStack gives the same JSON files on a disk, the config drive, and over HTTP; clouds choose one or both.

use anyhow::Result;
use async_trait::async_trait;
use serde_json::Value;

use super::asking::{Answered, Asking, Question};
use super::tags::tags;
use super::{Cloud, Metadata, Trouble, disk, optional, text};
use crate::facts::Instance;
use crate::look::Look;

const ADDRESSES: &[&str] = &["http://169.254.169.254"];

/// "Config drives", OpenStack Nova documentation.
const DISKS: &[&str] = &["/dev/disk/by-label/config-2", "/dev/disk/by-label/CONFIG-2"];

const META_DATA: &str = "openstack/latest/meta_data.json";
const USER_DATA: &str = "openstack/latest/user_data";
const NETWORK_DATA: &str = "openstack/latest/network_data.json";

/// Product names and chassis asset tags of OpenStack clouds (cloud-init, ds-identify).
const NAMES: &[&str] = &["OpenStack Nova", "OpenStack Compute"];
const CHASSIS: &[&str] = &["OpenStack Nova", "OpenStack Compute", "OpenTelekomCloud", "SAP CCloud VM", "HUAWEICLOUD"];

/// The row of the table.
pub struct OpenStack;

#[async_trait(?Send)]
impl Cloud for OpenStack {
    fn name(&self) -> &'static str {
        "openstack"
    }

    fn claims(&self, look: Look<'_>) -> Result<Option<String>> {
        let dmi = &look.facts.dmi;
        let one_of = |value: &Option<String>, known: &[&str]| value.clone().filter(|value| known.contains(&value.as_str()));
        if let Some(name) = one_of(&dmi.product_name, NAMES) {
            return Ok(Some(format!("DMI product_name is {name:?}")));
        }
        if let Some(tag) = one_of(&dmi.chassis_asset_tag, CHASSIS) {
            return Ok(Some(format!("DMI chassis_asset_tag is {tag:?}")));
        }
        Ok(disk(look, DISKS)?.map(|disk| format!("there is the config drive {disk}")))
    }

    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        match disk(asking.look, DISKS)? {
            Some(disk) => self.on_disk(asking.look, disk),
            None => self.over_http(asking).await,
        }
    }

    /// cloud-provider-openstack; with a region only where OS_CCM_REGIONAL is set, and no metadata names the region.
    fn provider_id(&self, instance: &Instance) -> Option<String> {
        Some(format!("openstack:///{}", instance.id))
    }
}

impl OpenStack {
    fn on_disk(&self, look: Look<'_>, disk: &str) -> Result<Metadata, Trouble> {
        let mut files = look.files_of_disk(disk, &[META_DATA, USER_DATA, NETWORK_DATA])?;
        let unreadable = |file: &str, why: String| Trouble::Unreadable(format!("{file} on the config drive {disk}: {why}"));
        let meta_data = files.remove(META_DATA).ok_or_else(|| unreadable(META_DATA, "it is not there".to_owned()))?;
        let meta_data: Value = serde_json::from_slice(&meta_data).map_err(|error| unreadable(META_DATA, error.to_string()))?;
        let network: Value = files.remove(NETWORK_DATA).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let source = format!("{META_DATA} on {disk}");
        let instance = self.instance(&meta_data, source).ok_or_else(|| unreadable(META_DATA, "it has no uuid".to_owned()))?;
        let address = text(&network, "/networks/0/ip_address");
        let user_data = files.remove(USER_DATA);
        Ok(Metadata { instance: Some(Instance { address, ..instance }), user_data: Ok(user_data), ..Metadata::default() })
    }

    async fn over_http(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        let addresses = &asking.addresses(ADDRESSES);
        let get = |path: String| async move { asking.race(addresses, &Question::get(&path)).await };
        let (meta_data, user_data, address, instance_type) = tokio::join!(
            get(format!("/{META_DATA}")),
            get(format!("/{USER_DATA}")),
            // Nova has these two only in the tree that it shares with EC2.
            get("/latest/meta-data/local-ipv4".to_owned()),
            get("/latest/meta-data/instance-type".to_owned()),
        );
        let meta_data = meta_data?;
        let no_id = meta_data.is_not_the_service("a document with a uuid");
        let url = meta_data.url.clone();
        let instance = self.instance(&meta_data.json()?, url).ok_or(no_id)?;
        let user_data = user_data.and_then(Answered::found);
        let mut unseen = Vec::new();
        let address = optional(address.and_then(Answered::word), "local-ipv4", &mut unseen);
        let instance_type = optional(instance_type.and_then(Answered::word), "instance-type", &mut unseen);
        let instance = Instance { address, instance_type, ..instance };
        Ok(Metadata { instance: Some(instance), user_data, unseen, ..Metadata::default() })
    }

    fn instance(&self, meta_data: &Value, source: String) -> Option<Instance> {
        let meta = meta_data.get("meta").and_then(Value::as_object);
        let pairs = meta.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let mut instance = Instance {
            cloud: self.name(),
            id: text(meta_data, "/uuid")?,
            source,
            name: text(meta_data, "/name"),
            zone: text(meta_data, "/availability_zone"),
            tags: tags(pairs),
            ..Instance::default()
        };
        instance.provider_id = self.provider_id(&instance);
        Some(instance)
    }
}

#[cfg(test)]
mod tests;
