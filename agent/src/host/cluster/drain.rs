//! A pod is asked to leave by an eviction, which its PodDisruptionBudget may refuse for now (Kubernetes documentation, "API-initiated Eviction").

use std::time::Duration;

use serde_json::{Value, json};

use super::{ApiServer, ClusterError};

/// How often it is looked who is still there, and refused evictions are tried again.
const PERIOD: Duration = Duration::from_secs(1);

/// Evicts every pod of the node that can go elsewhere, until none is left. The caller limits it.
pub async fn evict_all(server: &ApiServer, node: &str) -> Result<(), ClusterError> {
    loop {
        let pods = server.request(get(&format!("/api/v1/pods?fieldSelector=spec.nodeName={node}"))?).await?.unwrap_or_default();
        let leaving: Vec<(String, String, bool)> = pods["items"].as_array().into_iter().flatten().filter_map(movable).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        for (namespace, name, _) in leaving.iter().filter(|(.., is_going)| !is_going) {
            match evict(server, namespace, name).await {
                // Its budget allows no eviction at the moment.
                Ok(()) | Err(ClusterError::Refused(429, _)) => {}
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// How many pods of the node could go elsewhere and are not on their way.
pub async fn staying(server: &ApiServer, node: &str) -> Result<usize, ClusterError> {
    let pods = server.request(get(&format!("/api/v1/pods?fieldSelector=spec.nodeName={node}"))?).await?.unwrap_or_default();
    Ok(pods["items"].as_array().into_iter().flatten().filter_map(movable).filter(|(.., is_going)| !is_going).count())
}

/// Namespace, name, and whether it is on its way, of a pod that somebody makes anew elsewhere; `None` for all others.
fn movable(pod: &Value) -> Option<(String, String, bool)> {
    let metadata = &pod["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    let is_daemon = owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "DaemonSet"));
    let is_static = !metadata["annotations"]["kubernetes.io/config.mirror"].is_null();
    let is_over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if is_daemon || is_static || is_over {
        return None;
    }
    let text = |key: &str| metadata[key].as_str().map(str::to_owned);
    Some((text("namespace")?, text("name")?, !metadata["deletionTimestamp"].is_null()))
}

async fn evict(server: &ApiServer, namespace: &str, name: &str) -> Result<(), ClusterError> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": name}});
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction"))
        .header("content-type", "application/json")
        .body(eviction.to_string().into_bytes());
    // One that is gone already is gone.
    server.request(request.map_err(|error| unusable(name, &error))?).await.map(drop)
}

fn get(path: &str) -> Result<http::Request<Vec<u8>>, ClusterError> {
    http::Request::get(path).body(Vec::new()).map_err(|error| unusable(path, &error))
}

fn unusable(name: &str, error: &http::Error) -> ClusterError {
    ClusterError::Unreachable(format!("{name:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_nobody_makes_anew_elsewhere_stay() {
        let pod = |extra: Value| {
            let mut pod = json!({"metadata": {"namespace": "n", "name": "p"}, "status": {"phase": "Running"}});
            for (key, value) in extra.as_object().into_iter().flatten() {
                pod["metadata"][key] = value.clone();
            }
            pod
        };
        assert_eq!(movable(&pod(json!({}))), Some(("n".to_owned(), "p".to_owned(), false)));
        assert_eq!(movable(&pod(json!({"ownerReferences": [{"kind": "ReplicaSet"}]}))).map(|(.., going)| going), Some(false));
        assert_eq!(movable(&pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))).map(|(.., going)| going), Some(true));
        assert_eq!(movable(&pod(json!({"ownerReferences": [{"kind": "DaemonSet"}]}))), None);
        assert_eq!(movable(&pod(json!({"annotations": {"kubernetes.io/config.mirror": "x"}}))), None);
        let mut over = pod(json!({}));
        over["status"]["phase"] = "Succeeded".into();
        assert_eq!(movable(&over), None);
    }
}
