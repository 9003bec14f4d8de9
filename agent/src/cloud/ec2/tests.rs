//! The answers are those of the Amazon EC2 User Guide; real ones may differ where it is silent.

use std::cell::Cell;

use super::super::tests::{Machine, Seen, answer, refused};
use super::is_ec2_uuid;
use crate::host::network::{PlainAnswer, PlainRequest, Unreachable};

const BASE: &str = "http://169.254.169.254";

fn tree(request: &PlainRequest) -> Result<PlainAnswer, Unreachable> {
    match request.url.trim_start_matches(BASE).trim_start_matches("http://[fd00:ec2::254]") {
        "/latest/meta-data/instance-id" => answer(200, "i-0abc"),
        "/latest/meta-data/placement/availability-zone" => answer(200, "eu-west-1a"),
        "/latest/meta-data/placement/region" => answer(200, "eu-west-1"),
        "/latest/meta-data/instance-type" => answer(200, "g4dn.xlarge"),
        "/latest/meta-data/local-ipv4" => answer(200, "10.0.0.12"),
        "/latest/meta-data/tags/instance" => answer(200, "Name\neks:cluster-name"),
        "/latest/meta-data/tags/instance/Name" => answer(200, "gpu one"),
        "/latest/meta-data/tags/instance/eks:cluster-name" => answer(200, "prod"),
        "/latest/user-data" => answer(200, "#cloud-config\n"),
        _ => answer(404, "<html>404</html>"),
    }
}

/// A service that gives the tokens t1, t2, … and knows the newest alone.
fn with_tokens(mut stale: u32) -> impl Fn(&PlainRequest) -> Result<PlainAnswer, Unreachable> {
    let given = Cell::new(0_u32);
    stale += 1;
    move |request| {
        if request.url.ends_with("/latest/api/token") {
            assert!(request.method == http::Method::PUT && request.headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds"));
            given.set(given.get() + 1);
            return answer(200, &format!("t{}", given.get()));
        }
        let token = request.headers.get("x-aws-ec2-metadata-token").map(|token| token.to_str().unwrap().to_owned());
        if token == Some(format!("t{stale}")) { tree(request) } else { answer(401, "") }
    }
}

fn amazon() -> Machine {
    Machine::with_firmware(&[("sys_vendor", "Amazon EC2")])
}

fn puts(seen: &Seen) -> usize {
    seen.requests.iter().filter(|request| request.method == http::Method::PUT && request.url.starts_with(BASE)).count()
}

#[tokio::test(start_paused = true)]
async fn all_that_it_says_becomes_facts() {
    let seen = amazon().answering(BASE, with_tokens(0)).gather().await;
    let instance = seen.instance();
    assert_eq!((instance.cloud, instance.id.as_str()), ("ec2", "i-0abc"));
    assert_eq!(instance.source, format!("{BASE}/latest/meta-data/instance-id"));
    assert_eq!((instance.region.as_deref(), instance.zone.as_deref()), (Some("eu-west-1"), Some("eu-west-1a")));
    assert_eq!((instance.instance_type.as_deref(), instance.address.as_deref()), (Some("g4dn.xlarge"), Some("10.0.0.12")));
    assert_eq!((instance.name.as_deref(), instance.tags.len()), (Some("gpu one"), 2));
    assert_eq!(instance.provider_id.as_deref(), Some("aws:///eu-west-1a/i-0abc"));
    assert_eq!(instance.managed.as_deref(), Some("EKS: tag eks:cluster-name is \"prod\""));
    assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));
    assert!(seen.gathered.facts.unseen.is_empty() && seen.said.is_empty(), "{}", seen.unseen());
    let shown = format!("{:?}", seen.requests);
    assert!(shown.contains("Sensitive") && !shown.contains("\"t1\""), "tokens are not shown: {shown}");
}

#[tokio::test(start_paused = true)]
async fn the_service_is_found_over_ipv6_too() {
    let seen = amazon().answering("http://[fd00:ec2::254]/", with_tokens(0)).gather().await;
    assert!(seen.instance().source.starts_with("http://[fd00:ec2::254]/"), "{}", seen.instance().source);
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_replaced_once() {
    let seen = amazon().answering(BASE, with_tokens(1)).gather().await;
    assert_eq!((seen.instance().id.as_str(), puts(&seen)), ("i-0abc", 2));
    let seen = amazon().answering(BASE, with_tokens(2)).gather().await;
    assert!(!seen.gathered.unknown.as_ref().unwrap().may_pass());
    assert_eq!(puts(&seen), 2);
}

#[tokio::test(start_paused = true)]
async fn a_compatible_cloud_without_tokens_is_asked_without() {
    for status in [404, 405, 501] {
        let rule = move |request: &PlainRequest| {
            assert!(!request.headers.contains_key("x-aws-ec2-metadata-token"));
            if request.url.ends_with("/token") { answer(status, "") } else { tree(request) }
        };
        let seen = Machine::with_firmware(&[]).set("cloud.name", "ec2").answering(BASE, rule).gather().await;
        assert_eq!((seen.instance().id.as_str(), puts(&seen)), ("i-0abc", 1), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_and_what_is_switched_off_is_not() {
    for status in [429, 500, 503] {
        let (tokens, refusals) = (with_tokens(0), Cell::new(0));
        let rule = move |request: &PlainRequest| {
            refusals.set(refusals.get() + 1);
            match refusals.get() {
                1 => refused(),
                2 | 3 => answer(status, ""),
                _ => tokens(request),
            }
        };
        let seen = amazon().answering(BASE, rule).gather().await;
        assert_eq!(seen.instance().id, "i-0abc", "{status}");
    }
    let seen = amazon().answering(BASE, |_| answer(403, "")).gather().await;
    let trouble = seen.gathered.unknown.clone().unwrap();
    assert!(!trouble.may_pass() && trouble.to_string().contains("switched off"), "{trouble}");
    assert_eq!(puts(&seen), 1);
}

#[tokio::test(start_paused = true)]
async fn no_id_is_no_service() {
    let rule = |request: &PlainRequest| if request.url.ends_with("/instance-id") { answer(404, "") } else { tree(request) };
    let seen = amazon().answering(BASE, rule).gather().await;
    assert!(!seen.gathered.unknown.unwrap().may_pass());
}

#[tokio::test(start_paused = true)]
async fn tags_that_cannot_be_seen_cost_the_role_and_nothing_else() {
    for (status, may_pass) in [(500, true), (403, false)] {
        for beginning in ["/tags/instance", "/tags/instance/Name"] {
            let tokens = with_tokens(0);
            let rule = move |request: &PlainRequest| {
                if request.url.ends_with(beginning) { answer(status, "") } else { tokens(request) }
            };
            let seen = amazon().answering(BASE, rule).gather().await;
            assert_eq!((seen.instance().id.as_str(), seen.instance().tags.len()), ("i-0abc", 0));
            assert!(seen.unseen().contains("the instance's tags") && seen.gathered.unknown.is_none(), "{}", seen.unseen());
            assert_eq!(seen.gathered.role_unknown.unwrap().may_pass(), may_pass, "{status} for {beginning}");
        }
    }
    // The owner does not show them, or there are none.
    let tokens = with_tokens(0);
    let rule = move |request: &PlainRequest| if request.url.contains("/tags") { answer(404, "") } else { tokens(request) };
    assert!(amazon().answering(BASE, rule).gather().await.gathered.role_unknown.is_none());
}

#[tokio::test(start_paused = true)]
async fn compatible_clouds_have_marks_of_their_own() {
    for firmware in [
        [("sys_vendor", "3DS Outscale"), ("product_name", "3DS Outscale VM")],
        [("chassis_asset_tag", "123456.zstack.io"), ("product_name", "x")],
        [("product_serial", "srv-1.gb1.brightbox.com"), ("product_name", "x")],
        [("product_uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF"), ("sys_vendor", "Xen")],
        [("product_uuid", "45E12AEC-DCD1-B213-94ED-012345ABCDEF"), ("product_serial", "45e12aec-dcd1-b213-94ed-012345abcdef")],
    ] {
        let seen = Machine::with_firmware(&firmware).answering(BASE, with_tokens(0)).gather().await;
        assert_eq!(seen.instance().cloud, "ec2", "{firmware:?}");
    }
}

#[test]
fn a_uuid_is_amazons_with_its_first_bytes_in_either_order() {
    assert!(is_ec2_uuid("ec2e1916-9099-7caf-fd21-012345abcdef") && is_ec2_uuid("45e12aec-dcd1-b213-94ed-012345abcdef"));
    assert!(!is_ec2_uuid("4c4c4544-0042-3510-8052-b3c04f4b4e32") && !is_ec2_uuid(""));
}
