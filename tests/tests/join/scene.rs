//! Many machines on one thread, before one real control plane.

use std::sync::Arc;
use std::time::Duration;

use integration::joiner::Orders;
use integration::proxy::Faces;
use vm_tests::cluster::Reachable;
use vm_tests::{Cluster, ClusterOptions, Parts};

/// A control plane, and what a proxy before it can pretend.
pub struct Scene {
    pub cluster: Cluster,
    pub faces: Arc<Faces>,
}

impl Scene {
    pub fn set(options: ClusterOptions) -> Self {
        let options = ClusterOptions { reachable: Reachable::FromHere, ..options };
        let cluster = Cluster::start(&Parts::open().unwrap(), options).unwrap();
        let faces = Faces::of(cluster.directory());
        Self { cluster, faces }
    }

    /// What a machine of this name is told.
    pub fn orders(&self, name: &str, endpoint: String) -> Orders {
        Orders {
            endpoints: vec![endpoint],
            token: self.cluster.token().to_owned(),
            pin: Some(self.cluster.ca_cert_hash().unwrap()),
            name: name.to_owned(),
            request_limit: Duration::from_secs(5),
            pace: 1,
            kubelet_pause: Duration::from_millis(50),
        }
    }

    /// The names of its Nodes.
    pub fn nodes(&self) -> Vec<String> {
        let names = self.cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).unwrap();
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// What nobody may ever be told.
    pub fn secret(&self) -> &'static str {
        self.cluster.token().split_once('.').unwrap().1
    }
}

/// Runs to the end what must stay on one thread.
pub fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// The files below a folder that hold this text.
pub fn files_with(root: &std::path::Path, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let found = integration::snapshot(root).into_iter().filter(|(_, bytes)| holds(bytes));
    found.map(|(path, _)| path.display().to_string()).collect()
}

/// A number from the environment.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
