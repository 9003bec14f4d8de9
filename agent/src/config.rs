//! A machine is told what to be by several voices, each louder than the one before; every value remembers its voice.
//!
//! Built-in defaults, `/etc/gpuk/agent.toml`, its drop-ins, user-data, the environment and flags are layers. [`load`]
//! takes their texts in that order and gives one checked [`Config`] and, for every value, the place that it came from —
//! or all errors at once. Nothing here reads a file or a variable.

mod bootstrap_token;
mod checks;
pub mod driver;
mod error;
mod join_credential;
mod k3s_token;
mod labels;
mod layer;
mod merge;
mod mig_layout;
mod node_name;
mod pairs;
mod place;
mod provider_id;
mod raw;
pub mod redirect;
pub mod schema;
mod secret;
mod sections;
mod service_url;
#[cfg(test)]
mod tests;
mod token_sources;
mod toml_text;
pub mod toolkit;
pub mod user_data;
mod values;
pub(crate) mod yaml_text;
mod yaml_tree;

pub use bootstrap_token::{token_parts, without_tokens};
pub use driver::{Branch, Driver, Flavour, KernelModules, Repository};
pub use error::{ConfigError, ConfigErrors};
pub use join_credential::JoinCredential;
pub use k3s_token::{K3sCredential, K3sToken};
pub use labels::{Effect, Taint, label_value};
pub use merge::Setting;
pub use mig_layout::MigLayout;
pub use node_name::{LONGEST_NAME, NameTemplate, PLACEHOLDERS};
pub use place::{Origin, Place};
pub use provider_id::ProviderId;
pub use redirect::{Family, Mark, Protocol, Redirect};
pub use secret::{REDACTED, Secret};
pub use sections::{
    Cloud, Cluster, ClusterKind, Config, Containerd, Enabled, Gpu, Init, Missing, NameTaken, Node, Reboots, Redirects, Report,
    Role, Runtime, how_to_give,
};
pub use service_url::ServiceUrl;
pub use token_sources::{HostKey, Ssh, SshHost, TokenUrl};
pub use toolkit::{Toolkit, ToolkitMode};
pub use values::{Endpoint, Period, Pin, is_dns_label};
pub(crate) use yaml_text::parse as parse_yaml;

/// One layer: a text, or pairs, and where it comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it comes from.
    pub origin: Origin,
    /// What it says.
    pub format: Format,
}

impl Source {
    /// What the machine shows by itself; `why` is its origin.
    pub fn machine(why: impl Into<String>, pairs: Vec<(String, String)>) -> Self {
        Self { origin: Origin::Machine(why.into()), format: Format::Pairs(pairs) }
    }

    /// A TOML file.
    pub fn file(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { origin: Origin::File(path.into()), format: Format::Toml(text.into()) }
    }

    /// The whole environment; variables that are not the agent's are passed over.
    pub fn environment(variables: Vec<(String, String)>) -> Self {
        Self { origin: Origin::Environment, format: Format::Pairs(variables) }
    }

    /// What was given with `--set`, split at the first `=`.
    pub fn flags(pairs: Vec<(String, String)>) -> Self {
        Self { origin: Origin::Flags, format: Format::Pairs(pairs) }
    }
}

/// The languages in which a layer can be written.
#[derive(Clone)]
pub enum Format {
    /// Sections and keys in TOML.
    Toml(String),
    /// YAML for cloud-init, with the agent's part under `gpuk:`: a mapping, or a block of TOML.
    CloudConfig(String),
    /// Names and values. Of the environment, `GPUK_SECTION_KEY`; of anything else, `section.key`.
    Pairs(Vec<(String, String)>),
}

impl std::fmt::Debug for Format {
    /// Shows no text: there may be secrets in it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Format::Toml(text) => write!(formatter, "Toml({} bytes)", text.len()),
            Format::CloudConfig(text) => write!(formatter, "CloudConfig({} bytes)", text.len()),
            Format::Pairs(pairs) => write!(formatter, "Pairs({})", pairs.len()),
        }
    }
}

/// What all layers together say.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Every value and its place, in the order of the schema, secrets redacted.
    pub settings: Vec<Setting>,
}

/// Lays the sources over the built-in defaults, each over those before it.
pub fn load(sources: Vec<Source>) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut merged = merge::Merged::defaults(&mut errors);
    for source in sources {
        let mut found = Vec::new();
        let place = Place::of(source.origin);
        let statements = match source.format {
            Format::Toml(text) => tree(toml_text::read(&text, &|line, column| place.at(line, column)), &mut found),
            Format::CloudConfig(text) => tree(yaml_text::read(&text, &place), &mut found),
            Format::Pairs(pairs) if place.origin == Origin::Environment => pairs::environment(&pairs, &place, &mut found),
            Format::Pairs(pairs) => pairs::flags(&pairs, &place, &mut found),
        };
        found.sort_by_key(|error| (error.line, error.column));
        errors.append(&mut found);
        merged.lay_over(statements);
    }
    merged.follow_kind();
    errors.extend(merged.contradictions());
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let config = merged.config()?;
    Ok(Loaded { config, settings: merged.settings() })
}

fn tree(sections: Result<Vec<raw::RawEntry>, Vec<ConfigError>>, errors: &mut Vec<ConfigError>) -> Vec<layer::Statement> {
    match sections {
        Ok(sections) => layer::statements(sections, errors),
        Err(more) => {
            errors.extend(more);
            Vec::new()
        }
    }
}
