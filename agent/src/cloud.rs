//! A cloud is a row in a table: how it is recognised without the network, and how it is asked.

pub mod nocloud;

use anyhow::Result;
use async_trait::async_trait;

use crate::facts::Instance;
use crate::look::Look;

/// What a platform told about this machine.
pub struct Metadata {
    /// Who it is.
    pub instance: Option<Instance>,
    /// What its owner passed along.
    pub user_data: Result<Option<UserData>>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { instance: None, user_data: Ok(None) }
    }
}

/// What the owner gave this instance on its way. It may hold secrets: never logged, never kept.
pub struct UserData {
    /// Where it was read, e.g. a path.
    pub source: String,
    /// As it was found, perhaps packed.
    pub bytes: Vec<u8>,
}

/// One platform. A new one is a file beside `nocloud.rs` and a line in [`clouds`].
#[async_trait(?Send)]
pub trait Cloud {
    /// Its name in facts, lower case.
    fn name(&self) -> &'static str;

    /// Whether this machine is there, from firmware and files alone.
    fn claims(&self, look: Look<'_>) -> Result<bool>;

    /// Asks it. Absent is `None` inside; unreadable is an error.
    async fn fetch(&self, look: Look<'_>) -> Result<Metadata>;
}

/// All platforms; the first that claims the machine is asked.
fn clouds() -> Vec<Box<dyn Cloud>> {
    vec![Box::new(nocloud::NoCloud)]
}

/// Asks the platform that this machine runs on. A machine on none is known by its machine id.
pub async fn ask(look: Look<'_>) -> Result<Metadata> {
    let mut metadata = Metadata::default();
    for cloud in clouds() {
        if cloud.claims(look)? {
            metadata = cloud.fetch(look).await?;
            break;
        }
    }
    if metadata.instance.is_some() {
        return Ok(metadata);
    }
    let id = look.facts.machine_id.clone();
    // systemd writes the word "uninitialized" into an image's file until the first boot (machine-id(5)).
    let known = !id.is_empty() && id != "uninitialized";
    let instance = known.then(|| Instance { cloud: "none", id, source: "/etc/machine-id".to_owned(), ..Instance::default() });
    Ok(Metadata { instance, ..metadata })
}
