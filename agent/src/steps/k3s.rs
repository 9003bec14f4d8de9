//! k3s is a kubelet, a container runtime and a load balancer in one program, and says of most of its troubles only that its server is not ready.
//!
//! So the agent asks the server itself, writes down what k3s reads at every start, and leaves the rest to k3s. Everything here is written
//! from k3s's sources and documentation and was never seen with k3s itself; `docs/k3s.md` says what follows from that.

mod authority;
mod configuration;
mod containerd;
mod discovery;
mod elsewhere;
mod installed;
mod joined;
mod joining;
mod load_balancer;
mod log;
mod target;
mod telling;
#[cfg(test)]
mod tests;
mod trouble;
mod verdict;

use crate::config::{ClusterKind, Config, Role};

pub use containerd::{containerd, runtime_for_gpus};
pub use elsewhere::elsewhere;
pub use installed::kubelet;
pub use joining::join;

/// The unit of an agent, as k3s's install script names it.
pub const AGENT_UNIT: &str = "k3s-agent.service";

/// The unit of a server, which is an agent as well.
pub const SERVER_UNIT: &str = "k3s.service";

/// Whether the node is to be k3s's.
pub fn is_wanted(config: &Config) -> bool {
    config.cluster.kind == ClusterKind::K3s
}

/// The unit that runs k3s in this role.
pub fn unit(config: &Config) -> &'static str {
    if config.node.role == Role::ControlPlane { SERVER_UNIT } else { AGENT_UNIT }
}
