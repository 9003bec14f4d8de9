//! Data goes one way: files, user-data, environment and flags become one configuration, which nothing changes afterwards.

use std::path::Path;

use anyhow::Result;

use crate::cli::{Common, Exit};
use crate::cloud;
use crate::config::user_data::{self, UserData};
use crate::config::{self, Config, ConfigErrors, Loaded, Setting, Source};
use crate::facts::{Facts, gather};
use crate::host::Host;
use crate::look::Look;
use crate::role;
use crate::step::Finding;
use crate::unknown::{About, Unknown};

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
    /// Why it is not known what the node is to be, when it is not: nothing may be changed then.
    pub unknown: Option<Unknown>,
}

/// Why there is no session.
#[derive(Debug)]
pub enum Trouble {
    /// The configuration is wrong; nothing was changed.
    Configuration(ConfigErrors),
    /// Something else, e.g. a root that is not there.
    Other(anyhow::Error),
}

impl Trouble {
    /// How every verb ends that needs a session.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::Configuration,
            Self::Other(_) => Exit::Broken,
        }
    }

    /// What is wrong, for every verb alike.
    pub fn finding(&self) -> Finding {
        let (code, what, why) = match self {
            Self::Configuration(errors) => ("configuration-wrong", "The configuration is wrong", errors.to_string()),
            Self::Other(error) => ("machine-unreadable", "The machine or its configuration cannot be read", format!("{error:#}")),
        };
        Finding::new(code, what, why, "mend what is named above, then: gpuk-agent doctor")
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Session {
    /// The read-only view of it.
    pub fn look(&self) -> Look<'_> {
        Look::new(&self.host, &self.config, &self.facts)
    }

    /// Looks at the machine and reads the whole configuration; `say` hears when somebody is waited for.
    pub async fn open(common: &Common, environment: Vec<(String, String)>, say: &dyn Fn(&str)) -> Result<Self, Trouble> {
        let last = [Source::environment(environment), Source::flags(common.settings.clone())];
        Self::on(Host::real(&common.root)?, last, say).await
    }

    /// A session on this host; the layers `last` are louder than its files and user-data.
    async fn on(host: Host, last: [Source; 2], say: &dyn Fn(&str)) -> Result<Self, Trouble> {
        let files = files(&host)?;
        // What the image and the operator say may be needed to find the user-data, which then comes between them.
        let layers = |user_data: Vec<Source>, role: Option<Source>| {
            let sources = role.into_iter().chain(files.iter().cloned()).chain(user_data).chain(last.iter().cloned());
            config::load(sources.collect()).map_err(Trouble::Configuration)
        };
        let mut gathered = gather(&host, &layers(Vec::new(), None)?.config, say).await;
        let mut unknown = gathered.unknown;
        let user_data = match gathered.user_data {
            Some(packed) => {
                let user_data = user_data::unpack(&packed).map_err(Trouble::Configuration)?;
                match merged_by_cloud_init(&host, &user_data) {
                    Ok(merged) => user_data.layers(merged).map_err(Trouble::Configuration)?,
                    Err(error) => {
                        let trouble = Unknown::new(About::Metadata, cloud::Trouble::from(error).about("user-data"));
                        gathered.facts.unseen.push(trouble.to_string());
                        unknown = unknown.or(Some(trouble));
                        user_data.sources
                    }
                }
            }
            None => Vec::new(),
        };
        let Loaded { config, settings } = layers(user_data, role::layer(&gathered.facts))?;
        let unknown = unknown.or(gathered.role_unknown.filter(|_| !role::is_given(&settings)));
        Ok(Self { host, facts: gathered.facts, config, settings, unknown })
    }
}

/// What cloud-init made of all cloud-configs in this boot, where it can know more than the user-data shows.
fn merged_by_cloud_init(host: &Host, user_data: &UserData) -> Result<Option<String>> {
    if user_data.cloud_init_may_know_more && host.files.exists(Path::new(cloud::INSTANCE_DATA))? {
        return host.files.text(Path::new(user_data::MERGED_BY_CLOUD_INIT));
    }
    Ok(None)
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use super::*;

    const RAN: (&str, &str) = ("run/cloud-init/instance-data.json", "{\"v1\": {\"instance_id\": \"i-1\"}}");
    const MERGED: (&str, &str) = ("var/lib/cloud/instance/cloud-config.txt", "#cloud-config\ngpuk: {gpu: {enabled: always}}\n");
    const SEED: (&str, &str) = ("var/lib/cloud/seed/nocloud/meta-data", "instance-id: i-1\n");

    /// Where an image with these files has `gpu.enabled` from, or why its configuration is wrong.
    async fn enabled(files: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let common = Common { root: root.path().to_owned(), json: false, settings: Vec::new() };
        match Session::open(&common, Vec::new(), &|_| {}).await {
            Ok(session) => {
                let setting = session.settings.iter().find(|setting| setting.key == "gpu.enabled").unwrap();
                setting.origin.to_string()
            }
            Err(Trouble::Configuration(errors)) => errors.to_string(),
            Err(Trouble::Other(error)) => unreachable!("{error:#}"),
        }
    }

    /// A session on an EC2 instance with these files, whose metadata service is silent.
    async fn silent(files: &[(&str, &str)], settings: &[(&str, &str)]) -> Session {
        let root = tempfile::tempdir().unwrap();
        let firmware = [("sys/class/dmi/id/sys_vendor", "Amazon EC2\n")];
        for (path, text) in firmware.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let last = [Source::environment(Vec::new()), Source::flags(settings)];
        let session = Session::on(Host::of_fakes(root.path()).unwrap(), last, &|_| {}).await;
        session.unwrap_or_else(|trouble| unreachable!("{trouble:?}"))
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_a_worker_only_because_the_tags_could_not_be_seen() {
        let session = silent(&[RAN], &[]).await;
        let unknown = session.unknown.unwrap();
        assert!(unknown.may_pass() && unknown.to_string().contains("tags"), "{unknown}");
        // The disk shows a role, and a tag would be louder.
        assert!(silent(&[RAN, ("etc/eks/x", "")], &[]).await.unknown.is_some());
        // Somebody says what it is, on the disk or by hand.
        assert!(silent(&[RAN, ("etc/gpuk/agent.toml", "node.role = \"worker\"")], &[]).await.unknown.is_none());
        assert!(silent(&[RAN], &[("node.role", "observed")]).await.unknown.is_none());
        // Nobody asks for tags where there is no cloud.
        assert!(silent(&[RAN], &[("cloud.name", "none")]).await.unknown.is_none());
        let tagged = "{\"v1\": {\"instance_id\": \"i-1\"}, \"ds\": {\"meta-data\": {\"tags\": {\"instance\": {\"gpuk-role\": \"observed\"}}}}}";
        let session = silent(&[(RAN.0, tagged)], &[]).await;
        assert_eq!((session.config.node.role, session.unknown), (config::Role::Observed, None));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_things_that_are_unknown_the_first_stands_and_both_are_told() {
        // A directory in a file's place cannot be read by anyone, root included.
        let (merged, vendor) = ("var/lib/cloud/instance/cloud-config.txt/x", "sys/bus/pci/devices/0000:01:00.0/vendor/x");
        let include = ("var/lib/cloud/instance/user-data.txt", "#include\nhttps://example.com/a\n");
        let session = silent(&[RAN, include, (merged, "")], &[]).await;
        assert!(session.unknown.is_some_and(|unknown| !unknown.may_pass()));
        let session = silent(&[RAN, include, (merged, ""), (vendor, "")], &[]).await;
        assert_eq!(session.unknown.map(|unknown| unknown.name()), Some("pci"));
        let unseen = session.facts.unseen.join("\n");
        assert!(unseen.contains("0000:01:00.0/vendor") && unseen.contains("cloud-config.txt"), "{unseen}");
    }

    #[tokio::test]
    async fn what_only_cloud_init_knows_is_read_when_it_ran_in_this_boot() {
        let template = "## template: jinja\n#cloud-config\ngpuk: {gpu: {enabled: {{ x }}}}\n";
        let by_cloud_init = |text: &'static str| ("var/lib/cloud/instance/user-data.txt", text);
        let merged = "/var/lib/cloud/instance/cloud-config.txt:2:23";
        assert_eq!(enabled(&[RAN, MERGED, by_cloud_init(template)]).await, merged);
        assert_eq!(enabled(&[RAN, MERGED, by_cloud_init("#include\nhttps://example.com/a\n")]).await, merged);
        // Not merged yet, merged in an earlier boot, and not needed.
        assert!(enabled(&[RAN, by_cloud_init(template)]).await.starts_with("user-data:3:23: this is a template"));
        let seed = |text: &'static str| ("var/lib/cloud/seed/nocloud/user-data", text);
        assert!(enabled(&[SEED, MERGED, seed(template)]).await.starts_with("user-data:3:23: this is a template"));
        let plain = "#cloud-config\ngpuk: {gpu: {enabled: never}}\n";
        assert_eq!(enabled(&[RAN, MERGED, by_cloud_init(plain)]).await, "user-data:2:23");
    }
}
