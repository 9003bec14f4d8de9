//! Seeds as cloud-init's documentation of the data source NoCloud describes them; that a seed disk can be mounted is for virtual machines to show.

use super::super::tests::{Machine, answer};
use crate::host::network::PlainRequest;

fn seeded(meta_data: &str) -> Machine {
    Machine::with_firmware(&[])
        .file("/var/lib/cloud/seed/nocloud/meta-data", meta_data)
        .file("/var/lib/cloud/seed/nocloud/user-data", "#cloud-config\n")
}

#[tokio::test(start_paused = true)]
async fn a_seed_directory_is_read() {
    for (meta_data, id) in [
        ("instance-id: i-0abc\nlocal-hostname: gpu-1\n", "i-0abc"),
        ("{\"instance-id\": \"iid-1\", \"local-hostname\": \"gpu-1\"}", "iid-1"),
        ("instance-id: 42\nlocal-hostname: gpu-1\n", "42"),
    ] {
        let seen = seeded(meta_data).gather().await;
        assert_eq!((seen.instance().cloud, seen.instance().id.as_str()), ("nocloud", id));
        assert_eq!((seen.instance().name.as_deref(), seen.user_data().as_deref()), (Some("gpu-1"), Some("#cloud-config\n")));
    }
    for nothing in ["", "# instance-id: i-1\n", "hostname: x\n"] {
        assert_eq!(seeded(nothing).gather().await.instance().cloud, "none", "without an id it is known by itself");
    }
    for broken in ["[broken", "instance-id: i-1\n  local-hostname: x\n", "instance-id", "- instance-id: i-1\n"] {
        let seen = seeded(broken).gather().await;
        let trouble = seen.gathered.unknown.unwrap_or_else(|| panic!("{broken}"));
        let words = trouble.to_string();
        assert!(!trouble.may_pass() && words.contains("/var/lib/cloud/seed/nocloud/meta-data"), "{broken}: {words}");
        assert_eq!(seen.gathered.facts.instance, None, "it is nobody else: {broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_disk_is_read() {
    let files = [("meta-data", "instance-id: i-0abc\nlocal-hostname: gpu-1\n"), ("user-data", "#cloud-config\n")];
    for device in ["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"] {
        let seen = Machine::with_firmware(&[]).disk(device, &files).gather().await;
        assert_eq!((seen.instance().cloud, seen.instance().id.as_str()), ("nocloud", "i-0abc"));
        assert_eq!(seen.instance().source, format!("meta-data on {device}"));
        assert_eq!((seen.instance().name.as_deref(), seen.user_data().as_deref()), (Some("gpu-1"), Some("#cloud-config\n")));
        let seen = Machine::with_firmware(&[]).disk(device, &[("meta-data", "instance-id")]).gather().await;
        assert!(seen.gathered.unknown.unwrap().to_string().contains(device));
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_in_the_firmware_names_a_server() {
    let rule = |request: &PlainRequest| match request.url.as_str() {
        "http://seeds:8000/a/meta-data" => answer(200, "instance-id: i-1\nlocal-hostname: x\nregion: lab\n"),
        "http://seeds:8000/a/user-data" => answer(200, "#cloud-config\n"),
        _ => answer(404, ""),
    };
    let serial = ("product_serial", "ds=nocloud-net;s=http://seeds:8000/a/;h=gpu-7");
    let seen = Machine::with_firmware(&[serial]).answering("http://seeds:8000", rule).gather().await;
    let instance = seen.instance();
    assert_eq!((instance.id.as_str(), instance.source.as_str()), ("i-1", "http://seeds:8000/a/meta-data"));
    assert_eq!((instance.name.as_deref(), instance.region.as_deref()), (Some("gpu-7"), Some("lab")));
    assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));

    let portal = |_: &PlainRequest| answer(200, "<html>log in</html>");
    let seen = Machine::with_firmware(&[serial]).answering("http://seeds:8000", portal).gather().await;
    assert!(!seen.gathered.unknown.unwrap().may_pass());

    let seen = Machine::with_firmware(&[serial]).gather().await;
    assert!(seen.gathered.unknown.unwrap().may_pass());
}

#[tokio::test(start_paused = true)]
async fn the_kernels_command_line_has_the_last_word() {
    let seen = seeded("instance-id: i-0abc\n")
        .file("/proc/cmdline", "ro ds=nocloud;i=i-9;s=/var/lib/cloud/seed/nocloud/\n")
        .gather()
        .await;
    assert_eq!((seen.instance().id.as_str(), seen.user_data().as_deref()), ("i-9", Some("#cloud-config\n")));
    let seen = Machine::with_firmware(&[]).file("/proc/cmdline", "ds=nocloud;s=/nowhere/").gather().await;
    assert!(seen.gathered.unknown.unwrap().to_string().contains("/nowhere/"));
    let seen = Machine::with_firmware(&[]).file("/proc/cmdline", "ds=nocloud;s=https://h/").gather().await;
    assert!(seen.gathered.unknown.unwrap().to_string().contains("only http://"));
}
