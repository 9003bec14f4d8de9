//! An ingress on a NodePort answers on port 80 of a joined node, and does again by itself after somebody flushed the rule set.

use anyhow::{Result, ensure};
use vm_tests::progress::{say, seconds, wait_for};
use vm_tests::scene::{LIMIT, SHORT, Stage, doctor, wait_for_agent, watched};
use vm_tests::{ClusterOptions, Machine, MachineOptions, ingress};

const NODE: &str = "i-ingress";

#[test]
fn an_ingress_on_a_node_port_answers_on_port_80() -> Result<()> {
    let stage = Stage::set(ClusterOptions::default(), None)?;
    let image = ingress::image(&stage.image)?;
    let user_data = stage.way_in()?.user_data() + &ingress::user_data();
    let port = ingress::free_port()?;
    let options = MachineOptions { forwards: vec![(port, 80)], ..MachineOptions::new(NODE, &user_data) };
    let mut machine = Machine::boot(&image, options)?;
    watched(&mut machine, |machine| {
        stage.cluster.wait_ready(NODE, LIMIT)?;
        wait_for_agent(machine, LIMIT)?;
        say(format_args!("Ready {} after power-on", seconds(machine.uptime())));
        ensure!(ingress::ask(port).is_err(), "somebody answers before there is an ingress");
        ingress::start(&stage.cluster, machine, NODE)?;
        ingress::answer(port)?;
        say(format_args!("port 80 answers {} after power-on", seconds(machine.uptime())));
        let evidence = doctor(machine)?;
        ensure!(evidence.code == 0 && evidence.stdout.contains("80 to 32245 (answers"), "{}", evidence.stdout);

        // Others write their rules anew when they like; the agent's come back at once.
        machine.check("nft flush ruleset && systemctl restart kube-proxy", LIMIT)?;
        let flushed = "table inet gpuk was removed since it was made: nft flush ruleset does that";
        wait_for("the event", LIMIT, || {
            let reason = "--field-selector=reason=PutRight,involvedObject.kind=Node";
            let events = stage.cluster.kubectl(&[
                "get",
                "events",
                "--namespace=default",
                reason,
                "--output=jsonpath={.items[*].message}",
            ])?;
            Ok(events.contains(flushed).then_some(()))
        })?;
        ingress::answer(port)?;
        let told = doctor(machine)?;
        ensure!(told.code == 0 && told.stdout.contains(&format!(": {flushed}")), "{}", told.stdout);

        let refused = machine.run("gpuk-agent reset redirects", SHORT)?;
        ensure!(refused.code == 1 && refused.stderr.contains("systemctl disable --now gpuk-agent.service"), "{}", refused.stderr);
        machine.check("systemctl stop gpuk-agent && gpuk-agent reset redirects", SHORT)?;
        ensure!(ingress::ask(port).is_err(), "somebody answers without redirects");
        let left = machine.check("nft list tables", SHORT)?;
        ensure!(!left.contains("gpuk") && left.contains("nat"), "{left}");
        Ok(())
    })
}
