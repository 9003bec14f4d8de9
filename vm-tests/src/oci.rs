//! A container image is three small documents and a tar archive, each named after its digest.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cache::hex;

/// The pause image's name, as Kubernetes 1.34 asks for it.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.1";

/// An image of one layer with one static program, which is also what it runs.
pub struct SingleProgram<'a> {
    /// The image's full name, tag included.
    pub name: &'a str,
    /// The program, by its path here.
    pub program: PathBuf,
    /// Where it lies in the image, without the leading slash.
    pub place: String,
    /// The command line that starts it.
    pub command: &'a [&'a str],
}

impl SingleProgram<'_> {
    /// Writes the image as an archive that `ctr images import` reads.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let program = std::fs::read(&self.program).with_context(|| format!("reading {}", self.program.display()))?;
        let mut layer = tar::Builder::new(Vec::new());
        add(&mut layer, &self.place, 0o755, &program)?;
        let layer = layer.into_inner()?;
        let configuration = text(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": self.command},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        }));
        let manifest = text(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &configuration),
            "layers": [descriptor("layer.v1.tar", &layer)],
        }));
        let mut entry = descriptor("manifest.v1+json", &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = text(&json!({"schemaVersion": 2, "manifests": [entry]}));

        let file = std::fs::File::create(archive).with_context(|| format!("creating {}", archive.display()))?;
        let mut outer = tar::Builder::new(file);
        add(&mut outer, "oci-layout", 0o644, &text(&json!({"imageLayoutVersion": "1.0.0"})))?;
        add(&mut outer, "index.json", 0o644, &index)?;
        for blob in [&configuration, &manifest, &layer] {
            add(&mut outer, &format!("blobs/{}", digest(blob).replace(':', "/")), 0o644, blob)?;
        }
        outer.into_inner()?.sync_all().context("writing an image archive")
    }
}

fn add(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len().try_into()?);
    archive.append_data(&mut header, path, content).with_context(|| format!("adding {path} to an archive"))
}

fn text(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(ring::digest::digest(&ring::digest::SHA256, blob).as_ref()))
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(blob), "size": blob.len()})
}
