//! The control plane alone, without any machine.

use std::time::Duration;

use anyhow::Result;
use vm_tests::cluster::Reachable;
use vm_tests::{Cluster, ClusterOptions, Parts};

#[test]
fn a_control_plane_for_this_machine_starts_stops_and_starts_again() -> Result<()> {
    let parts = Parts::open()?;
    let options = ClusterOptions { reachable: Reachable::FromHere, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(&parts, options)?;
    assert!(cluster.kubectl(&["version"])?.contains("Server Version: v1.34.4"));
    assert!(cluster.endpoint().starts_with("https://127.0.0.1:"));
    assert_eq!(cluster.ca_cert_hash()?.len(), "sha256:".len() + 64);
    assert!(cluster.node("nobody")?.is_none());

    cluster.create_token("fedcba.9876543210fedcba", "2h")?;
    assert!(cluster.object(&["secret", "bootstrap-token-fedcba", "-n", "kube-system"])?.is_some());

    cluster.configure_kubelets("clientCAFile", "/no/such/file")?;
    let kubelets = cluster.kubelet_configuration()?;
    assert!(kubelets.contains("\n    clientCAFile: /no/such/file\n"), "{kubelets}");

    cluster.stop_api_server()?;
    assert!(cluster.kubectl(&["get", "--raw", "/readyz"]).is_err());
    cluster.start_api_server()?;
    assert!(cluster.wait_ready("nobody", Duration::from_millis(500)).is_err());
    Ok(())
}
