//! GCE's metadata is one tree, read leaf by leaf as text or at once as JSON (Compute Engine documentation, "About VM
//! metadata", "Query VM metadata").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::http::{Answer, Request};
use crate::machine::Machine;

const ROOT: &str = "/computeMetadata/v1";
const PROJECT_NUMBER: u64 = 123_456_789_012;

pub(crate) fn answer(machine: &Machine, request: &Request) -> Answer {
    look_up(machine, request).with("Metadata-Flavor", "Google").with("Server", "Metadata Server for VM")
}

fn look_up(machine: &Machine, request: &Request) -> Answer {
    match request.path.as_str() {
        "/" => return Answer::of(200, "application/text", "0.1/\ncomputeMetadata/\n"),
        path if !path.starts_with(ROOT) => return Answer::error(404),
        _ => {}
    }
    let genuine = request.header("metadata-flavor") == Some("Google") && request.header("x-forwarded-for").is_none();
    if !genuine {
        return Answer::error(403);
    }
    if request.method != "GET" {
        return Answer::error(405);
    }
    let tree = tree(machine);
    let mut node = &tree;
    let mut below_attributes = false;
    for name in request.path[ROOT.len()..].split('/').filter(|name| !name.is_empty()) {
        let next = match node {
            Value::Object(children) => children.get(name),
            Value::Array(children) => name.parse().ok().and_then(|index: usize| children.get(index)),
            _ => None,
        };
        let Some(next) = next else { return Answer::error(404) };
        below_attributes |= name == "attributes";
        node = next;
    }
    let recursive = request.parameter("recursive").is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let folder = is_folder(node);
    if folder && !request.path.ends_with('/') {
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        return Answer::error(301).with("Location", format!("{}/{query}", request.path));
    }
    match node {
        _ if folder && recursive => Answer::json(&camel(node, below_attributes)),
        Value::Object(children) => {
            let lines: String = children.iter().map(|(name, child)| line(name, child)).collect();
            Answer::of(200, "application/text", lines)
        }
        Value::Array(children) if folder => {
            Answer::of(200, "application/text", (0..children.len()).map(|index| format!("{index}/\n")).collect::<String>())
        }
        Value::String(text) => Answer::of(200, "application/text", text.clone()),
        other => Answer::of(200, "application/text", other.to_string()),
    }
}

/// Lists of texts, e.g. of network tags, are leaves and read as JSON.
fn is_folder(node: &Value) -> bool {
    match node {
        Value::Object(_) => true,
        Value::Array(children) => children.iter().any(Value::is_object),
        _ => false,
    }
}

fn line(name: &str, node: &Value) -> String {
    format!("{name}{}\n", if is_folder(node) { "/" } else { "" })
}

/// JSON has `machineType` where paths have `machine-type`; the keys of attributes are their owner's.
fn camel(node: &Value, as_it_is: bool) -> Value {
    let name = |name: &str| {
        let mut words = name.split('-');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
    };
    match node {
        Value::Object(children) if as_it_is => Value::Object(children.clone()),
        Value::Object(children) => {
            children.iter().map(|(key, child)| (name(key), camel(child, key == "attributes"))).collect::<Map<_, _>>().into()
        }
        Value::Array(children) => children.iter().map(|child| camel(child, false)).collect(),
        leaf => leaf.clone(),
    }
}

fn tree(machine: &Machine) -> Value {
    let zone = machine.zone.clone().unwrap_or_else(|| format!("{}-a", machine.region));
    let mut attributes: Map<String, Value> =
        machine.tags.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    if !machine.user_data.is_empty() {
        // Attributes are text. Bytes travel in base64, and a second attribute says so: that one is cloud-init's convention.
        match std::str::from_utf8(&machine.user_data) {
            Ok(text) => attributes.insert("user-data".to_owned(), text.into()),
            Err(_) => {
                attributes.insert("user-data-encoding".to_owned(), "base64".into());
                attributes.insert("user-data".to_owned(), STANDARD.encode(&machine.user_data).into())
            }
        };
    }
    let id = machine.instance_id.parse::<u64>().map_or_else(|_| Value::from(machine.instance_id.clone()), Value::from);
    let network = format!("projects/{PROJECT_NUMBER}/networks/default");
    json!({
        "instance": {
            "attributes": attributes,
            "cpu-platform": "Intel Skylake",
            "description": "",
            "disks": [{"device-name": "boot", "index": 0, "mode": "READ_WRITE", "type": "PERSISTENT-BALANCED"}],
            "hostname": format!("{}.{zone}.c.{}.internal", machine.name, machine.project),
            "id": id,
            "image": "projects/debian-cloud/global/images/debian-13",
            "machine-type": format!("projects/{PROJECT_NUMBER}/machineTypes/{}", machine.instance_type),
            "maintenance-event": "NONE",
            "name": machine.name,
            "network-interfaces": [{"ip": machine.address, "mac": machine.mac, "mtu": 1460, "network": network}],
            "preempted": "FALSE",
            "scheduling": {"automatic-restart": "TRUE", "on-host-maintenance": "TERMINATE", "preemptible": "FALSE"},
            "service-accounts": {},
            "tags": [],
            "zone": format!("projects/{PROJECT_NUMBER}/zones/{zone}"),
        },
        "oslogin": {"authenticate": {}},
        "project": {"attributes": {}, "numeric-project-id": PROJECT_NUMBER, "project-id": machine.project},
    })
}
