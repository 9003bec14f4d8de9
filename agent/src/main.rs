//! Parse, look, do, say how it ended.

use std::process::ExitCode;

use clap::Parser;
use gpuk_agent::cli::{Cli, Exit};
use gpuk_agent::verbs;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that went away needs no message.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    let environment: Vec<(String, String)> = std::env::vars().filter(|(name, _)| name.starts_with("GPUK_")).collect();
    verbs::main(&cli, environment).into()
}
