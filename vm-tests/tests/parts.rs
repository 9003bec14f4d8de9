//! The parts that no other test of this package asks for.

use std::process::Command;

use anyhow::{Result, ensure};
use vm_tests::{Containerd, Parts};

#[test]
fn every_containerd_runs_here() -> Result<()> {
    let parts = Parts::open()?;
    for (which, version) in [(Containerd::Debian12, " 1.6."), (Containerd::Debian13, " 1.7."), (Containerd::Go2, " v2.")] {
        let binaries = parts.containerd(which)?;
        for program in ["containerd", "containerd-shim-runc-v2", "ctr", "runc"] {
            let option = if program == "containerd-shim-runc-v2" { "-v" } else { "--version" };
            let output = Command::new(binaries.program(program)).arg(option).output()?;
            ensure!(output.status.success(), "{program} of {which:?}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout)?;
            ensure!(program != "containerd" || text.contains(version), "{which:?} is {text}");
        }
    }
    Ok(())
}
