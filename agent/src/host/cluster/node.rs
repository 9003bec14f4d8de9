//! A Node is read for what it says of one machine, and written for what that machine says of itself (Kubernetes API, `v1.Node`).

use std::collections::BTreeMap;

use serde_json::Value;

/// This node as the API server knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: a Node that was deleted and registers again has another one.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `status.nodeInfo.machineID`.
    pub machine_id: String,
    /// `status.nodeInfo.systemUUID`, which the kubelet reads from DMI `product_uuid`.
    pub system_uuid: String,
    /// The first `InternalIP` of `status.addresses`.
    pub address: String,
    /// `status.nodeInfo.bootID`.
    pub boot_id: String,
    /// All conditions.
    pub conditions: Vec<Condition>,
    /// When the condition `Ready` last changed its status (RFC 3339).
    pub ready_since: String,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints`, as `kubectl taint` takes them.
    pub taints: Vec<String>,
    /// How many GPUs the device plugin offers, and how many of these it calls healthy; `None` where it never registered.
    pub gpus: Option<Offered>,
}

/// What the device plugin offers: the sum over `nvidia.com/gpu` and MIG's `nvidia.com/mig-...` (Kubernetes documentation, "Schedule GPUs").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// `status.capacity`.
    pub capacity: u64,
    /// `status.allocatable`.
    pub allocatable: u64,
}

impl Node {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Its kubelet reports, and that it can run pods.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|ready| ready.status == "True")
    }

    /// From the API's JSON; what is absent is empty.
    pub fn from_json(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let text_of = |element: Option<&Value>, name: &str| {
            element.and_then(|element| element.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let conditions = list("/status/conditions");
        let address = list("/status/addresses").find(|address| address["type"] == "InternalIP");
        let ready = list("/status/conditions").find(|condition| condition["type"] == "Ready");
        Self {
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            labels: labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
            machine_id: text("/status/nodeInfo/machineID"),
            system_uuid: text("/status/nodeInfo/systemUUID"),
            address: text_of(address, "address"),
            ready_since: text_of(ready, "lastTransitionTime"),
            boot_id: text("/status/nodeInfo/bootID"),
            conditions: conditions
                .map(|condition| {
                    let field = |name: &str| text_of(Some(condition), name);
                    Condition { kind: field("type"), status: field("status"), reason: field("reason"), message: field("message") }
                })
                .collect(),
            taints: list("/spec/taints").map(taint).collect(),
            gpus: offered(object),
            unschedulable: object.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false),
        }
    }
}

/// One Node condition, as far as its meaning goes (times are the API's business).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `type`, e.g. `NodeBootstrapped`.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// One thing that happened to this node, for people who ask `kubectl events` (Kubernetes API, core `v1.Event`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

fn taint(taint: &Value) -> String {
    let field = |name: &str| taint.get(name).and_then(Value::as_str).unwrap_or_default();
    match field("value") {
        "" => format!("{}:{}", field("key"), field("effect")),
        value => format!("{}={value}:{}", field("key"), field("effect")),
    }
}

fn offered(node: &Value) -> Option<Offered> {
    let count = |pointer: &str| {
        let resources = node.pointer(pointer).and_then(Value::as_object)?;
        let is_gpu =
            |name: &str| name == "nvidia.com/gpu" || name == "nvidia.com/gpu.shared" || name.starts_with("nvidia.com/mig-");
        let counts =
            resources.iter().filter(|(name, _)| is_gpu(name)).filter_map(|(_, count)| count.as_str()?.parse::<u64>().ok());
        let counts: Vec<u64> = counts.collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    };
    Some(Offered { capacity: count("/status/capacity")?, allocatable: count("/status/allocatable").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gpus_of_all_kinds_are_counted_and_other_devices_are_not() {
        let node = |capacity: Value, allocatable: Value| {
            Node::from_json(&json!({"status": {"capacity": capacity, "allocatable": allocatable}})).gpus
        };
        assert_eq!(node(json!({"cpu": "4"}), json!({})), None);
        let four = json!({"cpu": "4", "nvidia.com/gpu": "4", "example.com/gpu": "9"});
        assert_eq!(node(four.clone(), json!({"nvidia.com/gpu": "3"})), Some(Offered { capacity: 4, allocatable: 3 }));
        assert_eq!(node(four, json!({})), Some(Offered { capacity: 4, allocatable: 0 }));
        let divided = json!({"nvidia.com/gpu": "0", "nvidia.com/mig-1g.5gb": "7"});
        assert_eq!(node(divided.clone(), divided), Some(Offered { capacity: 7, allocatable: 7 }));
    }

    #[test]
    fn labels_are_those_of_the_metadata() {
        let labels = |object| Node::from_json(&object).labels;
        let expected = BTreeMap::from([("pool".to_owned(), "t4".to_owned()), ("empty".to_owned(), String::new())]);
        assert_eq!(labels(json!({"metadata": {"labels": {"pool": "t4", "empty": ""}}})), expected);
        assert_eq!(labels(json!({"metadata": {}})), BTreeMap::new());
    }
}
