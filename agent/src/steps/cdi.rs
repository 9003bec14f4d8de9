//! A container gets a GPU by a specification that names device nodes, libraries and hooks of the host, and is wrong once the driver has changed.

pub mod instances;
mod spec;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use gpuk_nvml::Reading;

use super::driver::without_gpus;
use super::gpus;
use super::toolkit;
use crate::config::yaml_text;
use crate::facts::loaded_module::loaded_module;
use crate::host::apply::Failure;
use crate::look::Look;
use crate::step::{Change, Command, Finding, Lane, Stage, Status, Step, UnitVerb, Watched};
use spec::Spec;

/// The kind of every GPU's device.
const KIND: &str = "nvidia.com/gpu";

/// Where specifications lie, those that win last (CDI specification, "CDI spec directories").
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/run/cdi"];

/// What is generated; gone at the next boot, as the device nodes are.
const GENERATED: &str = "/run/cdi/nvidia.yaml";

/// The unit by which newer toolkits (1.18) generate it themselves.
const REFRESH: &str = "nvidia-cdi-refresh.service";

/// The toolkit's program that generates it.
const NVIDIA_CTK: &str = "nvidia-ctk";

/// nvidia-ctk asks NVML, which may have to initialise every GPU.
const LIMIT: Duration = Duration::from_secs(120);

/// The specification of the GPUs is there and true.
pub struct Cdi;

#[async_trait(?Send)]
impl Step for Cdi {
    fn name(&self) -> &'static str {
        "cdi"
    }

    fn purpose(&self) -> &'static str {
        "containers can be given GPUs by name"
    }

    fn stage(&self) -> Stage {
        Stage::Boot
    }

    fn lane(&self) -> Lane {
        Lane::Gpu
    }

    fn needs(&self) -> &'static [&'static str] {
        &["gpus", "toolkit"]
    }

    fn limit(&self) -> Duration {
        gpus::LIMIT
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched::Directory("/etc/cdi"), Watched::Directory("/run/cdi")]
    }

    async fn check(&self, look: Look<'_>) -> Result<Status> {
        if let Some(why) = without_gpus(look) {
            return Ok(Status::Ready(why));
        }
        if toolkit::is_operators(look)? {
            return Ok(Status::Ready("the GPU Operator's toolkit hands over GPUs".to_owned()));
        }
        let Some(loaded) = loaded_module(look)? else {
            return Ok(Status::Waiting(Finding::new(
                "driver-not-loaded",
                "Without a driver there is nothing that containers could be given",
                "there is no /proc/driver/nvidia/version",
                "gpuk-agent doctor   (the step modules says what keeps it from loading)",
            )));
        };
        let reading = gpus::reading(look).await?.unwrap_or_default();
        let why = match of_gpus(look)? {
            None => format!("no specification of {KIND} in {}", DIRECTORIES.join(" or ")),
            Some(Found { path, spec: Err(error), .. }) => format!("{path}: it cannot be read: {error}"),
            Some(Found { path, spec: Ok(spec), .. }) => match wrong(look, &spec, &loaded.version, &reading)? {
                None => return Ok(Status::Ready(told(&path, &spec))),
                Some(wrong) => format!("{path}: {wrong}"),
            },
        };
        Ok(Status::pending(why, generate(look).await?))
    }

    fn judge(&self, failure: &Failure, _look: Look<'_>) -> Option<Status> {
        let Failure::Program { output, .. } = failure else { return None };
        let finding = Finding::new(
            "cdi-not-generated",
            "The specification of the GPUs could not be generated",
            output.tail(),
            "gpuk-agent doctor names what the driver lacks; then: gpuk-agent up",
        );
        Some(Status::Broken(finding))
    }
}

/// A specification that was found.
pub struct Found {
    path: String,
    /// The whole file.
    pub text: String,
    /// What it says, or why it cannot be read.
    spec: Result<Spec, String>,
}

/// The specification of GPUs that wins.
pub fn of_gpus(look: Look<'_>) -> Result<Option<Found>> {
    for directory in DIRECTORIES.iter().rev() {
        for name in look.list(directory)? {
            if !(name.ends_with(".yaml") || name.ends_with(".json")) {
                continue;
            }
            let path = format!("{directory}/{name}");
            let Some(text) = look.text(&path)?.filter(|text| text.contains(KIND)) else { continue };
            let spec = yaml_text::parse::<Spec>(&text).map_err(|error| error.to_string());
            // Others have kinds whose names end so. What cannot be read at all may be ours.
            if spec.as_ref().map_or(true, |spec| spec.kind == KIND) {
                return Ok(Some(Found { path, text, spec }));
            }
        }
    }
    Ok(None)
}

/// Why a container with a GPU would not start, or be given another driver's libraries.
fn wrong(look: Look<'_>, spec: &Spec, loaded: &str, reading: &Reading) -> Result<Option<String>> {
    if let Some(version) = spec.driver_version().filter(|version| *version != loaded) {
        return Ok(Some(format!("it is of driver {version}, and {loaded} is loaded")));
    }
    let empty = instances::of_empty_gpus(reading)?;
    let present: Vec<u32> = device_numbers(look)?;
    if let Some(missing) = present.iter().find(|number| !spec.gpus().contains(number) && !empty.contains(number)) {
        return Ok(Some(format!("/dev/nvidia{missing} is not in it")));
    }
    if let Some(wrong) = instances::wrong(spec, reading)? {
        return Ok(Some(wrong));
    }
    for path in spec.host_paths() {
        if !look.exists(path)? {
            return Ok(Some(format!("{path} is in it and does not exist")));
        }
    }
    Ok(None)
}

/// The numbers N of the nodes `/dev/nvidiaN` that there are.
pub fn device_numbers(look: Look<'_>) -> Result<Vec<u32>> {
    let names = look.list("/dev")?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("nvidia")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn told(path: &str, spec: &Spec) -> String {
    let names: Vec<&str> = spec.devices.iter().map(|device| device.name.as_str()).filter(|name| name.len() < 8).collect();
    let version = spec.driver_version().map(|version| format!(", driver {version}")).unwrap_or_default();
    format!("{KIND} {} in {path}{version}", names.join(", "))
}

/// By the toolkit's own unit where there is one: two owners of one file fight.
async fn generate(look: Look<'_>) -> Result<Vec<Change>> {
    if look.unit(REFRESH).await?.is_some_and(|unit| unit.load == "loaded") {
        return Ok(vec![Change::Unit(UnitVerb::Restart, REFRESH.to_owned())]);
    }
    let place = toolkit::place(look, NVIDIA_CTK)?.unwrap_or(toolkit::PLACES[0]);
    let (program, output) = (format!("{place}/{NVIDIA_CTK}"), format!("--output={GENERATED}"));
    let command = Command::new([&program, "--quiet", "cdi", "generate", &output], LIMIT).on_running_system();
    Ok(vec![Change::Run(command)])
}
