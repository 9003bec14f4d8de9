//! NoCloud hands a machine its identity as files: a seed directory, a disk labelled `cidata`, or what cloud-init made of either.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Cloud, Metadata, UserData};
use crate::facts::Instance;
use crate::look::Look;

/// The seed directories that cloud-init knows ("NoCloud", cloud-init documentation, data sources).
const SEEDS: &[&str] = &["/var/lib/cloud/seed/nocloud", "/var/lib/cloud/seed/nocloud-net"];

/// The seed disk, by its file system label.
const DISKS: &[&str] = &["/dev/disk/by-label/cidata", "/dev/disk/by-label/CIDATA"];

/// Written by cloud-init in every boot, so it cannot be an older instance's.
const INSTANCE_DATA: &str = "/run/cloud-init/instance-data.json";

/// The user-data as cloud-init found it.
const USER_DATA: &str = "/var/lib/cloud/instance/user-data.txt";

/// The row of the table.
pub struct NoCloud;

#[async_trait(?Send)]
impl Cloud for NoCloud {
    fn name(&self) -> &'static str {
        "nocloud"
    }

    fn claims(&self, look: Look<'_>) -> Result<bool> {
        if look.exists(INSTANCE_DATA)? {
            return Ok(true);
        }
        for seed in SEEDS {
            if look.exists(format!("{seed}/meta-data"))? {
                return Ok(true);
            }
        }
        Ok(seed_disk(look)?.is_some())
    }

    async fn fetch(&self, look: Look<'_>) -> Result<Metadata> {
        if let Some(text) = look.text(INSTANCE_DATA)? {
            let data: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("reading {INSTANCE_DATA}"))?;
            let id = data.pointer("/v1/instance_id").and_then(serde_json::Value::as_str).unwrap_or_default();
            // Without any data source cloud-init calls every machine the same.
            let id = if id.starts_with("iid-datasource") { "" } else { id };
            return Ok(Metadata {
                instance: self.instance(id, INSTANCE_DATA),
                user_data: user_data(USER_DATA, look.read(USER_DATA)),
            });
        }
        for seed in SEEDS {
            if let Some(meta_data) = look.text(format!("{seed}/meta-data"))? {
                let path = format!("{seed}/user-data");
                let bytes = look.read(&path);
                return Ok(Metadata {
                    instance: self.instance(&instance_id(&meta_data), &format!("{seed}/meta-data")),
                    user_data: user_data(&path, bytes),
                });
            }
        }
        let Some(disk) = seed_disk(look)? else { return Ok(Metadata::default()) };
        let mut files = look.files_of_disk(disk, &["meta-data", "user-data"])?;
        let meta_data = files.remove("meta-data").unwrap_or_default();
        let meta_data = String::from_utf8_lossy(&meta_data);
        Ok(Metadata {
            instance: self.instance(&instance_id(&meta_data), &format!("meta-data on {disk}")),
            user_data: user_data(&format!("user-data on {disk}"), Ok(files.remove("user-data"))),
        })
    }
}

impl NoCloud {
    fn instance(&self, id: &str, source: &str) -> Option<Instance> {
        (!id.is_empty()).then(|| Instance {
            cloud: self.name(),
            id: id.to_owned(),
            source: source.to_owned(),
            ..Instance::default()
        })
    }
}

/// Unreadable user-data (e.g. only for root) costs the configuration in it, not the instance's identity.
fn user_data(source: &str, bytes: Result<Option<Vec<u8>>>) -> Result<Option<UserData>> {
    Ok(bytes?.map(|bytes| UserData { source: source.to_owned(), bytes }))
}

/// The seed disk, if there is one. An image has the disks of the machine it is worked on at, which are none of its business.
fn seed_disk(look: Look<'_>) -> Result<Option<&'static str>> {
    if look.running_system() {
        for disk in DISKS {
            if look.exists(disk)? {
                return Ok(Some(disk));
            }
        }
    }
    Ok(None)
}

/// `instance-id` of a meta-data file (YAML; JSON is YAML too).
fn instance_id(meta_data: &str) -> String {
    let value: serde_json::Value = serde_saphyr::from_str(meta_data).unwrap_or_default();
    match value.get("instance-id") {
        Some(serde_json::Value::String(id)) => id.clone(),
        Some(serde_json::Value::Number(id)) => id.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::instance_id;

    #[test]
    fn meta_data_is_yaml_or_json() {
        assert_eq!(instance_id("instance-id: i-0abc\nlocal-hostname: x\n"), "i-0abc");
        assert_eq!(instance_id("{\"instance-id\": \"iid-1\"}"), "iid-1");
        assert_eq!(instance_id("instance-id: 42\n"), "42");
        assert_eq!(instance_id("[broken"), "");
    }
}
