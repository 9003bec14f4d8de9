//! What a cloud knows of one of its machines.

use std::collections::BTreeMap;

use crate::cloud::Cloud;

/// One machine as its cloud describes it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// E.g. `i-0123456789abcdef0` (EC2), digits (GCE, Linode), a UUID (Azure, OpenStack).
    pub instance_id: String,
    /// What its owner calls it.
    pub name: String,
    /// E.g. `eu-west-1`.
    pub region: String,
    /// E.g. `eu-west-1a`; on Azure the digit alone. `None`: the cloud has no zones there.
    pub zone: Option<String>,
    /// E.g. `g4dn.xlarge`.
    pub instance_type: String,
    /// The IPv4 address in the cloud's own network.
    pub address: String,
    /// The MAC address of its first interface.
    pub mac: String,
    /// Tags (EC2, Azure, Linode), attributes (GCE), `meta` (OpenStack), further keys of `meta-data` (NoCloud).
    pub tags: BTreeMap<String, String>,
    /// Empty: it was given none.
    pub user_data: Vec<u8>,
    /// For NoCloud and OpenStack. Empty: it was given none.
    pub vendor_data: Vec<u8>,
    /// SSH keys by name (EC2, OpenStack).
    pub public_keys: BTreeMap<String, String>,
    /// GCE's project.
    pub project: String,
    /// Azure's subscription, a UUID.
    pub subscription: String,
    /// Azure's resource group.
    pub resource_group: String,
}

impl Machine {
    /// A machine with an id, a type and a place as that cloud would give them, one tag and no user-data.
    pub fn example(cloud: Cloud) -> Self {
        let (instance_id, region, zone, instance_type) = match cloud {
            Cloud::Ec2(_) => ("i-0123456789abcdef0", "eu-west-1", Some("eu-west-1a"), "g4dn.xlarge"),
            Cloud::Gce => ("4520031799277581759", "europe-west4", Some("europe-west4-b"), "n1-standard-4"),
            Cloud::Azure => ("02aab8a4-74ef-476e-8182-f6d2ba4166a6", "westeurope", Some("1"), "Standard_NC4as_T4_v3"),
            Cloud::OpenStack => ("d8e02d56-2648-49a3-bf97-6be8f1204f38", "RegionOne", Some("nova"), "gpu.t4"),
            Cloud::Linode => ("12345678", "us-east", None, "g1-gpu-rtx6000-1"),
            Cloud::NoCloud => ("i-nocloud", "lab", Some("rack-1"), "gpu-server"),
        };
        Self {
            instance_id: instance_id.to_owned(),
            name: "gpu-worker-1".to_owned(),
            region: region.to_owned(),
            zone: zone.map(str::to_owned),
            instance_type: instance_type.to_owned(),
            address: "10.0.2.15".to_owned(),
            mac: "52:54:00:12:34:56".to_owned(),
            tags: BTreeMap::from([("environment".to_owned(), "test".to_owned())]),
            user_data: Vec::new(),
            vendor_data: Vec::new(),
            public_keys: BTreeMap::new(),
            project: "example-project".to_owned(),
            subscription: "8d10da13-8125-4ba9-a717-bf7490507b3d".to_owned(),
            resource_group: "example-group".to_owned(),
        }
    }

    /// The files of its OpenStack config drive by their paths; the disc must have the label `config-2`.
    pub fn config_drive(&self) -> Vec<(String, Vec<u8>)> {
        crate::openstack::config_drive(self)
    }
}
