//! NoCloud hands a machine its identity as files: a seed directory, a disk labelled `cidata`, a web server, or what cloud-init made of them.

mod line;

use anyhow::Result;
use async_trait::async_trait;
use serde_json::Value;

use super::asking::{Answered, Asking, Question};
use super::cloud_init::CloudInit;
use super::{Cloud, Metadata, Trouble, disk, text};
use crate::config::parse_yaml;
use crate::facts::Instance;
use crate::look::Look;

/// The seed directories that cloud-init knows ("NoCloud", cloud-init documentation, data sources).
const SEEDS: &[&str] = &["/var/lib/cloud/seed/nocloud", "/var/lib/cloud/seed/nocloud-net"];

/// The seed disk, by its file system label.
const DISKS: &[&str] = &["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"];

/// The row of the table.
pub struct NoCloud;

/// The two files of a seed.
struct Seed {
    meta_data: Value,
    source: String,
    user_data: Result<Option<Vec<u8>>, Trouble>,
}

#[async_trait(?Send)]
impl Cloud for NoCloud {
    fn name(&self) -> &'static str {
        "nocloud"
    }

    fn claims(&self, look: Look<'_>) -> Result<Option<String>> {
        if let Some((_, source)) = line::find(look)? {
            return Ok(Some(format!("{source} says ds=nocloud")));
        }
        for seed in SEEDS {
            if look.exists(format!("{seed}/meta-data"))? {
                return Ok(Some(format!("there is {seed}/meta-data")));
            }
        }
        if let Some(disk) = disk(look, DISKS)? {
            return Ok(Some(format!("there is the disk {disk}")));
        }
        let platform = CloudInit::read(look).ok().flatten().and_then(|known| known.platform());
        Ok(platform.filter(|name| name == "nocloud").map(|_| "cloud-init calls the platform \"nocloud\"".to_owned()))
    }

    async fn fetch(&self, asking: &Asking<'_>) -> Result<Metadata, Trouble> {
        let look = asking.look;
        if let Some(known) = CloudInit::read(look)? {
            return Ok(known.metadata(self.name(), look));
        }
        let (line, line_source) = line::find(look)?.unwrap_or_default();
        let seed = match &line.seed_from {
            Some(from) if from.starts_with("http://") => Some(from_server(asking, from).await?),
            Some(from) if from.starts_with('/') || from.starts_with("file://") => {
                let directory = from.trim_start_matches("file://").trim_end_matches('/').to_owned();
                let missing = || Trouble::Unreadable(format!("{line_source} names the seed {from}, which has no meta-data"));
                Some(from_directory(look, &directory)?.ok_or_else(missing)?)
            }
            Some(from) => {
                return Err(Trouble::Unreadable(format!(
                    "{line_source} names the seed {from}, and only http://, file:// and a path can be read before cloud-init has"
                )));
            }
            None => self.read_files(look)?,
        };
        let (meta_data, seed_source, user_data) = match seed {
            Some(seed) => (seed.meta_data, seed.source, seed.user_data),
            None => (Value::default(), String::new(), Ok(None)),
        };
        // What the kernel's command line or the firmware says is the operator's last word.
        let source = if line.instance_id.is_some() { line_source } else { seed_source };
        let instance = line.instance_id.or_else(|| text(&meta_data, "/instance-id")).map(|id| Instance {
            cloud: self.name(),
            id,
            source,
            name: line.local_hostname.or_else(|| text(&meta_data, "/local-hostname")),
            region: text(&meta_data, "/region"),
            zone: text(&meta_data, "/availability-zone"),
            ..Instance::default()
        });
        Ok(Metadata { instance, user_data, ..Metadata::default() })
    }
}

impl NoCloud {
    fn read_files(&self, look: Look<'_>) -> Result<Option<Seed>, Trouble> {
        for directory in SEEDS {
            if let Some(seed) = from_directory(look, directory)? {
                return Ok(Some(seed));
            }
        }
        let Some(disk) = disk(look, DISKS)? else { return Ok(None) };
        let mut files = look.files_of_disk(disk, &["meta-data", "user-data"])?;
        let source = format!("meta-data on {disk}");
        let meta_data = meta_data(&String::from_utf8_lossy(&files.remove("meta-data").unwrap_or_default()), &source)?;
        Ok(Some(Seed { meta_data, source, user_data: Ok(files.remove("user-data")) }))
    }
}

fn from_directory(look: Look<'_>, directory: &str) -> Result<Option<Seed>, Trouble> {
    let source = format!("{directory}/meta-data");
    let Some(text) = look.text(&source)? else { return Ok(None) };
    let meta_data = meta_data(&text, &source)?;
    // Unreadable user-data (e.g. only for root) costs the configuration in it, not the instance's identity.
    let user_data = look.read(format!("{directory}/user-data")).map_err(Trouble::from);
    Ok(Some(Seed { meta_data, source, user_data }))
}

/// A seed on a web server: `meta-data` must be there, `user-data` may be.
async fn from_server(asking: &Asking<'_>, from: &str) -> Result<Seed, Trouble> {
    let base = from.trim_end_matches('/');
    let (answered, user_data) = (Question::get("/meta-data"), Question::get("/user-data"));
    let (answered, user_data) = tokio::join!(asking.ask(base, &answered), asking.ask(base, &user_data));
    let answered = answered?;
    let (source, missing) = (answered.url.clone(), answered.is_not_the_service("the meta-data of a NoCloud seed"));
    let text = answered.found()?.and_then(|bytes| String::from_utf8(bytes).ok());
    // A page that somebody put in between may be YAML by chance, but no mapping; what it says is not repeated.
    let meta_data = text.and_then(|text| meta_data(&text, &source).ok()).ok_or(missing)?;
    Ok(Seed { meta_data, source, user_data: user_data.and_then(Answered::found) })
}

/// What a seed says of the machine: a mapping, or nothing.
fn meta_data(text: &str, source: &str) -> Result<Value, Trouble> {
    let wrong = |why: String| Trouble::Unreadable(format!("reading {source}: {why}. Right would be e.g. instance-id: gpu-1"));
    match parse_yaml(text).map_err(|error| wrong(error.to_string()))? {
        _ if text.trim().is_empty() => Ok(Value::default()),
        meta_data @ (Value::Object(_) | Value::Null) => Ok(meta_data),
        _ => Err(wrong("it is not a mapping".to_owned())),
    }
}

#[cfg(test)]
mod tests;
