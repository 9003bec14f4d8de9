//! The catalog is the story of a boot: what must be true of a node, in the order in which it becomes true.

use crate::config::Role;
use crate::step::Step;
use crate::steps::{
    allocatable::Allocatable, cdi::Cdi, containerd::Containerd, driver::Driver, gpu_faults::GpuFaults, gpus::Gpus,
    hostname::Hostname, identity::OwnIdentity, join::Join, kernel::Kernel, kubelet::Kubelet, labels::Labels, mig::Mig,
    modules::Modules, node::Node, observed::Observed, redirects::Redirects, runtime_class::RuntimeClass, toolkit::Toolkit,
    trial::Trial,
};

/// Every step of a role, in order. A step comes after those it needs. A node that someone else manages is only looked at.
pub fn steps(role: Role) -> Vec<Box<dyn Step>> {
    if role == Role::Observed {
        return vec![Box::new(Observed)];
    }
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(OwnIdentity),
        Box::new(Hostname),
        Box::new(Kernel),
        Box::new(Redirects),
        Box::new(Containerd),
        Box::new(Kubelet),
        Box::new(Join),
        Box::new(Node),
    ];
    if role == Role::ControlPlane {
        steps.push(Box::new(RuntimeClass));
    }
    let of_gpus: Vec<Box<dyn Step>> = vec![
        Box::new(Toolkit),
        Box::new(Driver),
        Box::new(Modules),
        Box::new(GpuFaults),
        Box::new(Gpus),
        Box::new(Mig),
        Box::new(Cdi),
        Box::new(Trial),
        Box::new(Labels),
        Box::new(Allocatable),
    ];
    steps.extend(of_gpus);
    steps
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_step_comes_after_those_it_needs() {
        use crate::config::Role;
        let all = [Role::Worker, Role::ControlPlane].map(super::steps);
        for (steps, (position, step)) in all.iter().flat_map(|steps| steps.iter().enumerate().map(move |step| (steps, step))) {
            for need in step.needs() {
                assert!(steps[..position].iter().any(|earlier| earlier.name() == *need), "{} needs {need}", step.name());
            }
            let mut before = steps[..position].iter().filter(|earlier| earlier.lane() == step.lane());
            assert!(before.all(|earlier| earlier.stage() <= step.stage() || earlier.stage() == crate::step::Stage::Boot));
        }
    }
}
