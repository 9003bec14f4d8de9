//! Four faults, one after the other: the agent must name each, and not just fail.

use anyhow::{Context as _, Result};
use vm_tests::progress::{say, seconds};
use vm_tests::scene::{BREAKS, LIMIT, Stage, as_typed, watched};
use vm_tests::{ClusterOptions, Machine, MachineOptions};

#[test]
fn the_doctor_names_each_fault() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    for fault in BREAKS {
        let verdict = fault.with(&stage, |user_data| {
            let instance_id = format!("i-{}", fault.name);
            let mut machine = Machine::boot(&stage.image, MachineOptions::new(&instance_id, &user_data))?;
            let output = watched(&mut machine, |machine| fault.wait_for_verdict(machine, LIMIT))?;
            say(format_args!("{}: named {} after power-on", fault.name, seconds(machine.uptime())));
            Ok(output)
        });
        say(as_typed("gpuk-agent doctor", &verdict.with_context(|| format!("fault {}: {}", fault.name, fault.fault))?));
    }
    Ok(())
}
