//! Data goes one way: files, user-data, environment and flags become one configuration, which nothing changes afterwards.

use std::path::Path;

use anyhow::Result;

use crate::cli::Common;
use crate::cloud;
use crate::config::{self, Config, ConfigErrors, Loaded, Setting, Source};
use crate::facts::{Facts, gather};
use crate::host::Host;
use crate::show::complain;

/// The operator's own file.
pub const MAIN_FILE: &str = "/etc/gpuk/agent.toml";

/// Files beside it, each for one purpose, in the order of their names.
pub const DROP_INS: &str = "/etc/gpuk/agent.toml.d";

/// A machine that was looked at once, and what is wanted of it.
pub struct Session {
    /// The machine.
    pub host: Host,
    /// What is known of it.
    pub facts: Facts,
    /// What is wanted.
    pub config: Config,
    /// Every effective value with its origin.
    pub settings: Vec<Setting>,
    /// Why the user-data could not be read, when it could not: then the configuration may lack what it says.
    pub without_user_data: Option<cloud::Trouble>,
}

/// Why there is no session.
#[derive(Debug)]
pub enum Trouble {
    /// The configuration is wrong; nothing was changed.
    Configuration(ConfigErrors),
    /// Something else, e.g. a root that is not there.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Session {
    /// Looks at the machine and reads the whole configuration.
    pub async fn open(common: &Common, environment: Vec<(String, String)>) -> Result<Self, Trouble> {
        let host = Host::real(&common.root)?;
        let files = files(&host)?;
        let last = [Source::environment(environment), Source::flags(common.settings.clone())];
        // What the image and the operator say may be needed to find the user-data, which then comes between them.
        let layers = |user_data: Option<Source>| {
            let sources = files.iter().cloned().chain(user_data).chain(last.iter().cloned());
            config::load(sources.collect()).map_err(Trouble::Configuration)
        };
        let gathered = gather(&host, &layers(None)?.config, &complain).await;
        let user_data = gathered.user_data.and_then(|user_data| Source::user_data(&String::from_utf8_lossy(&user_data.bytes)));
        let Loaded { config, settings } = layers(user_data)?;
        Ok(Self { host, facts: gathered.facts, config, settings, without_user_data: gathered.without_user_data })
    }
}

/// The layers that are files, in order. One that cannot be read is an error: a value could be missing.
fn files(host: &Host) -> Result<Vec<Source>> {
    let mut paths = vec![MAIN_FILE.to_owned()];
    let names = host.files.list(Path::new(DROP_INS))?;
    paths.extend(names.into_iter().filter(|name| name.ends_with(".toml")).map(|name| format!("{DROP_INS}/{name}")));
    let mut sources = Vec::new();
    for path in paths {
        if let Some(text) = host.files.text(Path::new(&path))? {
            sources.push(Source::file(path, text));
        }
    }
    Ok(sources)
}
