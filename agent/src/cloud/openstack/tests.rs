//! The files are those of "Metadata" (OpenStack Nova documentation); that a config drive can be mounted is for virtual machines to show.

use super::super::tests::{Machine, answer};
use crate::host::network::{PlainAnswer, PlainRequest, Unreachable};

const META_DATA: &str = r#"{"uuid": "d8e02d56-2648-49a3-bf97-6be8f1204f38", "name": "gpu-1", "availability_zone": "nova",
    "meta": {"pool": "gpu", "admin_password": "x"}, "keys": []}"#;

fn nova(request: &PlainRequest) -> Result<PlainAnswer, Unreachable> {
    match request.url.trim_start_matches("http://169.254.169.254") {
        "/openstack/latest/meta_data.json" => answer(200, META_DATA),
        "/openstack/latest/user_data" => answer(200, "#cloud-config\n"),
        "/latest/meta-data/local-ipv4" => answer(200, "10.0.2.15"),
        "/latest/meta-data/instance-type" => answer(403, ""),
        _ => answer(404, ""),
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_it_says_becomes_facts() {
    for firmware in [("product_name", "OpenStack Nova"), ("chassis_asset_tag", "OpenTelekomCloud")] {
        let seen = Machine::with_firmware(&[firmware]).answering("http://169.254.169.254/", nova).gather().await;
        let instance = seen.instance();
        assert_eq!((instance.cloud, instance.id.as_str()), ("openstack", "d8e02d56-2648-49a3-bf97-6be8f1204f38"));
        assert_eq!((instance.name.as_deref(), instance.zone.as_deref()), (Some("gpu-1"), Some("nova")));
        assert_eq!(instance.provider_id.as_deref(), Some("openstack:///d8e02d56-2648-49a3-bf97-6be8f1204f38"));
        assert_eq!(
            (instance.address.as_deref(), instance.tags.keys().collect::<Vec<_>>()),
            (Some("10.0.2.15"), vec![&"pool".to_owned()])
        );
        assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));
        // What is only good to know may be missing, but that is said.
        assert!(instance.instance_type.is_none() && seen.unseen().contains("instance-type"), "{}", seen.unseen());
    }
}

#[tokio::test(start_paused = true)]
async fn a_config_drive_says_the_same_without_anyone_being_asked() {
    let network = r#"{"networks": [{"id": "network0", "type": "ipv4", "ip_address": "10.0.2.15"}]}"#;
    let files = [
        ("openstack/latest/meta_data.json", META_DATA),
        ("openstack/latest/user_data", "#cloud-config\n"),
        ("openstack/latest/network_data.json", network),
    ];
    let drive = "/dev/disk/by-label/config-2";
    let seen = Machine::with_firmware(&[]).disk(drive, &files).answering("http://", nova).gather().await;
    let instance = seen.instance();
    assert_eq!((instance.cloud, instance.id.as_str()), ("openstack", "d8e02d56-2648-49a3-bf97-6be8f1204f38"));
    assert_eq!(instance.source, "openstack/latest/meta_data.json on /dev/disk/by-label/config-2");
    assert_eq!((instance.name.as_deref(), instance.zone.as_deref()), (Some("gpu-1"), Some("nova")));
    assert_eq!((instance.address.as_deref(), instance.tags.len()), (Some("10.0.2.15"), 1));
    assert_eq!((seen.user_data().as_deref(), seen.requests.len()), (Some("#cloud-config\n"), 0));

    for files in [&files[1..], &[(files[0].0, "{}")], &[(files[0].0, "{")]] {
        let seen = Machine::with_firmware(&[]).disk(drive, files).gather().await;
        let trouble = seen.gathered.unknown.unwrap();
        assert!(!trouble.may_pass() && trouble.to_string().contains("meta_data.json on the config drive"), "{trouble}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_config_drive_that_cannot_be_read_is_no_reason_to_ask_someone_else() {
    let machine = Machine::with_firmware(&[]).file("/dev/disk/by-label/config-2", "").answering("http://", nova);
    let seen = machine.gather().await;
    let trouble = seen.gathered.unknown.unwrap();
    assert!(!trouble.may_pass() && trouble.to_string().contains("/dev/disk/by-label/config-2"), "{trouble}");
    assert!(seen.requests.is_empty());
}
