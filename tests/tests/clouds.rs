//! The agent's own network code against stand-ins of every cloud's metadata service: what comes out as facts, and how each fault ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::cell::RefCell;
use std::time::Duration;

use gpuk_agent::config::{self, Source};
use gpuk_agent::facts::{Gathered, Instance, gather};
use gpuk_agent::host::Host;
use gpuk_agent::host::network::RealNetwork;
use integration::write;
use metadata_stand_in::{Cloud, Fault, Machine, Service, Tokens};

/// One look waits this long for a service that answers in the end, all tries together: longer than a busy machine needs.
const LONG: Duration = Duration::from_secs(60);

/// One look waits this long for a service that never answers.
const SHORT: Duration = Duration::from_secs(2);

const USER_DATA: &str = "#cloud-config\ngpuk: {}\n";

/// The clouds that are recognised by their firmware.
const CLOUDS: [Cloud; 5] = [Cloud::Ec2(Tokens::Required), Cloud::Gce, Cloud::Azure, Cloud::OpenStack, Cloud::Linode];

/// What the firmware of such a machine says, as a file in `/sys/class/dmi/id`.
fn firmware(cloud: Cloud) -> (&'static str, &'static str) {
    match cloud {
        Cloud::Ec2(Tokens::Unknown(_)) => ("sys_vendor", "3DS Outscale"),
        Cloud::Ec2(_) => ("sys_vendor", "Amazon EC2"),
        Cloud::Gce => ("product_name", "Google Compute Engine"),
        Cloud::Azure => ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
        Cloud::OpenStack => ("product_name", "OpenStack Nova"),
        Cloud::Linode => ("sys_vendor", "Akamai"),
        Cloud::NoCloud => ("product_serial", "ds=nocloud"),
    }
}

fn machine(cloud: Cloud) -> Machine {
    Machine { user_data: USER_DATA.as_bytes().to_vec(), ..Machine::example(cloud) }
}

fn start(cloud: Cloud, fault: Fault) -> Service {
    Service::start(cloud, machine(cloud), fault, "127.0.0.1:0").unwrap()
}

/// One look at a machine on that cloud, whose service is at `url`.
async fn look(cloud: Cloud, url: &str, limit: Duration, say: &dyn Fn(&str)) -> Gathered {
    let root = tempfile::tempdir().unwrap();
    let (name, text) = firmware(cloud);
    let text = if cloud == Cloud::NoCloud { format!("{text};s={url}/seed/") } else { text.to_owned() };
    write(root.path(), &format!("sys/class/dmi/id/{name}"), &text);
    let mut host = Host::of_fakes(root.path()).unwrap();
    host.network = Box::new(RealNetwork::default());
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let settings = vec![set("cloud.endpoint", url), set("cloud.limit", &format!("{}s", limit.as_secs()))];
    let config = config::load(vec![Source::flags(settings)]).unwrap().config;
    gather(&host, &config, say).await
}

fn instance(gathered: &Gathered) -> &Instance {
    gathered.facts.instance.as_ref().unwrap_or_else(|| panic!("no instance: {:?}", gathered.facts.unseen))
}

fn user_data(gathered: &Gathered) -> Option<String> {
    gathered.user_data.as_ref().map(|data| String::from_utf8(data.clone()).unwrap())
}

#[tokio::test]
async fn every_cloud_says_who_the_machine_is() {
    let group = "azure:///subscriptions/8d10da13-8125-4ba9-a717-bf7490507b3d/resourceGroups/example-group";
    for (cloud, name, region, zone, provider_id) in [
        (Cloud::Ec2(Tokens::Required), "ec2", Some("eu-west-1"), Some("eu-west-1a"), "aws:///eu-west-1a/i-0123456789abcdef0"),
        (Cloud::Ec2(Tokens::Optional), "ec2", Some("eu-west-1"), Some("eu-west-1a"), "aws:///eu-west-1a/i-0123456789abcdef0"),
        (Cloud::Ec2(Tokens::Unknown(404)), "ec2", None, Some("eu-west-1a"), "aws:///eu-west-1a/i-0123456789abcdef0"),
        (Cloud::Ec2(Tokens::Unknown(405)), "ec2", None, Some("eu-west-1a"), "aws:///eu-west-1a/i-0123456789abcdef0"),
        (Cloud::Ec2(Tokens::Unknown(501)), "ec2", None, Some("eu-west-1a"), "aws:///eu-west-1a/i-0123456789abcdef0"),
        (Cloud::Gce, "gce", Some("europe-west4"), Some("europe-west4-b"), "gce://example-project/europe-west4-b/gpu-worker-1"),
        (
            Cloud::Azure,
            "azure",
            Some("westeurope"),
            Some("westeurope-1"),
            &format!("{group}/providers/Microsoft.Compute/virtualMachines/gpu-worker-1"),
        ),
        (Cloud::OpenStack, "openstack", None, Some("nova"), "openstack:///d8e02d56-2648-49a3-bf97-6be8f1204f38"),
        (Cloud::Linode, "linode", Some("us-east"), None, "linode://12345678"),
        (Cloud::NoCloud, "nocloud", Some("lab"), Some("rack-1"), ""),
    ] {
        let service = start(cloud, Fault::None);
        let gathered = look(cloud, &service.url(), LONG, &|_| {}).await;
        let (found, true_one) = (instance(&gathered), machine(cloud));
        assert_eq!((found.cloud, &found.id), (name, &true_one.instance_id), "{cloud:?}");
        assert_eq!((found.region.as_deref(), found.zone.as_deref()), (region, zone), "{cloud:?}");
        assert_eq!(found.provider_id.as_deref().unwrap_or_default(), provider_id, "{cloud:?}");
        assert!(found.source.starts_with(&service.url()), "{cloud:?}: {}", found.source);
        assert_eq!(user_data(&gathered).as_deref(), Some(USER_DATA), "{cloud:?}");
        assert_eq!(found.managed, None, "{cloud:?}");
        assert!(gathered.facts.unseen.is_empty(), "{cloud:?}: {:?}", gathered.facts.unseen);
        assert!(gathered.unknown.is_none() && gathered.role_unknown.is_none(), "{cloud:?}");
        if cloud != Cloud::NoCloud {
            assert_eq!(found.instance_type.as_ref(), Some(&true_one.instance_type), "{cloud:?}");
            assert_eq!(found.address.as_ref(), Some(&true_one.address), "{cloud:?}");
            // Clouds that are only compatible with EC2 have no tags there.
            let tags = if matches!(cloud, Cloud::Ec2(Tokens::Unknown(_))) { Default::default() } else { true_one.tags };
            assert_eq!(found.tags, tags, "{cloud:?}");
        }
    }
}

#[tokio::test]
async fn a_machine_without_user_data_is_a_machine_all_the_same() {
    for cloud in CLOUDS {
        let service = Service::start(cloud, Machine::example(cloud), Fault::None, "127.0.0.1:0").unwrap();
        let gathered = look(cloud, &service.url(), LONG, &|_| {}).await;
        assert_eq!(instance(&gathered).id, Machine::example(cloud).instance_id);
        assert!(user_data(&gathered).is_none() && gathered.unknown.is_none(), "{cloud:?}");
    }
}

/// Tags that their owner did not open to the machine are no fault.
#[tokio::test]
async fn a_machine_without_tags_is_a_machine_all_the_same() {
    for cloud in CLOUDS {
        let service = start(cloud, Fault::NoTags);
        let gathered = look(cloud, &service.url(), LONG, &|_| {}).await;
        let trouble = gathered.unknown.as_ref();
        assert!(trouble.is_none() && gathered.facts.unseen.is_empty(), "{cloud:?}: {trouble:?}");
        assert!(instance(&gathered).tags.is_empty(), "{cloud:?}");
        assert_eq!(user_data(&gathered).as_deref(), Some(USER_DATA), "{cloud:?}");
    }
}

/// Faults that a further try gets over.
#[tokio::test]
async fn what_passes_is_waited_for() {
    for cloud in CLOUDS {
        let mut faults = vec![
            Fault::Late { refuse: 2 },
            Fault::TooManyRequests { times: 2 },
            Fault::ServerError { status: 500, times: 2 },
            Fault::ServerError { status: 503, times: 2 },
        ];
        match cloud {
            Cloud::Azure => faults.push(Fault::ServerError { status: 410, times: 2 }),
            Cloud::Ec2(_) | Cloud::Linode => faults.push(Fault::StaleToken),
            _ => {}
        }
        for fault in faults {
            let service = start(cloud, fault);
            let gathered = look(cloud, &service.url(), LONG, &|_| {}).await;
            let trouble = gathered.unknown.as_ref();
            assert!(trouble.is_none() && gathered.facts.unseen.is_empty(), "{cloud:?}, {fault:?}: {trouble:?}");
            assert_eq!(instance(&gathered).id, machine(cloud).instance_id, "{cloud:?}, {fault:?}");
            assert_eq!(user_data(&gathered).as_deref(), Some(USER_DATA), "{cloud:?}, {fault:?}");
        }
    }
}

/// Faults that last: silence may pass one day, nonsense is for a person to look at.
#[tokio::test]
async fn what_does_not_pass_ends_in_the_right_words() {
    let silence = [
        (Fault::Blackhole, "no answer in time"),
        (Fault::SlowBytes { pause: Duration::from_millis(50) }, "no answer in time"),
        (Fault::ServerError { status: 500, times: u32::MAX }, "status 500"),
        (Fault::TooManyRequests { times: u32::MAX }, "status 429"),
        (Fault::Late { refuse: u32::MAX }, "127.0.0.1"),
        // A body that ends early may be a service that is being started anew.
        (Fault::Cut, "127.0.0.1"),
    ];
    let nonsense = [(Fault::CaptivePortal, "not the metadata service"), (Fault::Huge, "larger than 1024 KiB")];
    let all = silence.map(|(fault, words)| (fault, words, true)).into_iter();
    let all = all.chain(nonsense.map(|(fault, words)| (fault, words, false)));
    for (fault, words, may_pass) in all {
        // The way to an answer is the same for all clouds; a silent one costs its whole limit, so two must do.
        let clouds = if may_pass { &CLOUDS[..2] } else { &CLOUDS[..] };
        for &cloud in clouds {
            let service = start(cloud, fault);
            let said = RefCell::new(Vec::new());
            let gathered = look(cloud, &service.url(), SHORT, &|line| said.borrow_mut().push(line.to_owned())).await;
            assert_eq!(gathered.facts.instance.as_ref().map(|instance| &instance.id), None, "{cloud:?}, {fault:?}");
            let trouble = gathered.unknown.unwrap();
            assert_eq!(trouble.may_pass(), may_pass, "{cloud:?}, {fault:?}: {trouble}");
            assert!(trouble.to_string().contains(words), "{cloud:?}, {fault:?}: {trouble}");
            assert!(trouble.to_string().contains(&service.url()), "{cloud:?}, {fault:?}: {trouble}");
            assert!(!may_pass || said.borrow().len() == 1, "{cloud:?}, {fault:?}: {said:?}");
        }
    }
}

#[tokio::test]
async fn a_port_that_opens_late_is_waited_for_and_spoken_of() {
    let cloud = Cloud::Ec2(Tokens::Required);
    // An address that nobody else here uses, and a port that the system gives to nobody by itself.
    let address = "127.18.7.5:8077";
    let url = format!("http://{address}");
    let service = RefCell::new(None);
    // The service comes up when the wait is spoken of.
    let gathered = look(cloud, &url, LONG, &|line| {
        assert!(line.contains(&url) && line.contains("at most 1m"), "{line}");
        let started = Service::start(cloud, machine(cloud), Fault::None, address).unwrap();
        assert!(service.replace(Some(started)).is_none(), "it is said once");
    })
    .await;
    assert_eq!(instance(&gathered).id, machine(cloud).instance_id);
}
