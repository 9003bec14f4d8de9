//! On a control plane node lies the administrator's credential: what no node may do, this program does with it there, and only there.

use serde_json::Value;

use super::{ADMINISTRATOR_KUBECONFIG, AGENT, ClusterError, ask, client_of};
use crate::host::files::Files;

/// Server-side apply: what others set of the object stays, and what they hold is a conflict (HTTP 409), never overwritten
/// (Kubernetes documentation, "Server-Side Apply").
pub async fn apply(files: &Files, path: &str, object: &Value) -> Result<(), ClusterError> {
    let client = client_of(files, ADMINISTRATOR_KUBECONFIG.as_ref()).await?;
    let request = http::Request::patch(format!("{path}?fieldManager={AGENT}"))
        .header("content-type", "application/apply-patch+yaml")
        .body(object.to_string().into_bytes())
        .map_err(|error| ClusterError::Unreachable(format!("{path}: {error}")))?;
    match ask(&client, request).await? {
        Some(_) => Ok(()),
        None => Err(ClusterError::Refused(404, format!("{path} not found"))),
    }
}
