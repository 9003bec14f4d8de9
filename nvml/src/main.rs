//! The helper: looks at NVML (or computes with CUDA, or divides a GPU) once, prints what came of it as JSON, and ends.
//!
//! `gpuk-nvml [--cuda | --mig UUID LAYOUT] [LIBRARY]`: LIBRARY is used in place of `libnvidia-ml.so.1` (`libcuda.so.1`); UUID is that of a
//! GPU, LAYOUT e.g. `3g.40gb:1,1g.10gb:4` or `off`. Nothing is kept open: an open NVML stands in the way of a reset of the GPU and of
//! changes of MIG.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use gpuk_nvml::{MigLayout, helper};
use helper::confine::{TO_DIVIDE, TO_LOOK};
use serde::Serialize;

/// What is asked for.
enum Task {
    Look,
    Compute,
    Divide(String, MigLayout),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let task = match task(&mut arguments) {
        Ok(task) => task,
        Err(wrong) => return trouble(&wrong),
    };
    let library = arguments.next();
    // Libraries write what they like; the document has standard output for itself.
    let document = match helper::confine::standard_output() {
        Ok(document) => document,
        Err(error) => return trouble(&format!("standard output: {error}")),
    };
    if let Err(error) = helper::confine::end_with_parent() {
        return trouble(&format!("ending with the parent: {error}"));
    }
    let kept = match task {
        Task::Look => Some(TO_LOOK),
        Task::Divide(..) => Some(TO_DIVIDE),
        // Of CUDA more is asked than reading, so it keeps what it was started with.
        Task::Compute => None,
    };
    if let Some(Err(error)) = kept.map(helper::confine::give_up_capabilities_but) {
        return trouble(&format!("giving up capabilities: {error}"));
    }
    let printed = match task {
        Task::Look => print(document, &helper::nvml::look(library.as_deref())),
        Task::Compute => print(document, &helper::cuda::check(library.as_deref())),
        Task::Divide(gpu, layout) => print(document, &helper::divide::divide(library.as_deref(), &gpu, &layout)),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => trouble(&format!("printing: {error}")),
    }
}

fn task(arguments: &mut std::iter::Peekable<impl Iterator<Item = OsString>>) -> Result<Task, String> {
    if arguments.next_if(|word| word == "--cuda").is_some() {
        return Ok(Task::Compute);
    }
    if arguments.next_if(|word| word == "--mig").is_none() {
        return Ok(Task::Look);
    }
    let mut text = || arguments.next().and_then(|word| word.into_string().ok());
    let gpu = text().ok_or("--mig: the UUID of a GPU is missing")?;
    let layout = text().ok_or("--mig: the layout is missing")?;
    let layout = layout.parse().map_err(|wrong| format!("--mig: {layout:?} {wrong}"))?;
    Ok(Task::Divide(gpu, layout))
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
