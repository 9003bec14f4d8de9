//! A cloud is a row in a table: how it is recognised without the network, and how it is asked.

mod asking;
mod azure;
mod bare;
mod cloud_init;
mod ec2;
mod gce;
mod linode;
mod nocloud;
mod openstack;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod trouble;
mod unanswered;

use std::io::Read;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use crate::config::user_data;
use crate::facts::Instance;
use crate::identity::decision::{DECISION_FILE, Decision};
use crate::look::Look;
use asking::Asking;
pub use cloud_init::{CloudInit, INSTANCE_DATA};
pub use trouble::Trouble;

/// A wait that is longer is spoken of.
const SPOKEN_AFTER: Duration = Duration::from_secs(1);

/// What a platform told about this machine.
pub struct Metadata {
    /// Who it is.
    pub instance: Option<Instance>,
    /// What its owner passed along, perhaps packed. It may hold secrets: never logged, never kept.
    pub user_data: Result<Option<Vec<u8>>, Trouble>,
    /// Why there may be tags of its owner that were not seen.
    pub without_tags: Option<Trouble>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { instance: None, user_data: Ok(None), without_tags: None, unseen: Vec::new() }
    }
}

/// One platform. A new one is a file beside `ec2.rs`, a line in [`clouds`], and its name among the choices of `cloud.name`.
#[async_trait(?Send)]
pub trait Cloud {
    /// Its name in facts, lower case.
    fn name(&self) -> &'static str;

    /// The evidence that this machine is there, from firmware and files alone.
    fn claims(&self, look: Look<'_>) -> Result<Option<String>>;

    /// Asks it. Absent is `None` inside; unreadable is an error.
    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble>;

    /// What the firmware says of the instance without anyone being asked.
    fn by_firmware(&self, _look: Look<'_>) -> Option<Instance> {
        None
    }

    /// What the tags say besides, in this platform's own words.
    fn read_tags(&self, _instance: &mut Instance) {}

    /// `spec.providerID` as its cloud controller writes it, where id and zone are enough for that.
    fn provider_id(&self, _instance: &Instance) -> Option<String> {
        None
    }
}

/// All platforms; the first that claims the machine is asked. Seeds come first: someone put them there on purpose.
fn clouds() -> Vec<Box<dyn Cloud>> {
    vec![
        Box::new(nocloud::NoCloud),
        Box::new(ec2::Ec2),
        Box::new(gce::Gce),
        Box::new(azure::Azure),
        Box::new(openstack::OpenStack),
        Box::new(linode::Linode),
    ]
}

/// Asks the platform that this machine runs on; a machine on none is known by itself. `say` hears when that takes long.
pub async fn ask(look: Look<'_>, say: &dyn Fn(&str)) -> Result<Metadata, Trouble> {
    let asking = Asking::new(look);
    let metadata = match find(look)? {
        Some((cloud, evidence)) => fetch(cloud.as_ref(), &evidence, &asking, say).await?,
        None => of_no_row(&asking, say).await?,
    };
    Ok(Metadata { instance: metadata.instance.or_else(|| bare::instance(look)), ..metadata })
}

/// The row of the table, and why it is the one.
fn find(look: Look<'_>) -> Result<Option<(Box<dyn Cloud>, String)>> {
    if !look.running_system() {
        // An image says where it will run in a seed, if at all; the services around belong to the machine that works on it.
        let seed = nocloud::NoCloud.claims(look)?;
        return Ok(seed.map(|evidence| (Box::new(nocloud::NoCloud) as Box<dyn Cloud>, evidence)));
    }
    for cloud in clouds() {
        let evidence = match look.config.cloud.named() {
            Some(name) => (name == cloud.name()).then(|| format!("cloud.name is {name:?}")),
            None => cloud.claims(look)?,
        };
        if let Some(evidence) = evidence {
            return Ok(Some((cloud, evidence)));
        }
    }
    Ok(None)
}

/// A machine that no row claims may be on a platform that cloud-init knows, or on one that answers as EC2 does.
async fn of_no_row(asking: &Asking<'_>, say: &dyn Fn(&str)) -> Result<Metadata, Trouble> {
    let look = asking.look;
    if look.config.cloud.named().is_some() {
        return Ok(Metadata::default());
    }
    if let Some(known) = CloudInit::read(look)? {
        return Ok(known.metadata(known.platform_without_row(), look));
    }
    // Bare metal has no metadata service, and whoever answers there is a stranger.
    if !look.running_system() || !is_virtual(look)? {
        return Ok(Metadata::default());
    }
    let ec2 = &ec2::Ec2;
    // Who was seen there before is there now, however long that takes to show: silence is then no answer.
    let decision = Decision::read(look)?.map_err(|damaged| Trouble::Unreadable(damaged.to_string()))?;
    if let Some(kept) = decision.filter(|kept| kept.cloud == ec2.name()) {
        let evidence = format!("{DECISION_FILE} says that this disk is of its instance {}", kept.instance_id);
        return fetch(ec2, &evidence, asking, say).await;
    }
    match spoken(ec2::answers(asking), ec2.name(), asking, say).await {
        Ok(Some(evidence)) => fetch(ec2, &evidence, asking, say).await,
        Ok(None) => Ok(Metadata::default()),
        Err(trouble) => Err(trouble.about("ec2, because something answers at its address")),
    }
}

/// x86 processors tell their guests so: the flag `hypervisor` in `/proc/cpuinfo`.
fn is_virtual(look: Look<'_>) -> Result<bool> {
    // The first processor is enough; a machine may have hundreds.
    let mut beginning = Vec::new();
    if let Some(file) = look.open("/proc/cpuinfo")? {
        file.take(16 * 1024).read_to_end(&mut beginning)?;
    }
    let text = String::from_utf8_lossy(&beginning);
    let flags = text.lines().find(|line| line.starts_with("flags"));
    Ok(flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")))
}

/// The answer of the platform `name`; `say` hears of a longer wait.
async fn spoken<T>(asked: impl Future<Output = T>, name: &str, asking: &Asking<'_>, say: &dyn Fn(&str)) -> T {
    let mut asked = std::pin::pin!(asked);
    match tokio::time::timeout(SPOKEN_AFTER, &mut asked).await {
        Ok(answer) => answer,
        Err(_) => {
            let limit = asking.look.config.cloud.limit;
            say(&format!("waiting for the metadata of {name} from {}, at most {limit} (cloud.limit)", asking.unanswered()));
            asked.await
        }
    }
}

/// Asks a cloud; where it does not answer, what cloud-init or the firmware knows must do.
async fn fetch(cloud: &dyn Cloud, evidence: &str, asking: &Asking<'_>, say: &dyn Fn(&str)) -> Result<Metadata, Trouble> {
    let trouble = match spoken(cloud.fetch(asking), cloud.name(), asking, say).await {
        Ok(metadata) => return Ok(metadata),
        Err(trouble) => trouble.about(&format!("{}, because {evidence}", cloud.name())),
    };
    let look = asking.look;
    let known = match CloudInit::read(look) {
        Ok(known) => known,
        Err(further) => return Err(trouble.and(&further.to_string())),
    };
    if let Some(known) = known {
        let metadata = known.metadata(cloud.name(), look);
        if let Some(mut instance) = metadata.instance {
            instance.provider_id = cloud.provider_id(&instance);
            cloud.read_tags(&mut instance);
            // What cloud-init did not keep may be there all the same.
            let (without_tags, unseen) = match instance.tags.is_empty() {
                true => (Some(trouble), Vec::new()),
                false => (None, vec![format!("instance metadata: {trouble}")]),
            };
            return Ok(Metadata { instance: Some(instance), without_tags, unseen, ..metadata });
        }
    }
    match cloud.by_firmware(look) {
        Some(instance) => Ok(Metadata { instance: Some(instance), user_data: Err(trouble), ..Metadata::default() }),
        None => Err(trouble),
    }
}

/// The first of these disks that is there. An image has none: those around are of the machine that it is worked on at.
fn disk(look: Look<'_>, disks: &[&'static str]) -> Result<Option<&'static str>> {
    for disk in disks {
        if look.running_system() && look.exists(disk)? {
            return Ok(Some(disk));
        }
    }
    Ok(None)
}

/// A text or a number in JSON, as text; an empty one is `None`.
fn text(value: &serde_json::Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        serde_json::Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// User-data that the protocol gives in base64. Later on, what is not would only be a text that is nobody's.
fn decoded(encoded: &[u8], source: &str) -> Result<Option<Vec<u8>>, Trouble> {
    let wrong = || Trouble::Unreadable(format!("{source} is not base64; give the user-data as base64"));
    let bytes = user_data::base64(encoded).ok_or_else(wrong)?;
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// What is good to know, but not needed to be somebody: why it could not be seen is kept instead.
fn optional<T: Default>(answer: Result<T, Trouble>, what: &str, unseen: &mut Vec<String>) -> T {
    answer.unwrap_or_else(|trouble| {
        unseen.push(format!("{what}: {trouble}"));
        T::default()
    })
}
