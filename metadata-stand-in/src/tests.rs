//! A stand-in that is wrong makes everything wrong that is tested with it: these hold it to the documentation's own examples.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::*;

struct Got {
    status: u16,
    head: String,
    body: String,
}

fn ask(service: &Service, method: &str, target: &str, headers: &[(&str, &str)]) -> std::io::Result<Got> {
    let mut stream = TcpStream::connect(service.url().trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: metadata\r\n{headers}\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Got { status, head: head.to_owned(), body: body.to_owned() })
}

fn get(service: &Service, target: &str, headers: &[(&str, &str)]) -> Got {
    ask(service, "GET", target, headers).unwrap()
}

fn start(cloud: Cloud, fault: Fault) -> Service {
    Service::start(cloud, Machine { user_data: b"#!/bin/sh\n".to_vec(), ..Machine::example(cloud) }, fault, "127.0.0.1:0")
        .unwrap()
}

const TTL: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "21600");

#[test]
fn ec2_gives_a_token_and_refuses_requests_without_one() {
    let service = start(Cloud::Ec2(Tokens::Required), Fault::None);
    let token = ask(&service, "PUT", "/latest/api/token", &[TTL]).unwrap();
    assert!(token.status == 200 && token.head.contains("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600"), "{}", token.head);
    let with = [("X-aws-ec2-metadata-token", token.body.as_str())];
    assert_eq!(get(&service, "/latest/meta-data/instance-id", &with).body, "i-0123456789abcdef0");
    assert_eq!(get(&service, "/latest/meta-data/instance-id", &[]).status, 401);
    assert_eq!(get(&service, "/latest/meta-data/instance-id", &[("X-aws-ec2-metadata-token", "other")]).status, 401);
    let status = |headers: &[(&str, &str)]| ask(&service, "PUT", "/latest/api/token", headers).unwrap().status;
    assert_eq!(status(&[]), 400);
    assert_eq!(status(&[("X-aws-ec2-metadata-token-ttl-seconds", "21601")]), 400);
    assert_eq!(status(&[TTL, ("X-Forwarded-For", "10.0.0.1")]), 403);
    assert_eq!(get(&service, "/latest/api/token", &[]).status, 405);
    assert_eq!(service.requests().len(), 8);
    assert_eq!(service.requests()[1].header("x-aws-ec2-metadata-token"), Some(token.body.as_str()));
}

#[test]
fn ec2_lists_folders_as_the_real_one_does() {
    let service = start(Cloud::Ec2(Tokens::Optional), Fault::None);
    service.change(|machine| drop(machine.public_keys.insert("my-key".to_owned(), "ssh-ed25519 AAAA".to_owned())));
    let body = |path: &str| get(&service, path, &[]).body;
    assert!(body("/latest/meta-data/").contains("instance-type\n") && body("/latest/meta-data/").contains("placement/\n"));
    assert_eq!(body("/latest/meta-data/placement/"), "availability-zone\nregion");
    assert_eq!(body("/latest/meta-data/tags/instance"), "environment");
    assert_eq!(body("/2021-03-23/meta-data/tags/instance/environment"), "test");
    assert_eq!(body("/latest/meta-data/public-keys/"), "0=my-key");
    assert_eq!(body("/latest/meta-data/public-keys/0/"), "openssh-key");
    assert_eq!(body("/latest/meta-data/public-keys/0/openssh-key"), "ssh-ed25519 AAAA");
    assert_eq!(body("/latest"), "dynamic\nmeta-data\nuser-data");
    assert_eq!(body("/latest/user-data"), "#!/bin/sh\n");
    assert_eq!(body("/latest/dynamic/instance-identity"), "document");
    let document: Value = serde_json::from_str(&body("/latest/dynamic/instance-identity/document")).unwrap();
    assert_eq!(document["region"], "eu-west-1");
    for path in ["/latest/meta-data/spot/instance-action", "/2030-01-01/meta-data/", "/nothing", "/latest/meta-data/placement/x"]
    {
        assert_eq!(get(&service, path, &[]).status, 404, "{path}");
    }
    let wrong = [("X-aws-ec2-metadata-token", "wrong")];
    assert_eq!(get(&service, "/latest/meta-data/instance-id", &wrong).status, 401, "a wrong token is worse than none");
}

#[test]
fn an_ec2_compatible_cloud_knows_no_tokens_tags_and_regions() {
    for status in [404, 405, 501] {
        let service = start(Cloud::Ec2(Tokens::Unknown(status)), Fault::None);
        assert_eq!(ask(&service, "PUT", "/latest/api/token", &[TTL]).unwrap().status, status);
        assert_eq!(get(&service, "/latest/meta-data/instance-id", &[]).body, "i-0123456789abcdef0");
        assert_eq!(get(&service, "/latest/meta-data/tags/instance/", &[]).status, 404);
        assert_eq!(get(&service, "/latest/meta-data/placement/region", &[]).status, 404);
        assert_eq!(get(&service, "/2021-03-23/meta-data/instance-id", &[]).status, 404);
    }
}

#[test]
fn gce_wants_its_header_and_shows_it() {
    let service = start(Cloud::Gce, Fault::None);
    let google = [("Metadata-Flavor", "Google")];
    let all = get(&service, "/computeMetadata/v1/?recursive=true", &google);
    assert!(all.head.contains("Metadata-Flavor: Google") && all.head.contains("Content-Type: application/json"), "{}", all.head);
    let tree: Value = serde_json::from_str(&all.body).unwrap();
    assert_eq!(tree["instance"]["id"], 4_520_031_799_277_581_759_u64);
    assert_eq!(tree["instance"]["machineType"], "projects/123456789012/machineTypes/n1-standard-4");
    assert_eq!(tree["instance"]["attributes"]["user-data"], "#!/bin/sh\n");
    assert_eq!(tree["project"]["projectId"], "example-project");
    assert_eq!(get(&service, "/computeMetadata/v1/instance/zone", &google).body, "projects/123456789012/zones/europe-west4-b");
    assert_eq!(get(&service, "/computeMetadata/v1/instance/id", &google).body, "4520031799277581759");
    assert_eq!(get(&service, "/computeMetadata/v1/instance/network-interfaces/0/ip", &google).body, "10.0.2.15");
    assert!(get(&service, "/computeMetadata/v1/instance/", &google).body.contains("attributes/\n"));
    let moved = get(&service, "/computeMetadata/v1/instance?recursive=true", &google);
    assert!(
        moved.status == 301 && moved.head.contains("Location: /computeMetadata/v1/instance/?recursive=true"),
        "{}",
        moved.head
    );
    assert_eq!(get(&service, "/computeMetadata/v1/instance/id", &[]).status, 403);
    assert_eq!(get(&service, "/computeMetadata/v1/instance/id", &[google[0], ("X-Forwarded-For", "1.2.3.4")]).status, 403);
    assert_eq!(get(&service, "/computeMetadata/v1/instance/nothing", &google).status, 404);
}

#[test]
fn azure_wants_a_header_and_a_version_it_knows() {
    let service = start(Cloud::Azure, Fault::None);
    let metadata = [("Metadata", "true")];
    let at = |version: &str| get(&service, &format!("/metadata/instance?api-version={version}"), &metadata);
    let compute: Value = serde_json::from_str(&at("2021-02-01").body).unwrap();
    assert_eq!(compute["compute"]["userData"], "IyEvYmluL3NoCg==");
    assert_eq!(compute["compute"]["tagsList"][0]["name"], "environment");
    assert_eq!(compute["network"]["interface"][0]["macAddress"], "525400123456");
    assert!(!at("2019-06-01").body.contains("tagsList") && !at("2019-06-04").body.contains("userData"));
    assert_eq!(at("2021-02-30").status, 400);
    assert!(get(&service, "/metadata/instance", &metadata).body.contains("newest-versions"));
    assert_eq!(get(&service, "/metadata/instance?api-version=2021-02-01", &[]).status, 400);
    let forwarded = [metadata[0], ("X-Forwarded-For", "1.2.3.4")];
    assert_eq!(get(&service, "/metadata/instance?api-version=2021-02-01", &forwarded).status, 400);
    let leaf = get(&service, "/metadata/instance/compute/vmId?api-version=2021-02-01&format=text", &metadata);
    assert_eq!(leaf.body, "02aab8a4-74ef-476e-8182-f6d2ba4166a6");
    assert!(get(&service, "/metadata/scheduledevents?api-version=2020-07-01", &metadata).body.contains("\"Events\":[]"));
}

#[test]
fn openstack_serves_its_files_and_the_oldest_paths_of_ec2() {
    let service = start(Cloud::OpenStack, Fault::None);
    assert!(get(&service, "/openstack", &[]).body.ends_with("\nlatest"));
    let data: Value = serde_json::from_str(&get(&service, "/openstack/latest/meta_data.json", &[]).body).unwrap();
    assert_eq!(
        (data["uuid"].as_str(), data["meta"]["environment"].as_str()),
        (Some("d8e02d56-2648-49a3-bf97-6be8f1204f38"), Some("test"))
    );
    assert_eq!(get(&service, "/openstack/2018-08-27/user_data", &[]).body, "#!/bin/sh\n");
    assert_eq!(get(&service, "/openstack/1999-01-01/meta_data.json", &[]).status, 404);
    assert_eq!(get(&service, "/latest/meta-data/instance-id", &[]).body, "i-0000002a");
    service.change(|machine| machine.user_data.clear());
    assert_eq!(get(&service, "/openstack/latest/user_data", &[]).status, 404);
}

#[test]
fn linode_wants_a_token_and_speaks_text_or_json() {
    let service = start(Cloud::Linode, Fault::None);
    assert_eq!(get(&service, "/v1/instance", &[]).status, 401);
    let token = ask(&service, "PUT", "/v1/token", &[("Metadata-Token-Expiry-Seconds", "300")]).unwrap().body;
    let with = ("Metadata-Token", token.as_str());
    let data: Value = serde_json::from_str(&get(&service, "/v1/instance", &[with, ("Accept", "application/json")]).body).unwrap();
    assert_eq!((&data["id"], &data["tags"][0]), (&12_345_678.into(), &"environment=test".into()));
    assert!(get(&service, "/v1/instance", &[with]).body.contains("label: gpu-worker-1\n"));
    assert_eq!(get(&service, "/v1/user-data", &[with]).body, "IyEvYmluL3NoCg==");
}

#[test]
fn nocloud_serves_files_below_any_folder() {
    let service = start(Cloud::NoCloud, Fault::None);
    assert!(get(&service, "/seeds/one/meta-data", &[]).body.starts_with("instance-id: \"i-nocloud\"\n"));
    assert_eq!(get(&service, "/seeds/one/user-data", &[]).body, "#!/bin/sh\n");
    assert_eq!(get(&service, "/seeds/one/vendor-data", &[]).status, 404);
}

#[test]
fn faults_are_done_as_often_as_they_say() {
    let cloud = Cloud::Ec2(Tokens::Optional);
    let path = "/latest/meta-data/instance-id";
    let statuses = |fault| {
        let service = start(cloud, fault);
        (0..3).map(|_| ask(&service, "GET", path, &[]).map_or(0, |got| got.status)).collect::<Vec<_>>()
    };
    assert_eq!(statuses(Fault::TooManyRequests { times: 2 }), [429, 429, 200]);
    assert_eq!(statuses(Fault::ServerError { status: 503, times: 1 }), [503, 200, 200]);
    assert_eq!(statuses(Fault::Late { refuse: 2 }), [0, 0, 200]);
    assert_eq!(get(&start(cloud, Fault::SlowBytes { pause: Duration::from_micros(10) }), path, &[]).body, "i-0123456789abcdef0");
    assert_eq!(get(&start(cloud, Fault::NoTags), "/latest/meta-data/tags/", &[]).status, 404);
    assert!(get(&start(cloud, Fault::CaptivePortal), path, &[]).head.contains("text/html"));
    assert_eq!(get(&start(cloud, Fault::Huge), path, &[]).body.len(), fault::HUGE);
    let cut = get(&start(cloud, Fault::Cut), path, &[]);
    assert!(cut.head.contains("Content-Length: 19") && cut.body == "i-0123456", "{}", cut.body);
}

#[test]
fn the_first_token_goes_stale_once() {
    let service = start(Cloud::Ec2(Tokens::Required), Fault::StaleToken);
    let status = |token: &str| get(&service, "/latest/meta-data/instance-id", &[("X-aws-ec2-metadata-token", token)]).status;
    let first = ask(&service, "PUT", "/latest/api/token", &[TTL]).unwrap().body;
    let second = ask(&service, "PUT", "/latest/api/token", &[TTL]).unwrap().body;
    assert_eq!([status(&second), status(&first), status(&first)], [200, 401, 200]);
}

#[test]
fn a_blackhole_accepts_and_says_nothing_until_it_is_dropped() {
    let service = start(Cloud::Gce, Fault::Blackhole);
    let mut stream = TcpStream::connect(service.url().trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "an answer came");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    while service.requests().is_empty() {
        std::thread::yield_now();
    }
    drop(service);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
