//! Work comes before layouts: nothing is taken away that somebody uses, and whether the new layout fits is known before the old one goes.
#![allow(unsafe_code, reason = "the calls of `nvml.rs`")]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::ptr;

use crate::{Division, Failure, MigLayout, Refusal, RefusalReason, ReturnCode, counted};
use nvml_wrapper_sys::bindings::nvmlDevice_t;

use super::gpu::mode;
use super::instances::{Instance, Process, create, destroy, instances, processes};
use super::mig;
use super::nvml::{LIBRARY, Nvml, ask};
use super::placement::{Placement, place};
use super::profiles::{Profile, profiles};

/// Why it goes no further.
struct Stopped(RefusalReason, String);

impl Stopped {
    /// What was being done, and NVML's answer.
    fn doing(doing: &str, failure: &Failure) -> Self {
        let reason = match failure.code {
            ReturnCode::IN_USE => RefusalReason::InUse,
            ReturnCode::INSUFFICIENT_RESOURCES => RefusalReason::Impossible,
            ReturnCode::RESET_REQUIRED => RefusalReason::NeedsReset,
            _ => RefusalReason::Failed,
        };
        Self(reason, format!("{doing}: {failure}"))
    }
}

/// What is said of a step that NVML refuses.
trait Doing<T> {
    fn doing(self, doing: &str) -> Result<T, Stopped>;
}

impl<T> Doing<T> for Result<T, Failure> {
    fn doing(self, doing: &str) -> Result<T, Stopped> {
        self.map_err(|failure| Stopped::doing(doing, &failure))
    }
}

/// Divides the GPU of this UUID so. What is right already stays.
pub fn divide(library: Option<&OsStr>, uuid: &str, layout: &MigLayout) -> Division {
    let library = library.unwrap_or(OsStr::new(LIBRARY));
    let opened = || Nvml::open(library).doing("asking NVML");
    let divided = opened().and_then(|nvml| {
        let divided = changed(&nvml, uuid, layout);
        nvml.shut_down();
        divided
    });
    // Anew: what opens NVML after an instance was made makes the instance's device nodes.
    let standing = opened().and_then(|nvml| {
        let standing = standing(&nvml, uuid);
        nvml.shut_down();
        standing
    });
    match (divided, standing) {
        (Ok(()), Ok(standing)) => Division::Made(standing),
        (Ok(()), Err(Stopped(reason, why))) => Division::Refused(Refusal { reason, why, stands: None }),
        (Err(Stopped(reason, why)), standing) => Division::Refused(Refusal { reason, why, stands: standing.ok() }),
    }
}

/// `MIG mode on and 3g.40gb:1`
fn standing(nvml: &Nvml, uuid: &str) -> Result<String, Stopped> {
    let mig = mig::mig(nvml, device(nvml, uuid)?).doing("asking for MIG mode")?;
    let on = |on: bool| if on { "on" } else { "off" };
    let counts = mig.counts().doing("asking for instances")?;
    let instances = if counts.is_empty() { "no instances".to_owned() } else { counted(&counts) };
    let pending = if mig.mode.current == mig.mode.pending {
        String::new()
    } else {
        format!(" ({} from the next reset on)", on(mig.mode.pending))
    };
    Ok(format!("MIG mode {}{pending} and {instances}", on(mig.mode.current)))
}

fn device(nvml: &Nvml, uuid: &str) -> Result<nvmlDevice_t, Stopped> {
    let text = CString::new(uuid).map_err(|_| Stopped(RefusalReason::Failed, format!("{uuid:?} is no UUID")))?;
    ask!(nvml.nvmlDeviceGetHandleByUUID(text.as_ptr()) -> device: ptr::null_mut()).doing(uuid)
}

fn changed(nvml: &Nvml, uuid: &str, layout: &MigLayout) -> Result<(), Stopped> {
    let device = device(nvml, uuid)?;
    let current = ask!(nvml.nvmlDeviceGetMigMode(device) -> current: 0, pending: 0).map(mode).doing("asking for MIG mode")?;
    let offered = profiles(nvml, device).doing("asking for profiles")?;
    let standing = if current.current { instances(nvml, device, &offered).doing("asking for instances")? } else { Vec::new() };
    let plan = match layout {
        MigLayout::Off => Plan { surplus: standing, missing: Vec::new() },
        MigLayout::Instances(counts) => Plan::towards(&wanted(counts, &offered)?, standing, &offered)?,
    };
    let switches = current.current != layout.is_on();
    if switches || !plan.surplus.is_empty() {
        let places =
            if current.current { ask!(nvml.nvmlDeviceGetMaxMigDeviceCount(device) -> count: 0).doing("counting")? } else { 0 };
        let running = processes(nvml, device, places).doing("asking for processes")?;
        unused(&running, switches, &plan.surplus)?;
    }
    for instance in &plan.surplus {
        destroy(nvml, instance).doing(&format!("taking away {}", name_of(instance.profile, &offered)))?;
    }
    let device = if switches || current.pending != layout.is_on() { switched(nvml, uuid, layout.is_on())? } else { device };
    for (profile, place) in plan.missing {
        create(nvml, device, profile, place).map_err(|failure| {
            let Stopped(reason, why) = Stopped::doing(&format!("making {}", profile.name), &failure);
            Stopped(reason, format!("{why}; {}", offer(&offered)))
        })?;
    }
    Ok(())
}

/// The profiles that a layout names, one for each instance, big ones first.
fn wanted<'a>(counts: &BTreeMap<String, u32>, offered: &'a [Profile]) -> Result<Vec<&'a Profile>, Stopped> {
    let impossible = |why: String| Stopped(RefusalReason::Impossible, format!("{why}; {}", offer(offered)));
    let mut wanted = Vec::new();
    for (name, count) in counts {
        let profile = offered.iter().find(|profile| profile.name == *name);
        let profile = profile.ok_or_else(|| impossible(format!("it has no profile {name}")))?;
        if *count > profile.most {
            return Err(impossible(format!("it has no room for {count} of {name}")));
        }
        wanted.extend((0..*count).map(|_| profile));
    }
    wanted.sort_by_key(|profile| std::cmp::Reverse((profile.size(), profile.slices, profile.id)));
    Ok(wanted)
}

/// What goes, and what comes and where.
struct Plan<'a> {
    surplus: Vec<Instance>,
    missing: Vec<(&'a Profile, Placement)>,
}

impl<'a> Plan<'a> {
    /// Instances that are wanted stay where they are, if the others fit beside them.
    fn towards(wanted: &[&'a Profile], standing: Vec<Instance>, offered: &[Profile]) -> Result<Self, Stopped> {
        let mut missing = wanted.to_vec();
        let (kept, surplus): (Vec<Instance>, Vec<Instance>) = standing.into_iter().partition(|instance| {
            let fits = missing.iter().position(|profile| instance.is_whole && profile.id == instance.profile);
            fits.map(|place| missing.remove(place)).is_some()
        });
        let taken: Vec<Placement> = kept.iter().map(|instance| instance.place).collect();
        if let Some(missing) = placed(&missing, &taken) {
            return Ok(Self { surplus, missing });
        }
        let missing = placed(wanted, &[]).ok_or_else(|| {
            let names: Vec<&str> = wanted.iter().map(|profile| profile.name.as_str()).collect();
            let why = format!("it has no room for {} together; {}", names.join(", "), offer(offered));
            Stopped(RefusalReason::Impossible, why)
        })?;
        Ok(Self { surplus: kept.into_iter().chain(surplus).collect(), missing })
    }
}

/// Each with its place, or `None` where they do not all fit.
fn placed<'a>(profiles: &[&'a Profile], taken: &[Placement]) -> Option<Vec<(&'a Profile, Placement)>> {
    let slices = profiles.iter().flat_map(|profile| &profile.places).map(|place| place.start + place.size).max().unwrap_or(0);
    let needed: u32 = profiles.iter().map(|profile| profile.size()).sum();
    if needed > slices {
        return None;
    }
    let places: Vec<&[Placement]> = profiles.iter().map(|profile| profile.places.as_slice()).collect();
    Some(profiles.iter().copied().zip(place(&places, taken)?).collect())
}

/// Nobody uses what is about to go: the whole GPU where its mode changes.
fn unused(running: &[Process], whole: bool, going: &[Instance]) -> Result<(), Stopped> {
    let disturbed = running.iter().filter(|process| whole || going.iter().any(|instance| process.uses(instance)));
    let mut ids: Vec<u32> = disturbed.map(|process| process.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    Err(Stopped(RefusalReason::InUse, format!("used by process {}", ids.join(", "))))
}

/// Switches MIG mode; the GPU's handle from then on.
fn switched(nvml: &Nvml, uuid: &str, on: bool) -> Result<nvmlDevice_t, Stopped> {
    let gpu = device(nvml, uuid)?;
    let doing = if on { "switching MIG mode on" } else { "switching MIG mode off" };
    let set = |on: bool| ask!(nvml.nvmlDeviceSetMigMode(gpu, u32::from(on)) -> activation: 0);
    let activation = set(on).doing(doing)?;
    if let Err(failure) = nvml.checked(activation) {
        if failure.code == ReturnCode::IN_USE {
            // Otherwise it would come at some reset that nobody expects it of.
            set(!on).doing("keeping MIG mode as it was")?;
        }
        return Err(Stopped::doing(doing, &failure));
    }
    // The GPU may have been reset: "attributes associated with the device might change" (nvml.h, `nvmlDeviceSetMigMode`).
    let gpu = device(nvml, uuid)?;
    let now = ask!(nvml.nvmlDeviceGetMigMode(gpu) -> current: 0, pending: 0).map(mode).doing("asking for MIG mode")?;
    if now.current == on {
        return Ok(gpu);
    }
    Err(Stopped(RefusalReason::NeedsReset, format!("{doing}: it takes effect at the next reset of the GPU")))
}

fn name_of(id: u32, offered: &[Profile]) -> &str {
    offered.iter().find(|profile| profile.id == id).map_or("an instance", |profile| profile.name.as_str())
}

/// `it offers at most 1g.10gb:7, 7g.80gb:1`
fn offer(offered: &[Profile]) -> String {
    let offered: Vec<String> = offered.iter().map(|profile| format!("{}:{}", profile.name, profile.most)).collect();
    if offered.is_empty() { "it offers no profile".to_owned() } else { format!("it offers at most {}", offered.join(", ")) }
}
