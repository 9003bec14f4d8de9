//! The helper: looks at NVML (or computes with CUDA) once, prints what it saw as JSON, and ends.
//!
//! `gpuk-nvml [--cuda] [LIBRARY]`: LIBRARY is used in place of `libnvidia-ml.so.1` (`libcuda.so.1`). Nothing is kept open: an open NVML
//! stands in the way of a reset of the GPU and of changes of MIG.

use std::io::Write as _;
use std::process::ExitCode;

use gpuk_nvml::helper;
use serde::Serialize;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let is_cuda = arguments.next_if(|word| word == "--cuda").is_some();
    let library = arguments.next();
    // Libraries write what they like; the document has standard output for itself.
    let document = match helper::confine::standard_output() {
        Ok(document) => document,
        Err(error) => return trouble(&format!("standard output: {error}")),
    };
    if let Err(error) = helper::confine::end_with_parent() {
        return trouble(&format!("ending with the parent: {error}"));
    }
    // Of CUDA more is asked than reading, so it keeps what it was started with.
    if !is_cuda && let Err(error) = helper::confine::give_up_capabilities() {
        return trouble(&format!("giving up capabilities: {error}"));
    }
    let printed = if is_cuda {
        print(document, &helper::cuda::check(library.as_deref()))
    } else {
        print(document, &helper::nvml::look(library.as_deref()))
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => trouble(&format!("printing: {error}")),
    }
}

fn print(document: impl Into<std::fs::File>, printed: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(printed)?;
    text.push(b'\n');
    document.into().write_all(&text)
}

fn trouble(why: &str) -> ExitCode {
    // Where nobody reads standard error, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "gpuk-nvml: {why}");
    ExitCode::FAILURE
}
