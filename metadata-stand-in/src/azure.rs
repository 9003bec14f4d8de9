//! Azure's metadata is a JSON document for each version of its interface (Azure documentation, "Azure Instance Metadata
//! Service for virtual machines").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::machine::Machine;

/// The versions of the interface, oldest first.
const VERSIONS: &[&str] = &[
    "2017-04-02",
    "2017-08-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-08-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
];

const PROVIDER: &str = "providers/Microsoft.Compute/virtualMachines";

pub(crate) fn answer(machine: &Machine, request: &Request) -> Answer {
    match request.path.trim_end_matches('/') {
        "/machine" => return wire_server(machine, request),
        "/metadata/versions" | "/metadata/scheduledevents" => {}
        path if path == "/metadata/instance" || path.starts_with("/metadata/instance/") => {}
        _ => return error(404, "Not found"),
    }
    if request.method != "GET" {
        return error(405, "Method not allowed");
    }
    if request.header("metadata").is_none_or(|value| !value.eq_ignore_ascii_case("true")) {
        return error(400, "Bad request. Required metadata header not specified");
    }
    if request.header("x-forwarded-for").is_some() {
        return error(400, "Bad request. X-Forwarded-For header is not allowed");
    }
    if request.path == "/metadata/versions" {
        return json_answer(&json!({"apiVersions": VERSIONS}));
    }
    let Some(version) = request.parameter("api-version") else {
        let newest: Vec<&&str> = VERSIONS.iter().rev().take(3).collect();
        let body = json!({"error": "Bad request. api-version was not specified in the request", "newest-versions": newest});
        return Answer::of(400, "application/json; charset=utf-8", body.to_string());
    };
    if request.path.starts_with("/metadata/scheduledevents") {
        return json_answer(&json!({"DocumentIncarnation": 1, "Events": []}));
    }
    if !VERSIONS.contains(&version) {
        return error(400, "Bad request. api-version is invalid or was not specified in the request.");
    }
    let mut document = document(machine, version);
    for name in request.path.trim_start_matches("/metadata/instance").split('/').filter(|name| !name.is_empty()) {
        let next = match &mut document {
            Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get_mut(index)),
            other => other.get_mut(name),
        };
        let Some(next) = next else { return error(404, "Not found") };
        document = next.take();
    }
    match (request.parameter("format"), &document) {
        (Some("text"), Value::String(text)) => Answer::of(200, "text/plain; charset=utf-8", text.clone()),
        (Some("text"), Value::Object(children)) => {
            let names: Vec<String> =
                children.iter().map(|(name, child)| format!("{name}{}", if child.is_string() { "" } else { "/" })).collect();
            Answer::of(200, "text/plain; charset=utf-8", names.join("\n"))
        }
        (_, Value::String(_)) => error(400, "Bad request. A leaf is read with format=text"),
        _ => json_answer(&document),
    }
}

fn json_answer(value: &Value) -> Answer {
    Answer::of(200, "application/json; charset=utf-8", value.to_string())
}

fn error(status: u16, text: &str) -> Answer {
    Answer::of(status, "application/json; charset=utf-8", json!({"error": text}).to_string())
}

fn document(machine: &Machine, version: &str) -> Value {
    let Machine { name, subscription, resource_group, .. } = machine;
    let tags: Vec<Value> = machine.tags.iter().map(|(key, value)| json!({"name": key, "value": value})).collect();
    let flat: Vec<String> = machine.tags.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    let mut compute = json!({
        "azEnvironment": "AzurePublicCloud",
        "customData": "",
        "isHostCompatibilityLayerVm": "false",
        "location": machine.region,
        "name": name,
        "offer": "debian-13",
        "osType": "Linux",
        "osProfile": {"adminUsername": "azureuser", "computerName": name, "disablePasswordAuthentication": "true"},
        "placementGroupId": "",
        "plan": {"name": "", "product": "", "publisher": ""},
        "priority": "",
        "provider": "Microsoft.Compute",
        "publicKeys": [],
        "publisher": "debian",
        "resourceGroupName": resource_group,
        "resourceId":
            format!("/subscriptions/{subscription}/resourceGroups/{resource_group}/{PROVIDER}/{name}"),
        "sku": "13-gen2",
        "subscriptionId": subscription,
        "tags": flat.join(";"),
        "version": "0.20250814.2204",
        "vmId": machine.instance_id,
        "vmScaleSetName": "",
        "vmSize": machine.instance_type,
        "zone": machine.zone.clone().unwrap_or_default(),
    });
    // Dates in this form sort as texts.
    if version >= "2019-06-04" {
        compute["tagsList"] = tags.into();
    }
    if version >= "2021-01-01" {
        compute["userData"] = STANDARD.encode(&machine.user_data).into();
    }
    let subnet = machine.address.rsplit_once('.').map_or_else(String::new, |(network, _)| format!("{network}.0"));
    json!({
        "compute": compute,
        "network": {"interface": [{
            "ipv4": {
                "ipAddress": [{"privateIpAddress": machine.address, "publicIpAddress": ""}],
                "subnet": [{"address": subnet, "prefix": "24"}],
            },
            "ipv6": {"ipAddress": []},
            "macAddress": machine.mac.replace(':', "").to_uppercase(),
        }]},
    })
}

/// The wire server (168.63.129.16) as far as cloud-init asks it before it calls a machine provisioned: a goal state, and a
/// report of health.
fn wire_server(machine: &Machine, request: &Request) -> Answer {
    match (request.method.as_str(), request.parameter("comp")) {
        ("GET", Some("goalstate")) => {
            let goal_state = format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<GoalState><Version>2012-11-30</Version><Incarnation>1</Incarnation>\
                 <Machine><ExpectedState>Started</ExpectedState></Machine><Container><ContainerId>stand-in</ContainerId>\
                 <RoleInstanceList><RoleInstance><InstanceId>{}</InstanceId><State>Started</State></RoleInstance></RoleInstanceList>\
                 </Container></GoalState>\n",
                machine.instance_id
            );
            Answer::of(200, "text/xml; charset=utf-8", goal_state)
        }
        ("POST", Some("health" | "telemetrydata")) => Answer::text(""),
        _ => Answer::error(404),
    }
}
