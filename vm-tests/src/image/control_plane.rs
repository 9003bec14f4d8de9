//! A control plane node runs its programs from container images, which must be in the store of its containerd: nothing can be pulled.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::oci::SingleProgram;
use crate::parts::{KUBERNETES, Parts, Program};

/// The images of `kubeadm config images list` for this version, and what is in each.
const PROGRAMS: [(&str, Program); 4] = [
    ("kube-apiserver", Program::ApiServer),
    ("kube-controller-manager", Program::ControllerManager),
    ("kube-scheduler", Program::Scheduler),
    ("etcd", Program::Etcd),
];
const ETCD_TAG: &str = "3.6.5-0";

/// Stand for the images of kube-proxy and CoreDNS: kubeadm looks whether they are there. Nothing in a test runs them.
const STAND_INS: [&str; 2] = ["registry.k8s.io/kube-proxy:v1.34.4", "registry.k8s.io/coredns/coredns:v1.12.1"];

/// Each image's full name and its program.
pub(super) fn programs(parts: &Parts) -> Result<Vec<(String, PathBuf)>> {
    let image = |(name, program): (&str, Program)| {
        let tag = if program == Program::Etcd { ETCD_TAG } else { KUBERNETES };
        Ok((format!("registry.k8s.io/{name}:{tag}"), parts.program(program)?))
    };
    PROGRAMS.into_iter().map(image).collect()
}

/// Ready to be written; none where there are no programs.
pub(super) fn images<'a>(root: &Path, programs: &'a [(String, PathBuf)]) -> Vec<SingleProgram<'a>> {
    if programs.is_empty() {
        return Vec::new();
    }
    let name = |program: &Path| program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let real = programs.iter().map(|(image, program)| SingleProgram {
        name: image,
        program: program.clone(),
        place: format!("usr/local/bin/{}", name(program)),
        command: &[],
    });
    let busybox = root.join("usr/bin/busybox");
    let stand_ins = STAND_INS.iter().map(|image| SingleProgram {
        name: image,
        program: busybox.clone(),
        place: "bin/sleep".to_owned(),
        command: &["/bin/sleep", "2147483647"],
    });
    real.chain(stand_ins).collect()
}
