//! Whoever makes a token when asked is asked once, and again only when the token has died or some time has passed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::verdict::Trouble;
use super::{Found, Source};
use crate::host::programs::{End, Output, Said};
use crate::look::Look;
use crate::step::{Asking, Change, Command};

/// What was answered, one file for each source: on a file system in memory, and only until the machine has joined.
const ANSWERS: &str = "/run/gpuk-agent/join/answers";

/// How long a token is used. It lives ten minutes (`gpuk-agent token serve-ssh`), and a join that begins in the first half of that ends
/// before it: kubeadm is given five.
const LIFE: Duration = Duration::from_secs(300);

/// The pause after the first failure; it doubles with each, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(240);

/// What a source has answered, or the change that asks it. `judge` tells what an answer without a token means.
pub fn look(
    look: Look<'_>,
    source: Source<'_>,
    name: &str,
    command: Command,
    before: Vec<Change>,
    judge: fn(Source<'_>, Result<&Output, &End>) -> Trouble,
) -> Found {
    let keep = PathBuf::from(format!("{ANSWERS}/{name}"));
    let ask = |attempt: u32| {
        let asking = Change::Ask(Asking { command: command.clone(), keep: keep.clone(), attempt });
        before.iter().cloned().chain([asking]).collect::<Vec<_>>()
    };
    // One that cannot be read is worth as much as none: it is written anew.
    let said = look.read(&keep).ok().flatten().and_then(|bytes| Said::from_file(&bytes).ok());
    let Some(said) = said.filter(|said| said.argv == command.argv) else { return Found::Unasked(ask(1)) };
    let next = said.attempt.saturating_add(1);
    let age = said.age(look.now());
    let output = match &said.end {
        End::Ended { code, stdout, stderr } => Ok(Output { code: *code, stdout: stdout.clone(), stderr: stderr.clone() }),
        other => Err(other),
    };
    let again = age.is_none_or(|age| age >= pause(said.attempt)).then(|| ask(next));
    match output {
        Ok(output) if output.success() && age.is_none_or(|age| age >= LIFE) => Found::Unasked(ask(next)),
        Ok(output) if output.success() => Found::Text(output.stdout, again),
        Ok(output) => Found::Nothing(judge(source, Ok(&output)), again),
        Err(end) => Found::Nothing(judge(source, Err(end)), again),
    }
}

/// How long nobody is asked again after so many times.
fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(LONGEST_PAUSE)
}

/// Whether there are answers, with their tokens.
pub fn left(look: Look<'_>) -> Result<bool> {
    Ok(!look.list(ANSWERS)?.is_empty())
}

/// What takes them away.
pub fn remains(look: Look<'_>) -> Result<Vec<Change>> {
    let names = look.list(ANSWERS)?;
    Ok(names.into_iter().map(|name| Change::Remove { path: PathBuf::from(ANSWERS).join(name), secret: true }).collect())
}
