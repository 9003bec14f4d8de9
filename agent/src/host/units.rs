//! systemd decides what runs; it is asked over D-Bus, without starting systemctl.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use tokio::sync::OnceCell;
use zbus::{OwnedObjectPath, OwnedVariant};

use crate::step::UnitVerb;

/// What systemd says of one unit (org.freedesktop.systemd1(5), Unit and Service interfaces).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `LoadState`, e.g. `loaded`, `masked`.
    pub load: String,
    /// `ActiveState`, e.g. `active`, `activating`, `failed`.
    pub active: String,
    /// `SubState`, e.g. `running`, `auto-restart`.
    pub sub: String,
    /// `UnitFileState`, e.g. `enabled`, `disabled`, `static`.
    pub file: String,
    /// `NRestarts`: how often systemd restarted it by itself.
    pub restarts: u32,
    /// `ExecMainStatus`: the exit status (or signal) of the main process's last end.
    pub exit_status: i32,
    /// `MainPID`; 0 when it has none.
    pub main_pid: u32,
    /// `NeedDaemonReload`: its files changed on disk since systemd read them.
    pub needs_reload: bool,
    /// `ActiveEnterTimestampMonotonic`: when it last became active, in microseconds since boot; 0 = never.
    pub active_since: u64,
}

impl UnitState {
    /// Its main process runs.
    pub fn is_running(&self) -> bool {
        self.active == "active"
    }

    /// It ended with an error by itself and systemd keeps restarting it, or gave up.
    pub fn cannot_start(&self) -> bool {
        self.active == "failed" || self.sub == "auto-restart" || (self.restarts > 0 && self.exit_status != 0)
    }
}

/// Where packages and operators put unit files, the most important place first (systemd.unit(5); the last is Debian's and Ubuntu's old one).
pub const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// systemd's manager.
#[async_trait(?Send)]
pub trait Units {
    /// The unit's state, or `None` when no such unit is installed.
    async fn state(&self, unit: &str) -> Result<Option<UnitState>>;

    /// Does it and waits for the end of the job.
    async fn act(&self, verb: UnitVerb, unit: &str, limit: Duration) -> Result<()>;

    /// Begins a reboot that stops every unit first, and that nothing takes back.
    async fn reboot(&self) -> Result<()>;
}

/// The running systemd, over the system bus.
pub struct Systemd {
    running: bool,
    bus: OnceCell<zbus::Connection>,
}

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Reading all unit files again runs every generator: seconds on a slow machine.
const RELOAD_LIMIT: Duration = Duration::from_secs(60);

impl Systemd {
    /// Connects at the first question. `running` is false for an image, where there is no systemd to ask.
    pub fn new(running: bool) -> Self {
        Self { running, bus: OnceCell::new() }
    }

    async fn bus(&self) -> Result<&zbus::Connection> {
        if !self.running {
            bail!("systemd cannot be asked about an image that is not running");
        }
        let connect = self.bus.get_or_try_init(zbus::Connection::system);
        tokio::time::timeout(ASK_LIMIT, connect)
            .await
            .context("connecting to the system bus: no answer")?
            .context("connecting to the system bus (/run/dbus/system_bus_socket); is dbus running?")
    }

    async fn manager<B>(&self, method: &str, body: &B, limit: Duration) -> Result<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let bus = self.bus().await?;
        let call = bus.call_method(Some(DESTINATION), MANAGER_PATH, Some(MANAGER), method, body);
        let answer = tokio::time::timeout(limit, call)
            .await
            .with_context(|| format!("systemd did not answer {method} in {} s", limit.as_secs()))?;
        answer.with_context(|| format!("systemd refused {method}"))
    }

    async fn properties(&self, path: &OwnedObjectPath, interface: &str) -> Result<BTreeMap<String, OwnedVariant>> {
        let bus = self.bus().await?;
        let body = (interface,);
        let call = bus.call_method(Some(DESTINATION), path, Some("org.freedesktop.DBus.Properties"), "GetAll", &body);
        let answer = tokio::time::timeout(ASK_LIMIT, call).await.context("systemd did not answer GetAll")??;
        Ok(answer.body().deserialize()?)
    }
}

#[async_trait(?Send)]
impl Units for Systemd {
    async fn state(&self, unit: &str) -> Result<Option<UnitState>> {
        let answer = self.manager("LoadUnit", &(unit,), ASK_LIMIT).await?;
        let path: OwnedObjectPath = answer.body().deserialize()?;
        let mut unit_properties = self.properties(&path, UNIT).await?;
        let text = |properties: &mut BTreeMap<String, OwnedVariant>, key: &str| -> String {
            properties.remove(key).and_then(|value| String::try_from(value).ok()).unwrap_or_default()
        };
        let load = text(&mut unit_properties, "LoadState");
        if load == "not-found" {
            return Ok(None);
        }
        let mut state = UnitState {
            load,
            active: text(&mut unit_properties, "ActiveState"),
            sub: text(&mut unit_properties, "SubState"),
            file: text(&mut unit_properties, "UnitFileState"),
            needs_reload: unit_properties.remove("NeedDaemonReload").and_then(|value| value.try_into().ok()).unwrap_or(false),
            active_since: unit_properties
                .remove("ActiveEnterTimestampMonotonic")
                .and_then(|value| value.try_into().ok())
                .unwrap_or(0),
            ..UnitState::default()
        };
        if unit.ends_with(".service") {
            let mut service = self.properties(&path, SERVICE).await?;
            state.restarts = service.remove("NRestarts").and_then(|value| value.try_into().ok()).unwrap_or(0);
            state.main_pid = service.remove("MainPID").and_then(|value| value.try_into().ok()).unwrap_or(0);
            state.exit_status = service.remove("ExecMainStatus").and_then(|value| value.try_into().ok()).unwrap_or(0);
        }
        Ok(Some(state))
    }

    async fn act(&self, verb: UnitVerb, unit: &str, limit: Duration) -> Result<()> {
        let method = match verb {
            UnitVerb::Start => "StartUnit",
            UnitVerb::Restart => "RestartUnit",
            UnitVerb::Stop => "StopUnit",
            UnitVerb::Reload => return self.manager("Reload", &(), RELOAD_LIMIT).await.map(drop),
            UnitVerb::Enable => {
                self.manager("EnableUnitFiles", &(&[unit][..], false, true), RELOAD_LIMIT).await?;
                return self.manager("Reload", &(), RELOAD_LIMIT).await.map(drop);
            }
        };
        if verb != UnitVerb::Stop {
            self.forget_failure(unit).await?;
        }
        let answer = self.manager(method, &(unit, "replace"), ASK_LIMIT).await?;
        let job: OwnedObjectPath = answer.body().deserialize()?;
        tokio::time::timeout(limit, self.end_of(&job))
            .await
            .with_context(|| format!("{} {unit}: systemd's job had not ended after {} s", verb.word(), limit.as_secs()))??;
        if verb == UnitVerb::Stop {
            return self.forget_failure(unit).await;
        }
        match self.state(unit).await? {
            Some(state) if state.active == "failed" => {
                bail!("{} {unit}: the unit failed (exit status {}); see journalctl -u {unit}", verb.word(), state.exit_status)
            }
            Some(_) => Ok(()),
            None => bail!("{} {unit}: there is no such unit", verb.word()),
        }
    }

    async fn reboot(&self) -> Result<()> {
        // What `systemctl reboot` asks for (systemctl(1), "reboot").
        self.manager("StartUnit", &("reboot.target", "replace-irreversibly"), ASK_LIMIT).await.map(drop)
    }
}

impl Systemd {
    /// Clears a crash loop's start limit, which systemd forgets only when told to. A unit that has none loaded has nothing to forget.
    async fn forget_failure(&self, unit: &str) -> Result<()> {
        if self.state(unit).await?.is_some_and(|state| state.active == "failed") {
            self.manager("ResetFailedUnit", &(unit,), ASK_LIMIT).await?;
        }
        Ok(())
    }

    /// A job's object disappears when the job has ended.
    async fn end_of(&self, job: &OwnedObjectPath) -> Result<()> {
        let mut pause = Duration::from_millis(2);
        while self.properties(job, "org.freedesktop.systemd1.Job").await.is_ok_and(|properties| !properties.is_empty()) {
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// A fake: units that a test describes, and the verbs that were asked of them.
#[derive(Default)]
pub struct ScriptedUnits {
    /// The units by name.
    pub units: RefCell<BTreeMap<String, UnitState>>,
    /// Every verb and unit, in order, e.g. `restart containerd.service`.
    pub acted: RefCell<Vec<String>>,
}

impl ScriptedUnits {
    /// A machine with these units.
    pub fn with<const N: usize>(units: [(&str, UnitState); N]) -> Self {
        Self { units: RefCell::new(units.map(|(name, state)| (name.to_owned(), state)).into()), acted: RefCell::default() }
    }
}

#[async_trait(?Send)]
impl Units for ScriptedUnits {
    async fn state(&self, unit: &str) -> Result<Option<UnitState>> {
        Ok(self.units.borrow().get(unit).cloned())
    }

    async fn act(&self, verb: UnitVerb, unit: &str, _limit: Duration) -> Result<()> {
        self.acted.borrow_mut().push(format!("{} {unit}", verb.word()));
        if let Some(state) = self.units.borrow_mut().get_mut(unit) {
            match verb {
                UnitVerb::Start | UnitVerb::Restart => state.active = "active".to_owned(),
                UnitVerb::Stop => state.active = "inactive".to_owned(),
                UnitVerb::Enable => state.file = "enabled".to_owned(),
                UnitVerb::Reload => {}
            }
        }
        Ok(())
    }

    async fn reboot(&self) -> Result<()> {
        self.acted.borrow_mut().push("reboot".to_owned());
        Ok(())
    }
}
