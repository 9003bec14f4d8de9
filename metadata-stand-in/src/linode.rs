//! Linode's metadata is asked for with a token, and is text unless JSON is asked for (Akamai documentation,
//! "Overview of the Metadata service").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::machine::Machine;
use crate::token::Ledger;

/// The longest lifetime of a token, in seconds.
const LONGEST: u64 = 86400;

pub(crate) fn answer(machine: &Machine, request: &Request, ledger: &mut Ledger) -> Answer {
    let wants_json = request.header("accept").is_some_and(|accept| accept.contains("application/json"));
    match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/v1/token") => {
            let Some((token, _)) = ledger.give(request.header("metadata-token-expiry-seconds"), LONGEST) else {
                return Answer::error(400);
            };
            return if wants_json { Answer::json(&json!([token])) } else { Answer::text(token) };
        }
        ("GET", path) if path != "/v1/token" => {}
        _ => return Answer::error(405),
    }
    if !request.header("metadata-token").is_some_and(|token| ledger.knows(token)) {
        return Answer::error(401);
    }
    let document = match request.path.as_str() {
        // Without user-data the body is empty.
        "/v1/user-data" => return Answer::text(STANDARD.encode(&machine.user_data)),
        "/v1/instance" => instance(machine),
        "/v1/network" => json!({
            "interfaces": [],
            "ipv4": {"public": [], "private": [format!("{}/32", machine.address)], "shared": []},
            "ipv6": {"slaac": "2600:3c03::1/128", "link_local": "fe80::1/128", "ranges": [], "shared_ranges": []},
        }),
        "/v1/ssh-keys" => json!({"users": {"root": machine.public_keys.values().collect::<Vec<_>>()}}),
        _ => return Answer::error(404),
    };
    if wants_json { Answer::json(&document) } else { Answer::text(lines(&document, "")) }
}

fn instance(machine: &Machine) -> Value {
    let id = machine.instance_id.parse::<u64>().map_or_else(|_| Value::from(machine.instance_id.clone()), Value::from);
    let tag = |(key, value): (&String, &String)| if value.is_empty() { key.clone() } else { format!("{key}={value}") };
    json!({
        "id": id,
        "label": machine.name,
        "region": machine.region,
        "type": machine.instance_type,
        "specs": {"vcpus": 8, "disk": 655_360, "memory": 32768, "transfer": 16000, "gpus": 1},
        "backups": {"enabled": false, "status": null},
        "host_uuid": "3a3ddd59d9a78bb8de041391075df44de62bfec8",
        "tags": machine.tags.iter().map(tag).collect::<Vec<_>>(),
    })
}

/// A document as lines of text, e.g. `specs.vcpus: 8`.
fn lines(document: &Value, prefix: &str) -> String {
    let Value::Object(children) = document else { return String::new() };
    let line = |(name, child): (&String, &Value)| {
        let name = format!("{prefix}{name}");
        match child {
            Value::Object(_) => lines(child, &format!("{name}.")),
            Value::Array(items) => items.iter().map(|item| format!("{name}: {}\n", plain(item))).collect(),
            leaf => format!("{name}: {}\n", plain(leaf)),
        }
    };
    children.iter().map(line).collect()
}

fn plain(leaf: &Value) -> String {
    leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned)
}
