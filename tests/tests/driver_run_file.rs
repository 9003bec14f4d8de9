//! A driver from a `.run` file, whose installer a script stands for, in a root of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "other tests need the rest")]
#[path = "driver/image.rs"]
mod image;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use image::{Image, code, put, run};

const KERNEL: &str = "6.1.0-99-amd64";
const VERSION: &str = "535.261.03";
const INSTALLER: &str = include_str!("driver/installer.sh");

/// An image with the file, and its right sum.
fn image(more: &str) -> Result<Image> {
    let file = format!("/srv/NVIDIA-Linux-x86_64-{VERSION}.run");
    let folder = tempfile::tempdir()?;
    put(folder.path(), "installer", INSTALLER)?;
    let sum = run(Command::new("sha256sum").arg(folder.path().join("installer")))?;
    let sum = sum.split_whitespace().next().context("a sum")?;
    let driver = format!("{more}run-file = \"{file}\"\nrun-file-sha256 = \"{sum}\"\n");
    let image = Image::new("ID=debian\nVERSION_ID=12\n", KERNEL, &driver)?;
    for (path, text) in [(file.trim_start_matches('/'), INSTALLER), ("usr/bin/cc", ""), ("usr/bin/make", "")] {
        put(&image.root, path, text)?;
    }
    put(&image.root, &format!("usr/lib/modules/{KERNEL}/build/Makefile"), "")?;
    Ok(image)
}

/// The options that the installer was given; none where it did not run.
fn options(image: &Image) -> Vec<String> {
    let text = std::fs::read_to_string(image.root.join("srv/options")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn it_is_installed_once_with_the_options_of_its_branch() -> Result<()> {
    for (flavour, of_flavour) in [("proprietary", None), ("open", Some("--kernel-module-build-directory=kernel-open"))] {
        let image = image(&format!("flavour = \"{flavour}\"\n"))?;
        let _ = std::fs::remove_file(image.root.join("usr/sbin/dkms"));
        let step = image.up()?;
        ensure!(step["verdict"] == "ready" && step["text"] == format!("{VERSION}, for kernel {KERNEL}"), "{step:#}");
        let kernel = format!("--kernel-name={KERNEL}");
        let begin = ["--silent", "--no-x-check", "--no-nouveau-check"];
        let expected: Vec<&str> = begin.into_iter().chain(of_flavour).chain([kernel.as_str()]).collect();
        ensure!(options(&image) == expected, "{:?}", options(&image));
        image.up_again()?;
        ensure!(options(&image) == expected, "the installer ran again");
        // A later kernel of the image has no module, and DKMS is not there to build one: the installer makes it.
        let next = "6.1.0-100-amd64";
        put(&image.root, &format!("usr/lib/modules/{next}/modules.builtin"), "")?;
        put(&image.root, &format!("usr/lib/modules/{next}/build/Makefile"), "")?;
        let step = image.up()?;
        ensure!(step["verdict"] == "ready" && step["text"] == format!("{VERSION}, for kernel {next}"), "{step:#}");
        image.up_again()?;
    }
    Ok(())
}

#[test]
fn another_file_than_the_one_that_is_named_does_not_run() -> Result<()> {
    let image = image("")?;
    put(&image.root, &format!("srv/NVIDIA-Linux-x86_64-{VERSION}.run"), &format!("{INSTALLER}\n"))?;
    let step = image.up()?;
    ensure!(step["verdict"] == "broken" && code(&step) == "run-file-damaged", "{step:#}");
    ensure!(options(&image).is_empty(), "it ran: {:?}", options(&image));
    Ok(())
}

#[test]
fn what_the_installer_could_not_do_is_told_in_the_words_of_its_log() -> Result<()> {
    for (cause, expected, words) in [
        ("srv/compiler-error", "driver-build-failed", "nv-pci.c:237:9: error: too few arguments"),
        ("srv/other-error", "run-file-failed", "You do not appear to have libc header files installed"),
    ] {
        let image = image("")?;
        put(&image.root, cause, "")?;
        let step = image.up()?;
        ensure!(step["verdict"] == "broken" && code(&step) == expected, "{step:#}");
        ensure!(step["finding"]["why"].as_str().unwrap_or_default().contains(words), "{step:#}");
        std::fs::remove_file(image.root.join(cause))?;
        ensure!(image.up()?["verdict"] == "ready", "it does not go on");
    }
    Ok(())
}
