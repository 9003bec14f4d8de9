//! OpenStack serves the files of its config drive over HTTP (Nova documentation, "Metadata"), and EC2's oldest paths beside them.

use serde_json::{Value, json};

use crate::ec2;
use crate::http::{Answer, Request};
use crate::machine::Machine;

const VERSIONS: &[&str] = &[
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "latest",
];

pub(crate) fn answer(machine: &Machine, request: &Request) -> Answer {
    if request.method != "GET" {
        return Answer::error(404);
    }
    let names: Vec<&str> = request.path.split('/').filter(|name| !name.is_empty()).collect();
    match names.as_slice() {
        ["openstack"] => Answer::text(VERSIONS.join("\n")),
        ["openstack", version] if VERSIONS.contains(version) => {
            let names: Vec<&str> = FILES.iter().filter(|name| file(machine, name).is_some()).copied().collect();
            Answer::text(names.join("\n"))
        }
        ["openstack", version, name] if VERSIONS.contains(version) => match file(machine, name) {
            Some(bytes) if name.ends_with(".json") => Answer::of(200, "application/json", bytes),
            Some(bytes) => Answer::of(200, "application/octet-stream", bytes),
            None => Answer::error(404),
        },
        ["openstack", ..] => Answer::error(404),
        _ => {
            // Nova makes an id in EC2's form and has neither regions nor tokens there.
            let compatible = Machine { instance_id: "i-0000002a".to_owned(), ..machine.clone() };
            ec2::look_up(&ec2::files(&compatible, false), &compatible, &request.path, false)
        }
    }
}

const FILES: &[&str] = &["meta_data.json", "network_data.json", "user_data", "vendor_data.json", "vendor_data2.json"];

/// The files of its config drive by their paths: a disc with the label `config-2`.
pub(crate) fn config_drive(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let present = FILES.iter().filter_map(|name| Some((format!("openstack/latest/{name}"), file(machine, name)?)));
    present.collect()
}

/// One file of the config drive's folder `openstack/latest`; `None`: a machine like this has no such file.
fn file(machine: &Machine, name: &str) -> Option<Vec<u8>> {
    Some(match name {
        "meta_data.json" => meta_data(machine).to_string().into_bytes(),
        "network_data.json" => {
            let link = json!({"id": "interface0", "vif_id": "d5dc53cc-1a34-4f2c-9d5c-2d8f2a3a5ea4", "type": "ovs", "mtu": 1500,
                "ethernet_mac_address": machine.mac});
            let network = json!({"id": "network0", "type": "ipv4_dhcp", "link": "interface0",
                "network_id": "2a9d0f1e-2f2f-4b0c-a1cb-0ad60d5ba8f8"});
            json!({"links": [link], "networks": [network], "services": []}).to_string().into_bytes()
        }
        "user_data" if !machine.user_data.is_empty() => machine.user_data.clone(),
        "vendor_data.json" if !machine.vendor_data.is_empty() => {
            json!({"cloud-init": String::from_utf8_lossy(&machine.vendor_data)}).to_string().into_bytes()
        }
        "vendor_data.json" | "vendor_data2.json" => b"{}".to_vec(),
        _ => return None,
    })
}

fn meta_data(machine: &Machine) -> Value {
    let keys: Vec<Value> =
        machine.public_keys.iter().map(|(name, key)| json!({"name": name, "type": "ssh", "data": key})).collect();
    let mut data = json!({
        "uuid": machine.instance_id,
        "name": machine.name,
        "hostname": format!("{}.novalocal", machine.name),
        "availability_zone": machine.zone.clone().unwrap_or_else(|| "nova".to_owned()),
        "launch_index": 0,
        "project_id": "f7ac731cc11f40efbc03a9f9e1d1d21f",
        "keys": keys,
        "public_keys": machine.public_keys,
        "devices": [],
    });
    if !machine.tags.is_empty() {
        data["meta"] = json!(machine.tags);
    }
    data
}
