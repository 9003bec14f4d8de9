//! On each cloud the agent must know of its machine what the real cloud-init knows of it, and a copied disk must become a node
//! of its own.

use anyhow::{Context as _, Result, bail, ensure};
use metadata_stand_in::{Cloud, Machine as Instance, Tokens};
use serde_json::Value;
use vm_tests::clouds::{METADATA, Place, for_clouds};
use vm_tests::progress::{say, seconds};
use vm_tests::scene::{LIMIT, SHORT, Stage, doctor, wait_for_agent, watched};
use vm_tests::{ClusterOptions, Disc, Machine, MachineOptions};

/// A fact by its JSON pointers in cloud-init's answer and in the agent's. Clouds differ in what cloud-init makes of them.
type Fact = (&'static str, &'static str);

const ID: Fact = ("/v1/instance_id", "/instance/id");
const REGION: Fact = ("/v1/region", "/instance/region");
const ZONE: Fact = ("/v1/availability_zone", "/instance/zone");

const EC2: &[Fact] = &[
    ID,
    REGION,
    ZONE,
    ("/ds/meta-data/instance-type", "/instance/instanceType"),
    ("/ds/meta-data/local-ipv4", "/instance/address"),
    ("/ds/meta-data/tags/instance/environment", "/instance/tags/environment"),
];

const GCE: &[Fact] = &[ID, REGION, ZONE, ("/v1/local_hostname", "/instance/name")];

/// What cloud-init calls the availability zone there is the fault domain, and the service's zone is a digit without its region.
const AZURE: &[Fact] = &[
    ID,
    REGION,
    ("/ds/meta_data/imds/compute/vmSize", "/instance/instanceType"),
    ("/ds/meta_data/imds/compute/name", "/instance/name"),
    ("/ds/meta_data/imds/network/interface/0/ipv4/ipAddress/0/privateIpAddress", "/instance/address"),
];

const OPENSTACK: &[Fact] = &[ID, ZONE, ("/ds/meta_data/meta/environment", "/instance/tags/environment")];

const NOCLOUD: &[Fact] = &[ID, ("/v1/local_hostname", "/instance/name")];

/// What cloud-init knows, the agent must find out without it.
const DATA: &str = "/run/cloud-init/instance-data.json";

/// cloud-init is asked first, then the agent, from which cloud-init's answer is hidden.
fn compare(machine: &mut Machine, cloud: &str, facts: &[Fact]) -> Result<()> {
    machine.check("cloud-init status --wait > /dev/null || [ $? = 2 ]", LIMIT)?;
    let referee = machine.check("cloud-init query --all", SHORT)?;
    let referee: Value = serde_json::from_str(&referee).context("reading cloud-init's answer")?;
    if referee["v1"]["cloud_id"] == "none" {
        let log = machine.check("cat /run/cloud-init/ds-identify.log", SHORT)?;
        bail!("cloud-init found no data source:\n{log}");
    }
    machine.check(&format!("mv {DATA} {DATA}.aside"), SHORT)?;
    let output = machine.run("gpuk-agent facts --json", SHORT)?;
    let config = machine.run("gpuk-agent config show", SHORT)?;
    machine.check(&format!("mv {DATA}.aside {DATA}"), SHORT)?;
    let agent: Value =
        serde_json::from_str(&output.stdout).with_context(|| format!("reading the agent's facts: {}", output.stderr))?;
    ensure!(agent["instance"]["cloud"] == cloud, "the agent takes {cloud} for {}", agent["instance"]["cloud"]);
    for (expected, found) in facts {
        let expected = referee.pointer(expected).with_context(|| format!("cloud-init has no {expected}: {}", referee["ds"]))?;
        ensure!(
            !expected.is_null() && agent.pointer(found) == Some(expected),
            "{found} must be {expected}: {}",
            agent["instance"]
        );
    }
    say(format_args!("{cloud}: {} facts agree, {} after power-on", facts.len(), seconds(machine.uptime())));
    let user_data = referee["userdata"].as_str().unwrap_or_default();
    ensure!(user_data.contains("example.com/from"), "cloud-init has other user-data: {user_data:?}");
    ensure!(config.stdout.contains("example.com/from"), "the agent has other user-data:\n{}{}", config.stdout, config.stderr);
    Ok(())
}

/// User-data that says nothing but that it was read.
const MARK: &str = "#cloud-config\ngpuk: {node: {labels: {example.com/from: user-data}}}\n";

/// User-data for a node of this cluster, with the same mark.
fn marked(stage: &Stage) -> Result<String> {
    Ok(stage.way_in()?.user_data() + "  node: {labels: {example.com/from: user-data}}\n")
}

fn instance(cloud: Cloud, user_data: &str) -> Instance {
    Instance { user_data: user_data.as_bytes().to_vec(), ..Instance::example(cloud) }
}

#[test]
fn on_ec2_a_machine_joins_and_knows_what_cloud_init_knows() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let cloud = Cloud::Ec2(Tokens::Required);
    let mut place = Place::new(cloud, instance(cloud, &marked(&stage)?), &[stage.cluster.port()])?;
    place.open()?;
    let mut machine = Machine::boot(&for_clouds(&stage.image)?, place.machine())?;
    watched(&mut machine, |machine| {
        let name = place.instance.instance_id.as_str();
        let node = stage.cluster.wait_ready(name, LIMIT)?;
        say(format_args!("Ready {} after power-on", seconds(machine.uptime())));
        wait_for_agent(machine, LIMIT)?;
        ensure!(doctor(machine)?.code == 0, "the doctor does not call a Ready node healthy");
        let provider_id = format!("aws:///eu-west-1a/{name}");
        ensure!(node["spec"]["providerID"] == provider_id, "spec.providerID is {}", node["spec"]["providerID"]);
        compare(machine, "ec2", EC2)
    })
}

#[test]
fn on_every_other_cloud_the_agent_knows_what_cloud_init_knows() -> Result<()> {
    let image = for_clouds(&Stage::image()?)?;
    for (cloud, name, facts) in
        [(Cloud::Gce, "gce", GCE), (Cloud::Azure, "azure", AZURE), (Cloud::OpenStack, "openstack", OPENSTACK)]
    {
        let mut place = Place::new(cloud, instance(cloud, MARK), &[])?;
        place.open()?;
        let mut machine = Machine::boot(&image, place.machine())?;
        watched(&mut machine, |machine| compare(machine, name, facts)).with_context(|| format!("on {name}"))?;
    }
    Ok(())
}

/// OpenStack without a service: the same files on a disc.
#[test]
fn with_a_config_drive_the_agent_knows_what_cloud_init_knows() -> Result<()> {
    let image = for_clouds(&Stage::image()?)?;
    let place = Place::new(Cloud::OpenStack, instance(Cloud::OpenStack, MARK), &[])?;
    // cloud-init looks for discs before udev loads drivers for them, which elsewhere an initrd has done.
    let options = MachineOptions {
        disc: Disc::ConfigDrive(place.instance.config_drive()),
        kernel_line: "ds=ConfigDrive".to_owned(),
        ..place.machine()
    };
    let mut machine = Machine::boot(&image, options)?;
    watched(&mut machine, |machine| compare(machine, "openstack", OPENSTACK))
}

#[test]
fn a_late_service_is_waited_for_and_named() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let cloud = Cloud::Ec2(Tokens::Required);
    let mut place = Place::new(cloud, instance(cloud, &marked(&stage)?), &[stage.cluster.port()])?;
    // cloud-init would wait before the agent is started at all.
    let options = MachineOptions { kernel_line: "cloud-init=disabled".to_owned(), ..place.machine() };
    let mut machine = Machine::boot(&for_clouds(&stage.image)?, options)?;
    watched(&mut machine, |machine| {
        let line = machine.wait_for_line(METADATA, LIMIT)?;
        say(format_args!("{} after power-on: {}", seconds(line.at), line.text.trim()));
        ensure!(line.text.contains("wait"), "this does not say that something is waited for: {}", line.text);
        place.open()?;
        stage.cluster.wait_ready(&place.instance.instance_id, LIMIT)?;
        wait_for_agent(machine, LIMIT)
    })
}

#[test]
fn a_copied_disk_becomes_a_node_of_its_own_and_the_original_stays() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let with_id = |id: &str| -> Result<MachineOptions> {
        let meta_data = format!("local-hostname: host-of-{id}\n");
        Ok(MachineOptions { meta_data, ..MachineOptions::new(id, &marked(&stage)?) })
    };
    let cluster = &stage.cluster;
    let mut original = Machine::boot(&stage.image, with_id("i-original")?)?;
    let (name, before) = watched(&mut original, |machine| {
        wait_for_agent(machine, LIMIT)?;
        compare(machine, "nocloud", NOCLOUD)?;
        let name = node_name(machine)?;
        let node = cluster.wait_ready(&name, LIMIT)?;
        machine.shut_down(LIMIT)?;
        Ok((name, node))
    })?;
    let lease = cluster.lease(&name)?;

    let mut copy = original.boot_copy(with_id("i-copy")?)?;
    let copied_name = watched(&mut copy, |machine| {
        wait_for_agent(machine, LIMIT)?;
        let copied_name = node_name(machine)?;
        ensure!(copied_name != name, "the copy calls itself {name} too");
        cluster.wait_ready(&copied_name, LIMIT)?;
        ensure!(cluster.lease(&name)? == lease, "the copy renewed the lease of {name}");
        let unchanged = cluster.node(&name)?.is_some_and(|node| lasting(&node) == lasting(&before));
        ensure!(unchanged, "the copy changed node {name}");
        let script = "openssl x509 -noout -subject -in /var/lib/kubelet/pki/kubelet-client-current.pem";
        let subject = machine.check(script, SHORT)?;
        ensure!(subject.contains(&format!("system:node:{copied_name}")), "the copy's kubelet is {subject}");
        machine.power_off_hard()?;
        Ok(copied_name)
    })?;

    original.power_on()?;
    watched(&mut original, |machine| {
        let boot = machine.boot_id(LIMIT)?;
        let node = cluster.wait_ready_in_boot(&name, &boot, LIMIT)?;
        ensure!(node["metadata"]["uid"] == before["metadata"]["uid"], "the original is another node than before");
        wait_for_agent(machine, LIMIT)?;
        ensure!(node_name(machine)? == name && cluster.node(&copied_name)?.is_some(), "a node lost its name");
        Ok(())
    })
}

fn node_name(machine: &mut Machine) -> Result<String> {
    let facts = machine.run("gpuk-agent facts --json", SHORT)?.stdout;
    let facts: Value = serde_json::from_str(&facts).context("reading the agent's facts")?;
    Ok(facts["node"].as_str().context("the agent has no name for this node")?.to_owned())
}

/// What nobody but the node itself or a person changes on a Node.
fn lasting(node: &Value) -> [&Value; 5] {
    let information = &node["status"]["nodeInfo"];
    [
        &node["metadata"]["uid"],
        &node["metadata"]["labels"],
        &node["status"]["addresses"],
        &information["bootID"],
        &information["machineID"],
    ]
}
