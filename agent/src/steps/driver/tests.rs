//! What is decided, and what the step makes of a machine of files.
#![allow(clippy::disallowed_methods, reason = "a test prepares its own files")]

mod deciding;
mod every;
mod stepping;
