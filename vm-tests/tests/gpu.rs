//! The agent counts GPUs as a real kernel shows them on the PCI bus, and nothing else that NVIDIA makes; on a cloud its facts say
//! what the machine is.

use anyhow::{Context as _, Result, ensure};
use metadata_stand_in::{Cloud, Machine as Instance, Tokens};
use serde_json::Value;
use vm_tests::clouds::{Place, for_clouds};
use vm_tests::progress::say;
use vm_tests::scene::{LIMIT, SHORT, Stage, watched};
use vm_tests::{Gpu, Machine};

/// Vendor, device and class of every NVIDIA function, in the order of the addresses.
const NVIDIA_FUNCTIONS: &str = "cd /sys/bus/pci/devices && for device in $(grep -l 0x10de */vendor | sort); do \
    device=${device%/vendor}; echo $(cat $device/device $device/class $device/enable); done";

/// The agent is on its own: no cluster, and its service has nothing to say here.
const USER_DATA: &str = "#cloud-config\nbootcmd: [[systemctl, mask, --now, gpuk-agent]]\ngpuk:\n  cluster: {kind: none}\n";

#[test]
fn gpus_are_counted_and_audio_functions_and_switches_are_not() -> Result<()> {
    let cloud = Cloud::Ec2(Tokens::Required);
    let mut instance = Instance { user_data: USER_DATA.as_bytes().to_vec(), ..Instance::example(cloud) };
    instance.tags.insert("gpuk:role".to_owned(), "worker".to_owned());
    let mut place = Place::new(cloud, instance, &[])?;
    place.open()?;
    let mut options = place.machine();
    options.gpus = vec![Gpu::AUDIO, Gpu::TESLA_T4, Gpu::NVSWITCH, Gpu::L4];
    let mut machine = Machine::boot(&for_clouds(&Stage::image()?)?, options)?;
    watched(&mut machine, |machine| {
        // 2 is "done, with warnings": cloud-init does not know the agent's key (cloud-init documentation, "status").
        let status = machine.run("cloud-init status --wait", LIMIT)?;
        ensure!(matches!(status.code, 0 | 2), "cloud-init failed: {}{}", status.stdout, status.stderr);
        let seen = machine.check(NVIDIA_FUNCTIONS, SHORT)?;
        let shown = "0x10f8 0x040300 0\n0x1eb8 0x030200 0\n0x22a3 0x068000 0\n0x27b8 0x030200 0\n";
        ensure!(seen == shown, "the kernel shows other cards:\n{seen}");
        let ranges = machine.check(
            "head -4 /sys/bus/pci/devices/$(basename $(dirname $(grep -l 0x1eb8 /sys/bus/pci/devices/*/device)))/resource",
            SHORT,
        )?;
        let bytes: Vec<u64> = ranges.lines().filter_map(size).collect();
        ensure!(bytes == [16 << 20, 256 << 20, 32 << 20], "the T4 has other memory ranges:\n{ranges}");

        let facts = machine.run("gpuk-agent facts", SHORT)?;
        say(&facts.stdout);
        ensure!(facts.code == 0, "not everything was seen: {}", facts.stderr);
        let role = "worker, gpu, because tag gpuk:role=worker and 2 NVIDIA GPUs from 0000:";
        ensure!(facts.stdout.contains(role), "the facts say something else of the role");
        for line in ["Tesla T4 at 0000:", "L4 at 0000:", "i-0123456789abcdef0  (http://169.254.169.254"] {
            ensure!(facts.stdout.contains(line), "the facts have no line with {line:?}");
        }

        let plan = machine.run("gpuk-agent plan --json", SHORT)?;
        let steps: Value = serde_json::from_str(&plan.stdout).with_context(|| format!("reading the plan: {}", plan.stderr))?;
        let steps = steps["steps"].as_array().context("a plan has steps")?;
        let kubelet = steps.iter().find(|step| step["name"] == "kubelet").context("the plan has no step for the kubelet")?;
        let flags = kubelet.to_string();
        ensure!(
            flags.contains("nvidia.com/gpu.count=2") && flags.contains("nvidia.com/gpu.present=true"),
            "the kubelet would not say that there are two GPUs: {flags}"
        );
        Ok(())
    })
}

/// Bytes of a line of `resource`: first and last address and flags, all zero where there is no range.
fn size(line: &str) -> Option<u64> {
    let number = |text: Option<&str>| u64::from_str_radix(text?.strip_prefix("0x")?, 16).ok();
    let mut words = line.split_whitespace();
    let (first, last) = (number(words.next())?, number(words.next())?);
    (last > first).then(|| last - first + 1)
}
