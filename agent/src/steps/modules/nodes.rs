//! A container is given device nodes, so each must be there and have the number that the kernel gave its driver.

use anyhow::{Context, Result};

use super::run;
use crate::facts::loaded_module;
use crate::look::Look;
use crate::step::Change;

/// The minor numbers of the two that are not GPUs' (`nvidia-modprobe-utils.h` of nvidia-modprobe).
const CONTROL: u64 = 255;
const MODESET: u64 = 254;

/// A device node that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    path: String,
    number: (u64, u64),
}

/// What is wrong with device nodes, and what makes them; `None` when all are right.
pub async fn missing(look: Look<'_>) -> Result<Option<(String, Vec<Change>)>> {
    let minors = minors(look).await?;
    let nodes = expected(&look.text("/proc/devices")?.unwrap_or_default(), &minors)?;
    let mut wrong = Vec::new();
    for node in &nodes {
        match look.device_number(&node.path)? {
            None => wrong.push(format!("{} is missing", node.path)),
            Some(number) if number != node.number => {
                let ((major, minor), (right, last)) = (number, node.number);
                wrong.push(format!("{} is {major}:{minor} and the driver's is {right}:{last}", node.path));
            }
            Some(_) => {}
        }
    }
    if !wrong.is_empty() {
        // nvidia-modprobe(1) makes a node anew that has another number.
        let mut of_gpus = vec!["nvidia-modprobe".to_owned()];
        of_gpus.extend(minors.iter().flat_map(|minor| ["-c".to_owned(), minor.to_string()]));
        let of_gpus: Vec<&str> = of_gpus.iter().map(String::as_str).collect();
        let changes = vec![run(&of_gpus), run(&["nvidia-modprobe", "-u", "-c", "0"]), run(&["nvidia-modprobe", "-m"])];
        return Ok(Some((wrong.join(", "), changes)));
    }
    without_links(look, &nodes)
}

/// systemd's device policy and runc look for a device at `/dev/char/MAJOR:MINOR`, which udev does not make for a module that is not
/// under the GPL (NVIDIA/nvidia-container-toolkit#48).
fn without_links(look: Look<'_>, nodes: &[Node]) -> Result<Option<(String, Vec<Change>)>> {
    let (mut absent, mut changes) = (Vec::new(), Vec::new());
    for Node { path, number: (major, minor) } in nodes {
        let place = format!("/dev/char/{major}:{minor}");
        let target = format!("..{}", path.trim_start_matches("/dev"));
        if look.link(&place)?.is_none_or(|link| link.as_os_str() != target.as_str()) {
            changes.push(run(&["ln", "--symbolic", "--force", "--no-dereference", &target, &place]));
            absent.push(place);
        }
    }
    Ok((!absent.is_empty()).then(|| (format!("{} not there or of another device", absent.join(", ")), changes)))
}

/// The minor numbers of the GPUs that the driver has.
async fn minors(look: Look<'_>) -> Result<Vec<u64>> {
    let mut minors = Vec::new();
    for gpu in loaded_module::gpus(look).await? {
        minors.push(u64::from(gpu.minor.with_context(|| format!("the driver names no minor number of GPU {}", gpu.address))?));
    }
    minors.sort_unstable();
    Ok(minors)
}

fn expected(devices: &str, minors: &[u64]) -> Result<Vec<Node>> {
    let major = |names: &[&str]| {
        let mut lines = devices.lines().filter_map(|line| line.trim().split_once(' '));
        let found = lines.find(|(_, name)| names.contains(&name.trim())).and_then(|(number, _)| number.parse::<u64>().ok());
        found.with_context(|| format!("reading /proc/devices: no {} in it, though its module is loaded", names[0]))
    };
    // The frontend had its own name before branch 515 and after.
    let (gpus, memory) = (major(&["nvidia", "nvidia-frontend", "nvidiactl"])?, major(&["nvidia-uvm"])?);
    let node = |name: String, number| Node { path: format!("/dev/{name}"), number };
    let mut nodes: Vec<Node> = minors.iter().map(|minor| node(format!("nvidia{minor}"), (gpus, *minor))).collect();
    nodes.push(node("nvidiactl".to_owned(), (gpus, CONTROL)));
    nodes.push(node("nvidia-modeset".to_owned(), (gpus, MODESET)));
    nodes.push(node("nvidia-uvm".to_owned(), (memory, 0)));
    nodes.push(node("nvidia-uvm-tools".to_owned(), (memory, 1)));
    Ok(nodes)
}
