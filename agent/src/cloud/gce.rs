//! Google's metadata service answers as one JSON document, and every true answer of it carries its own header.

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use http::HeaderValue;
use serde_json::Value;

use super::asking::{Answered, Asking, Question};
use super::tags::tags;
use super::{Cloud, Metadata, Trouble, decoded, text};
use crate::facts::Instance;
use crate::look::Look;

/// `metadata.google.internal` ("About VM metadata", Compute Engine documentation); addresses need no resolver.
const ADDRESSES: &[&str] = &["http://169.254.169.254", "http://[fd20:ce::254]"];

const INSTANCE: &str = "/computeMetadata/v1/instance/?recursive=true&alt=json";

const PROJECT_ID: &str = "/computeMetadata/v1/project/project-id";

/// Every request and every answer has it.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

/// The row of the table.
pub struct Gce;

#[async_trait(?Send)]
impl Cloud for Gce {
    fn name(&self) -> &'static str {
        "gce"
    }

    fn claims(&self, look: Look<'_>) -> Result<Option<String>> {
        let dmi = &look.facts.dmi;
        // cloud-init, ds-identify: the product name is not on all machines.
        Ok(if dmi.product_name.as_deref() == Some("Google Compute Engine") {
            Some("DMI product_name is \"Google Compute Engine\"".to_owned())
        } else if dmi.product_serial.as_deref().is_some_and(|serial| serial.starts_with("GoogleCloud-")) {
            Some("DMI product_serial begins with \"GoogleCloud-\"".to_owned())
        } else {
            None
        })
    }

    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        let addresses = asking.addresses(ADDRESSES);
        let (instance, project) = (question(INSTANCE), question(PROJECT_ID));
        let (instance, project) = tokio::join!(asking.race(&addresses, &instance), asking.race(&addresses, &project));
        let (instance, project) = (genuine(instance?)?, genuine(project?)?.word()?);
        let no_id = instance.is_not_the_service("a document with an instance's id");
        let url = instance.url.clone();
        let document = instance.json()?;
        let id = text(&document, "/id").ok_or(no_id)?;
        let name = text(&document, "/name");
        let zone = text(&document, "/zone").map(|path| last(&path));
        let attributes = attributes(&document);
        let user_data = user_data(&url, &attributes);
        let provider_id = match (&project, &zone, &name) {
            // cloud-provider-gcp, "provider id".
            (Some(project), Some(zone), Some(name)) => Some(format!("gce://{project}/{zone}/{name}")),
            _ => None,
        };
        let instance = Instance {
            cloud: self.name(),
            id,
            source: url,
            name,
            // A region's zones are its name and a letter: europe-west4-a.
            region: zone.as_deref().and_then(|zone| zone.rsplit_once('-')).map(|(region, _)| region.to_owned()),
            zone,
            instance_type: text(&document, "/machineType").map(|path| last(&path)),
            address: text(&document, "/networkInterfaces/0/ip").or_else(|| text(&document, "/networkInterfaces/0/ipv6s/0")),
            provider_id,
            managed: managed(&attributes),
            tags: tags(attributes),
        };
        Ok(Metadata { instance: Some(instance), user_data, ..Metadata::default() })
    }
}

fn question(path: &str) -> Question<'_> {
    Question::get(path).with(FLAVOR.0, HeaderValue::from_static(FLAVOR.1))
}

fn genuine(answered: Answered) -> Result<Answered, Trouble> {
    match answered.answer.headers.get(FLAVOR.0) {
        Some(flavor) if flavor == FLAVOR.1 => Ok(answered),
        _ => Err(answered.is_not_the_service("an answer with the header Metadata-Flavor: Google")),
    }
}

/// Zones and machine types come as paths: `projects/1/zones/europe-west4-a`.
fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn attributes(document: &Value) -> BTreeMap<String, String> {
    let attributes = document.get("attributes").and_then(Value::as_object);
    let pairs = attributes.into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Attributes are text; a second one says when the bytes are in base64 (cloud-init, the data source "GCE").
fn user_data(url: &str, attributes: &BTreeMap<String, String>) -> Result<Option<Vec<u8>>, Trouble> {
    let Some(text) = attributes.get("user-data").map(String::as_bytes) else { return Ok(None) };
    match attributes.get("user-data-encoding").map(String::as_str) {
        Some("base64") => decoded(text, &format!("{url}: the attribute user-data")),
        _ => Ok(Some(text.to_vec())),
    }
}

/// GKE gives its nodes `kube-env`, and their cluster's name with its place; kOps gives the name alone.
fn managed(attributes: &BTreeMap<String, String>) -> Option<String> {
    let has = |name: &str| attributes.contains_key(name);
    let name = attributes.get("cluster-name");
    match name {
        Some(name) if has("kube-env") || has("cluster-location") || has("cluster-uid") || has("gke-node-init") => {
            Some(format!("GKE: attribute cluster-name is {name:?}"))
        }
        None if has("kube-env") => Some("GKE: there is an attribute kube-env".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
