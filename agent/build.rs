//! The NVML helper is a program for another target: `packaging/build` makes it first and names it (packed by gzip) in `GPUK_NVML_HELPER`.
//! Without that variable the agent carries none, and everything but NVML's view of the GPUs works.

#![allow(clippy::disallowed_methods, reason = "a build script is no part of the agent")]

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-env-changed=GPUK_NVML_HELPER");
    println!("cargo::rerun-if-changed=build.rs");
    let helper = match std::env::var("GPUK_NVML_HELPER") {
        Ok(path) if !path.is_empty() => path,
        _ => {
            let none = format!("{}/no-helper", std::env::var("OUT_DIR").unwrap_or_default());
            std::fs::write(&none, [])?;
            none
        }
    };
    println!("cargo::rerun-if-changed={helper}");
    println!("cargo::rustc-env=GPUK_NVML_HELPER_FILE={helper}");
    Ok(())
}
