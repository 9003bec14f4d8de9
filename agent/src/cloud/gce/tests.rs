//! The answers are those of "View and query VM metadata" (Compute Engine documentation); real ones hold far more.

use super::super::tests::{Machine, answer};
use crate::host::network::{PlainAnswer, PlainRequest, Unreachable};

const BASE: &str = "http://169.254.169.254";

fn document(attributes: &str) -> String {
    format!(
        r#"{{"id": 4520031799277581759, "name": "gpu-1", "zone": "projects/12/zones/europe-west4-b",
            "machineType": "projects/12/machineTypes/n1-standard-4", "attributes": {attributes},
            "networkInterfaces": [{{"ip": "10.0.2.15"}}]}}"#
    )
}

fn google(attributes: &'static str) -> impl Fn(&PlainRequest) -> Result<PlainAnswer, Unreachable> {
    move |request| {
        assert_eq!(request.headers.get("metadata-flavor").unwrap(), "Google");
        let path = request.url.trim_start_matches(BASE).split('?').next().unwrap();
        let mut answer = match path {
            "/computeMetadata/v1/instance/" => answer(200, &document(attributes))?,
            "/computeMetadata/v1/project/project-id" => answer(200, "example-project")?,
            _ => answer(404, "")?,
        };
        answer.headers.insert("metadata-flavor", http::HeaderValue::from_static("Google"));
        Ok(answer)
    }
}

fn machine() -> Machine {
    Machine::with_firmware(&[("product_name", "Google Compute Engine")])
}

#[tokio::test(start_paused = true)]
async fn all_that_it_says_becomes_facts() {
    let attributes = r##"{"pool": "gpu", "user-data": "#cloud-config\n", "ssh-keys": "root:ssh-rsa A", "startup-script": "#!/bin/sh",
        "kube-env": "CA_KEY: x", "cluster-name": "prod", "join-token": "abc"}"##;
    let seen = machine().answering(BASE, google(attributes)).gather().await;
    let instance = seen.instance();
    assert_eq!((instance.cloud, instance.id.as_str(), instance.name.as_deref()), ("gce", "4520031799277581759", Some("gpu-1")));
    assert_eq!((instance.region.as_deref(), instance.zone.as_deref()), (Some("europe-west4"), Some("europe-west4-b")));
    assert_eq!((instance.instance_type.as_deref(), instance.address.as_deref()), (Some("n1-standard-4"), Some("10.0.2.15")));
    assert_eq!(instance.provider_id.as_deref(), Some("gce://example-project/europe-west4-b/gpu-1"));
    assert_eq!(instance.tags.keys().collect::<Vec<_>>(), ["cluster-name", "pool"]);
    assert_eq!(instance.managed.as_deref(), Some("GKE: attribute cluster-name is \"prod\""));
    assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_name_alone_is_anybodys() {
    let seen = machine().answering(BASE, google(r#"{"cluster-name": "kops.example.com"}"#)).gather().await;
    assert_eq!(seen.instance().managed, None);
}

#[tokio::test(start_paused = true)]
async fn user_data_may_be_in_base64() {
    // In lines, as base64(1) writes it, and in one.
    for attributes in [
        r##"{"user-data": "I2Nsb3Vk\nLWNvbmZpZwo=\n", "user-data-encoding": "base64"}"##,
        r##"{"user-data": "I2Nsb3VkLWNvbmZpZwo=", "user-data-encoding": "base64"}"##,
    ] {
        let seen = machine().answering(BASE, google(attributes)).gather().await;
        assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));
    }
    let wrong = r##"{"user-data": "#cloud-config", "user-data-encoding": "base64"}"##;
    let seen = machine().answering(BASE, google(wrong)).gather().await;
    assert!(seen.gathered.unknown.unwrap().to_string().contains("user-data is not base64"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_googles_header_is_a_strangers() {
    let stranger = |_: &PlainRequest| answer(200, &document("{}"));
    let seen = machine().answering(BASE, stranger).gather().await;
    let trouble = seen.gathered.unknown.unwrap();
    assert!(!trouble.may_pass() && trouble.to_string().contains("Metadata-Flavor"), "{trouble}");
}
