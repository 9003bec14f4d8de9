//! An agent of k3s reaches its servers through a load balancer of its own, which keeps the addresses that it once learned in a file.
//!
//! When every server was replaced while the registration address stayed, the file leads nowhere, and the agent does not always go back to
//! the address that it was told (k3s#11349). Without the file it starts from that address alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use serde::Deserialize;

use crate::look::Look;
use crate::step::Change;

/// Of the supervisor, and of the API server where that has another port (k3s, `pkg/agent/loadbalancer`).
const FILES: [&str; 2] = [
    "/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json",
    "/var/lib/rancher/k3s/agent/etc/k3s-api-server-agent-load-balancer.json",
];

/// How long a server may take to accept a connection.
const LIMIT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Kept {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(rename = "ServerAddresses", default)]
    addresses: Option<Vec<String>>,
}

/// The files in which no address is alive though they are for this server, which is: why, and what takes them away (their bytes are kept).
pub async fn stale(look: Look<'_>, server: &str) -> Result<Option<(String, Vec<Change>)>> {
    let (mut why, mut changes) = (Vec::new(), Vec::new());
    for path in FILES {
        // k3s itself passes over a file that it cannot read, or that is for another server, and writes it anew.
        let kept = look.read(path)?.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let Some(kept) = kept.filter(|kept| kept.server.trim_end_matches('/') == server) else { continue };
        let addresses = kept.addresses.unwrap_or_default();
        let sockets: Vec<SocketAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        // A name may have another address by now.
        if sockets.is_empty() || sockets.len() < addresses.len() {
            continue;
        }
        let alive = join_all(sockets.iter().map(|socket| look.connect(*socket, None, LIMIT))).await;
        if alive.iter().all(Result::is_err) {
            why.push(format!("{path} knows only {}, where nobody answers, while {server} does", addresses.join(", ")));
            changes.push(Change::Remove { path: path.into(), secret: false });
        }
    }
    Ok((!changes.is_empty()).then(|| (why.join("; "), changes)))
}
