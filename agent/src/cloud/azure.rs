//! Azure's metadata service answers in one JSON document; while a machine is being moved it answers "gone for now".

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use http::HeaderValue;
use serde_json::Value;

use super::asking::{Asking, Question};
use super::cloud_init::{self, CloudInit};
use super::tags::tags;
use super::{Cloud, Metadata, Trouble, decoded, text};
use crate::facts::Instance;
use crate::look::Look;

const ADDRESSES: &[&str] = &["http://169.254.169.254"];

/// "Azure Instance Metadata Service", Azure documentation: the oldest version with userData.
const INSTANCE: &str = "/metadata/instance?api-version=2021-02-01";

/// Of all Azure machines (cloud-init, ds-identify).
const CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";

/// The row of the table.
pub struct Azure;

#[async_trait(?Send)]
impl Cloud for Azure {
    fn name(&self) -> &'static str {
        "azure"
    }

    fn claims(&self, look: Look<'_>) -> Result<Option<String>> {
        let tag = look.facts.dmi.chassis_asset_tag.as_deref();
        Ok((tag == Some(CHASSIS)).then(|| format!("DMI chassis_asset_tag is {CHASSIS}")))
    }

    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        let question = Question::get(INSTANCE).with("metadata", HeaderValue::from_static("true")).retried_at(&[410]);
        let answered = asking.race(&asking.addresses(ADDRESSES), &question).await?;
        let no_id = answered.is_not_the_service("a document with a vmId");
        let url = answered.url.clone();
        let document = answered.json()?;
        let compute = |key: &str| text(&document, &format!("/compute/{key}"));
        let id = compute("vmId").ok_or(no_id)?.to_ascii_lowercase();
        let tags = owner_tags(&document);
        let region = compute("location").map(|region| region.to_ascii_lowercase());
        let instance = Instance {
            cloud: self.name(),
            id,
            source: url.clone(),
            name: compute("name"),
            // As cloud-provider-azure labels nodes: the zone's number after its region.
            zone: region.as_ref().zip(compute("zone")).map(|(region, zone)| format!("{region}-{zone}")),
            region,
            instance_type: compute("vmSize"),
            address: text(&document, "/network/interface/0/ipv4/ipAddress/0/privateIpAddress"),
            provider_id: provider_id(&document),
            managed: managed(&tags),
            tags,
        };
        let user_data = match (compute("userData"), CloudInit::read(asking.look)) {
            (Some(encoded), _) => decoded(encoded.as_bytes(), &format!("{url}: compute.userData")),
            // What was given as custom data is on a disk that only the provisioning agent reads.
            (None, Ok(Some(_))) => cloud_init::user_data(asking.look),
            (None, Ok(None)) => Ok(None),
            (None, Err(trouble)) => Err(trouble),
        };
        Ok(Metadata { instance: Some(instance), user_data, ..Metadata::default() })
    }
}

fn owner_tags(document: &Value) -> BTreeMap<String, String> {
    let list = document.pointer("/compute/tagsList").and_then(Value::as_array);
    let pairs = list.into_iter().flatten();
    tags(pairs.filter_map(|tag| Some((text(tag, "/name")?, text(tag, "/value").unwrap_or_default()))))
}

/// AKS marks the machines of its pools with tags in its own name space, e.g. `aks-managed-poolName`.
fn managed(tags: &BTreeMap<String, String>) -> Option<String> {
    let (name, value) = tags.iter().find(|(name, _)| name.to_ascii_lowercase().starts_with("aks-managed-"))?;
    Some(format!("AKS: tag {name} is {value:?}"))
}

/// The resource's path, its resource group in lower case (cloud-provider-azure, ConvertResourceGroupNameToLower).
fn provider_id(document: &Value) -> Option<String> {
    let compute = |key: &str| text(document, &format!("/compute/{key}"));
    let (subscription, group, name) = (compute("subscriptionId")?, compute("resourceGroupName")?, compute("name")?);
    // An instance of a scale set in uniform mode is called SCALESET_NUMBER; in flexible mode it is a machine of its own.
    let of_set = compute("vmScaleSetName").and_then(|set| {
        let number = name.strip_prefix(&set)?.strip_prefix('_')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| format!("virtualMachineScaleSets/{set}/virtualMachines/{number}"))
    });
    let path = of_set.unwrap_or_else(|| format!("virtualMachines/{name}"));
    let group = group.to_ascii_lowercase();
    Some(format!("azure:///subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/{path}"))
}

#[cfg(test)]
mod tests;
