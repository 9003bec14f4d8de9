//! The NVML helper and the stand-in for NVML's library, built from this tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of what cargo builds for tests, with the helper and the stand-in in it.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--package", "gpuk-nvml", "--package", "nvml-stand-in"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .unwrap();
        assert!(built.success(), "cargo build of the NVML helper and its stand-in failed");
        // target/debug/deps/TEST and target/debug/PROGRAM → target/debug
        let program = std::env::current_exe().unwrap();
        let folder = program.parent().unwrap();
        if folder.ends_with("deps") { folder.parent().unwrap().to_owned() } else { folder.to_owned() }
    })
}

/// The helper's program.
pub fn helper() -> PathBuf {
    built().join("gpuk-nvml")
}

/// Puts NVML's library into `directory`, described by a file of `nvml-stand-in/fixtures`.
pub fn library(directory: &Path, fixture: &str) -> PathBuf {
    let library = directory.join("libnvidia-ml.so.1");
    std::os::unix::fs::symlink(built().join("libnvml_stand_in.so"), &library).unwrap();
    let described = format!("{}/../nvml-stand-in/fixtures/{fixture}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(described, directory.join("libnvidia-ml.so.1.json")).unwrap();
    library
}
