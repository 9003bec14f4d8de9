//! The answers are those of "Use the Metadata service API" (Akamai cloud computing documentation); real ones hold more.

use super::super::tests::{Machine, Seen, answer};
use crate::host::network::PlainRequest;

async fn asked(label: &'static str, tags: &'static str, user_data: &'static str) -> Seen {
    let rule = move |request: &PlainRequest| {
        let path = request.url.trim_start_matches("http://169.254.169.254");
        if path == "/v1/token" {
            assert!(request.method == http::Method::PUT && request.headers.contains_key("metadata-token-expiry-seconds"));
            return answer(200, "t1");
        }
        let known = request.headers.get("metadata-token").is_some_and(|token| token == "t1");
        match path {
            _ if !known => answer(401, ""),
            "/v1/instance" => {
                assert_eq!(request.headers.get("accept").unwrap(), "application/json");
                answer(
                    200,
                    &format!(r#"{{"id": 12345678, "label": "{label}", "region": "us-east", "type": "g1-gpu", "tags": {tags}}}"#),
                )
            }
            "/v1/network" => answer(200, r#"{"ipv4": {"public": ["203.0.113.7/32"], "private": ["192.168.1.2/17"]}}"#),
            "/v1/user-data" => answer(200, user_data),
            _ => answer(404, ""),
        }
    };
    Machine::with_firmware(&[("sys_vendor", "Linode")]).answering("http://169.254.169.254/", rule).gather().await
}

#[tokio::test(start_paused = true)]
async fn all_that_it_says_becomes_facts() {
    let seen = asked("gpu-1", r#"["pool=gpu", "env:prod", "lke"]"#, "I2Nsb3VkLWNvbmZpZwo=\n").await;
    let instance = seen.instance();
    assert_eq!((instance.cloud, instance.id.as_str(), instance.name.as_deref()), ("linode", "12345678", Some("gpu-1")));
    assert_eq!((instance.region.as_deref(), instance.instance_type.as_deref()), (Some("us-east"), Some("g1-gpu")));
    assert_eq!(instance.address.as_deref(), Some("192.168.1.2"));
    assert_eq!(instance.provider_id.as_deref(), Some("linode://12345678"));
    let tags: Vec<(&str, &str)> = instance.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("env", "prod"), ("lke", ""), ("pool", "gpu")]);
    assert_eq!((instance.managed.as_deref(), seen.user_data().as_deref()), (None, Some("#cloud-config\n")));
}

#[tokio::test(start_paused = true)]
async fn lke_is_known_by_a_tag_or_a_label() {
    assert!(asked("gpu-1", r#"["lke4711"]"#, "").await.instance().managed.as_deref().unwrap().contains("lke4711"));
    assert!(asked("lke4711-12-0a1b", "[]", "").await.instance().managed.as_deref().unwrap().contains("lke4711-12-0a1b"));
    assert_eq!(asked("lkeg-1", "[]", "").await.instance().managed, None);
}

#[tokio::test(start_paused = true)]
async fn user_data_that_is_not_base64_costs_the_configuration_not_the_identity() {
    let seen = asked("gpu-1", "[]", "#cloud-config").await;
    assert_eq!(seen.instance().id, "12345678");
    assert!(!seen.gathered.unknown.unwrap().may_pass());
}
