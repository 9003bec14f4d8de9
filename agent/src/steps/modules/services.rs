//! Without nvidia-persistenced a GPU forgets its state whenever nobody uses it; without the fabric manager NVSwitches connect nothing.

use anyhow::Result;

use super::super::driver::present::Present;
use crate::look::Look;
use crate::step::{Change, Finding, Status, UnitVerb};

const PERSISTENCE: &str = "nvidia-persistenced.service";
const FABRIC: &str = "nvidia-fabricmanager.service";

/// What the services say.
pub enum Services {
    /// Nothing is to be done; words for the evidence.
    Fine(String),
    /// Something is.
    Other(Status),
}

/// The services beside the driver, of which the fabric manager must have its very version.
pub async fn check(look: Look<'_>, present: &Present, loaded: &str) -> Result<Services> {
    let (mut words, mut changes) = (String::new(), Vec::new());
    match look.unit(PERSISTENCE).await? {
        None => words += ", no nvidia-persistenced",
        Some(state) if state.load != "loaded" => words += &format!(", nvidia-persistenced is {}", state.load),
        // Persistence makes things faster; that it fails keeps no GPU from working.
        Some(state) if state.cannot_start() => words += ", nvidia-persistenced cannot start",
        Some(state) => start(PERSISTENCE, state.is_running(), &state.file, &mut changes),
    }
    if !look.facts.nvswitches.is_empty() {
        let version =
            present.packages.iter().filter(|package| package.name.starts_with("nvidia-fabricmanager") && package.is_installed());
        let version = version.filter_map(|package| package.driver()).next();
        match look.unit(FABRIC).await? {
            None => return Ok(broken("fabric-manager-missing", "The fabric manager is not installed", &missing(look))),
            Some(state) if state.load != "loaded" => {
                return Ok(broken(
                    "fabric-manager-missing",
                    "The fabric manager cannot be started",
                    &format!("{FABRIC} is {}", state.load),
                ));
            }
            Some(_) if version.is_some_and(|version| version != loaded) => {
                let why = format!("it is {}, and the driver {loaded}", version.unwrap_or_default());
                return Ok(broken("fabric-manager-version", "The fabric manager is of another version than the driver", &why));
            }
            Some(state) if state.cannot_start() => {
                let why = format!("{FABRIC} ended with status {}", state.exit_status);
                return Ok(broken(
                    "fabric-manager-failed",
                    "The fabric manager cannot start, and NVSwitches connect nothing",
                    &why,
                ));
            }
            Some(state) => start(FABRIC, state.is_running(), &state.file, &mut changes),
        }
        words += ", fabric manager active";
    }
    if changes.is_empty() {
        return Ok(Services::Fine(words));
    }
    Ok(Services::Other(Status::pending("a service of the driver does not run, or not at boot", changes)))
}

fn start(unit: &str, is_running: bool, file: &str, changes: &mut Vec<Change>) {
    if file == "disabled" {
        changes.push(Change::Unit(UnitVerb::Enable, unit.to_owned()));
    }
    if !is_running {
        changes.push(Change::Unit(UnitVerb::Start, unit.to_owned()));
    }
}

fn missing(look: Look<'_>) -> String {
    format!("there are {} NVSwitches and no {FABRIC}", look.facts.nvswitches.len())
}

fn broken(code: &str, what: &str, why: &str) -> Services {
    let remedy = "install the fabric manager of exactly the driver's version (nvidia-fabricmanager), and look: journalctl --unit nvidia-fabricmanager";
    Services::Other(Status::Broken(Finding::new(code, what, why, remedy)))
}
