//! A NoCloud seed server is a folder of plain files on any web server (cloud-init documentation, "NoCloud").

use crate::http::{Answer, Request};
use crate::machine::Machine;

pub(crate) fn answer(machine: &Machine, request: &Request) -> Answer {
    if request.method != "GET" {
        return Answer::error(405);
    }
    let file = |bytes: &[u8]| Answer::of(200, "application/octet-stream", bytes);
    match request.path.rsplit('/').next() {
        Some("meta-data") => file(meta_data(machine).as_bytes()),
        Some("user-data") => file(&machine.user_data),
        Some("vendor-data") if !machine.vendor_data.is_empty() => file(&machine.vendor_data),
        _ => Answer::error(404),
    }
}

/// YAML; JSON's strings are YAML's too.
fn meta_data(machine: &Machine) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut lines = format!("instance-id: {}\nlocal-hostname: {}\n", text(&machine.instance_id), text(&machine.name));
    lines += &format!("region: {}\ninstance-type: {}\n", text(&machine.region), text(&machine.instance_type));
    if let Some(zone) = &machine.zone {
        lines += &format!("availability-zone: {}\n", text(zone));
    }
    for (key, value) in &machine.tags {
        lines += &format!("{}: {}\n", text(key), text(value));
    }
    lines
}
