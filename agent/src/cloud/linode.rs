//! Linode's metadata service wants a token, like EC2's, and answers in JSON.

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use http::HeaderValue;
use serde_json::Value;

use super::asking::{Answered, Asking, Question};
use super::tags::{split, tags};
use super::token::{Protocol, Service};
use super::{Cloud, Metadata, Trouble, decoded, optional, text};
use crate::facts::Instance;
use crate::look::Look;

/// "Use the Metadata service API", Akamai cloud computing documentation.
const ADDRESSES: &[&str] = &["http://169.254.169.254", "http://[fd00:a9fe:a9fe::1]"];

const TOKEN: Protocol = Protocol {
    path: "/v1/token",
    lifetime: ("metadata-token-expiry-seconds", "3600"),
    header: "metadata-token",
    without_at: &[],
};

const INSTANCE: &str = "/v1/instance";

/// The row of the table.
pub struct Linode;

#[async_trait(?Send)]
impl Cloud for Linode {
    fn name(&self) -> &'static str {
        "linode"
    }

    fn claims(&self, look: Look<'_>) -> Result<Option<String>> {
        // cloud-init, the data source "Akamai".
        let vendor = look.facts.dmi.system_vendor.clone().filter(|vendor| vendor == "Linode" || vendor == "Akamai");
        Ok(vendor.map(|vendor| format!("DMI sys_vendor is {vendor:?}")))
    }

    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        let service = &Service::open(asking, ADDRESSES, &TOKEN).await?;
        let (document, network, user_data) =
            tokio::join!(service.get(json(INSTANCE)), service.get(json("/v1/network")), user_data(service));
        let document = document?;
        let no_id = document.is_not_the_service("a document with an instance's id");
        let url = document.url.clone();
        let document = document.json()?;
        let labels: Vec<String> =
            document.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(|tag| text(tag, "")).collect();
        let name = text(&document, "/label");
        let mut unseen = Vec::new();
        let network = optional(network.and_then(Answered::json), "the instance's network", &mut unseen);
        let mut instance = Instance {
            cloud: self.name(),
            id: text(&document, "/id").ok_or(no_id)?,
            source: url,
            region: text(&document, "/region"),
            instance_type: text(&document, "/type"),
            address: address(&network),
            managed: managed(name.as_deref(), &labels),
            name,
            tags: owner_tags(&labels),
            ..Instance::default()
        };
        instance.provider_id = self.provider_id(&instance);
        Ok(Metadata { instance: Some(instance), user_data, unseen, ..Metadata::default() })
    }

    /// linode-cloud-controller-manager, "provider id".
    fn provider_id(&self, instance: &Instance) -> Option<String> {
        Some(format!("linode://{}", instance.id))
    }
}

fn json(path: &str) -> Question<'_> {
    Question::get(path).with("accept", HeaderValue::from_static("application/json"))
}

async fn user_data(service: &Service<'_>) -> Result<Option<Vec<u8>>, Trouble> {
    let answered = service.get(Question::get("/v1/user-data")).await?;
    let source = answered.url.clone();
    let Some(encoded) = answered.found()? else { return Ok(None) };
    decoded(&encoded, &source)
}

/// The private address where there is one, else the public one; both are written with `/32`.
fn address(network: &Value) -> Option<String> {
    let first = text(network, "/ipv4/private/0").or_else(|| text(network, "/ipv4/public/0"))?;
    Some(first.split('/').next().unwrap_or_default().to_owned())
}

fn owner_tags(labels: &[String]) -> BTreeMap<String, String> {
    tags(labels.iter().map(|label| split(label)))
}

/// LKE names its nodes `lkeCLUSTER-POOL-…` and tags them `lkeCLUSTER`.
fn managed(name: Option<&str>, labels: &[String]) -> Option<String> {
    let is_cluster = |word: &str| {
        let digits = word.strip_prefix("lke").unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if let Some(label) = labels.iter().find(|label| is_cluster(label)) {
        return Some(format!("LKE: there is a tag {label:?}"));
    }
    let name = name.filter(|name| name.split_once('-').is_some_and(|(cluster, _)| is_cluster(cluster)))?;
    Some(format!("LKE: the label is {name:?}"))
}

#[cfg(test)]
mod tests;
