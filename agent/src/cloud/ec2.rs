//! EC2's metadata service is a tree of one-word answers behind a token; several other clouds have the same tree, some without tokens.

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;

use super::asking::{Asking, Question, is_word};
use super::cloud_init::CloudInit;
use super::tags::tags;
use super::token::{Protocol, Service};
use super::{Cloud, Metadata, Trouble, optional};
use crate::facts::{Dmi, Instance};
use crate::look::Look;

/// "Access instance metadata", Amazon EC2 User Guide.
const ADDRESSES: &[&str] = &["http://169.254.169.254", "http://[fd00:ec2::254]"];

/// IMDSv2 ("Use the Instance Metadata Service", Amazon EC2 User Guide). Compatible clouds may know no tokens.
const TOKEN: Protocol = Protocol {
    path: "/latest/api/token",
    lifetime: ("x-aws-ec2-metadata-token-ttl-seconds", "21600"),
    header: "x-aws-ec2-metadata-token",
    without_at: &[404, 405, 501],
};

const INSTANCE_ID: &str = "/latest/meta-data/instance-id";

/// An instance has at most this many tags ("Tag restrictions", Amazon EC2 User Guide).
const MOST_TAGS: usize = 50;

/// The row of the table.
pub struct Ec2;

#[async_trait(?Send)]
impl Cloud for Ec2 {
    fn name(&self) -> &'static str {
        "ec2"
    }

    fn claims(&self, look: Look<'_>) -> Result<Option<String>> {
        if let Some(mark) = mark(&look.facts.dmi) {
            return Ok(Some(mark));
        }
        // Instances on Xen, which hide product_uuid from everyone but root.
        let hypervisor = if look.running_system() { look.text("/sys/hypervisor/uuid")? } else { None };
        if hypervisor.is_some_and(|uuid| uuid.starts_with("ec2")) {
            return Ok(Some("/sys/hypervisor/uuid begins with \"ec2\"".to_owned()));
        }
        // An unreadable file is the trouble of whoever needs what is in it.
        let platform = CloudInit::read(look).ok().flatten().and_then(|known| known.platform());
        Ok(platform.filter(|name| name == "ec2" || name == "aws").map(|name| format!("cloud-init calls the platform {name:?}")))
    }

    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        let service = &Service::open(asking, ADDRESSES, &TOKEN).await?;
        let (id, zone, region, instance_type, address, ipv6, user_data, tags) = tokio::join!(
            id(service),
            service.word("/latest/meta-data/placement/availability-zone"),
            service.word("/latest/meta-data/placement/region"),
            service.word("/latest/meta-data/instance-type"),
            service.word("/latest/meta-data/local-ipv4"),
            service.word("/latest/meta-data/ipv6"),
            user_data(service),
            owner_tags(service),
        );
        let mut unseen = Vec::new();
        // One of them may say what the node is to be.
        let (tags, without_tags) = match tags {
            Ok(tags) => (tags, None),
            Err(trouble) => (BTreeMap::new(), Some(trouble)),
        };
        let (address, ipv6) = (optional(address, "local-ipv4", &mut unseen), optional(ipv6, "ipv6", &mut unseen));
        let mut instance = Instance {
            cloud: self.name(),
            id: id?,
            source: service.url(INSTANCE_ID),
            name: None,
            region: optional(region, "placement/region", &mut unseen),
            zone: zone?,
            instance_type: optional(instance_type, "instance-type", &mut unseen),
            address: address.or(ipv6),
            provider_id: None,
            managed: None,
            tags,
        };
        self.read_tags(&mut instance);
        instance.provider_id = self.provider_id(&instance);
        Ok(Metadata { instance: Some(instance), user_data, without_tags, unseen })
    }

    fn by_firmware(&self, look: Look<'_>) -> Option<Instance> {
        // On Nitro the asset tag is the instance id ("Identify EC2 instances", Amazon EC2 User Guide).
        let id = look.facts.dmi.board_asset_tag.clone().filter(|tag| tag.starts_with("i-") && is_word(tag))?;
        Some(Instance { cloud: self.name(), id, source: "DMI board_asset_tag".to_owned(), ..Instance::default() })
    }

    fn read_tags(&self, instance: &mut Instance) {
        let name = instance.tags.get("Name").filter(|name| !name.is_empty()).cloned();
        instance.name = name.or(instance.name.take());
        instance.managed = managed(&instance.tags);
    }

    /// cloud-provider-aws, "provider id".
    fn provider_id(&self, instance: &Instance) -> Option<String> {
        instance.zone.as_ref().map(|zone| format!("aws:///{zone}/{}", instance.id))
    }
}

/// Whether something that answers as EC2 does is there. For virtual machines that no row claims.
pub async fn answers(asking: &Asking<'_>) -> Result<Option<String>, Trouble> {
    let Some(base) = asking.addresses(&ADDRESSES[..1]).into_iter().next() else { return Ok(None) };
    let Some(answered) = asking.whoever_is_there(&base, &Question::get(INSTANCE_ID)).await? else { return Ok(None) };
    let url = answered.url.clone();
    Ok(answered.word().ok().flatten().map(|_| format!("{url} answers as EC2 does")))
}

async fn id(service: &Service<'_>) -> Result<String, Trouble> {
    let answered = service.get(Question::get(INSTANCE_ID)).await?;
    let none = answered.is_not_the_service("an instance id");
    answered.word()?.ok_or(none)
}

async fn user_data(service: &Service<'_>) -> Result<Option<Vec<u8>>, Trouble> {
    service.get(Question::get("/latest/user-data")).await?.found()
}

/// Tags are answered with 404 unless the owner allows them in the metadata.
async fn owner_tags(service: &Service<'_>) -> Result<BTreeMap<String, String>, Trouble> {
    let names = service.get(Question::get("/latest/meta-data/tags/instance")).await?.found()?.unwrap_or_default();
    let names = String::from_utf8_lossy(&names);
    // Names that the service allows need no escaping in a URL.
    let names = names.lines().map(|name| name.trim().trim_end_matches('/')).filter(|name| is_word(name)).take(MOST_TAGS);
    let each = names.map(|name| async move {
        let path = format!("/latest/meta-data/tags/instance/{name}");
        let value = service.get(Question::get(&path)).await?.found()?;
        let value = value.map(|value| String::from_utf8_lossy(&value).trim_end().to_owned());
        Ok::<_, Trouble>(value.map(|value| (name.to_owned(), value)))
    });
    let pairs: Vec<Option<(String, String)>> = futures_util::future::try_join_all(each).await?;
    Ok(tags(pairs.into_iter().flatten()))
}

/// EKS marks the instances of its node groups ("Tagging your Amazon EKS resources", Amazon EKS User Guide).
fn managed(tags: &BTreeMap<String, String>) -> Option<String> {
    let (name, value) = ["eks:nodegroup-name", "eks:cluster-name"].iter().find_map(|name| tags.get_key_value(*name))?;
    Some(format!("EKS: tag {name} is {value:?}"))
}

/// What in the firmware says EC2, or a cloud that is compatible with it (cloud-init, ds-identify and DataSourceEc2).
fn mark(dmi: &Dmi) -> Option<String> {
    let is = |value: &Option<String>, right: &str| value.as_deref() == Some(right);
    let ends = |value: &Option<String>, end: &str| value.as_deref().is_some_and(|value| value.ends_with(end));
    let uuid = dmi.product_uuid.clone().unwrap_or_default().to_ascii_lowercase();
    // A UUID alone may begin so by chance: EC2 repeats it as the serial number, or is Xen.
    let confirmed =
        dmi.product_serial.as_deref().is_some_and(|serial| serial.eq_ignore_ascii_case(&uuid)) || is(&dmi.system_vendor, "Xen");
    if is(&dmi.system_vendor, "Amazon EC2") {
        Some("DMI sys_vendor is \"Amazon EC2\"".to_owned())
    } else if is_ec2_uuid(&uuid) && confirmed {
        Some(format!("DMI product_uuid is {uuid}"))
    } else if ends(&dmi.product_serial, ".brightbox.com") {
        Some("DMI product_serial is Brightbox's".to_owned())
    } else if ends(&dmi.chassis_asset_tag, ".zstack.io") {
        Some("DMI chassis_asset_tag is ZStack's".to_owned())
    } else if is(&dmi.system_vendor, "e24cloud") || is(&dmi.system_vendor, "3DS Outscale") {
        Some(format!("DMI sys_vendor is {:?}", dmi.system_vendor.clone().unwrap_or_default()))
    } else {
        None
    }
}

/// Begins with `ec2`, also where the firmware writes the first group with its bytes in reverse.
fn is_ec2_uuid(uuid: &str) -> bool {
    let reversed = uuid.get(6..8) == Some("ec") && uuid.get(4..5) == Some("2");
    uuid.starts_with("ec2") || reversed
}

#[cfg(test)]
mod tests;
