//! Stands for the supervisor of a k3s server, over HTTPS and from its sources (`pkg/server/handlers`, `pkg/server/auth`, `pkg/nodepassword`,
//! `pkg/clientaccess`) and documentation; it cannot show what a real server answers otherwise than they say, nor anything that a k3s agent does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests call this, and a panic is how a test fails")]

mod answers;
mod authority;
mod http;
mod server;

pub use authority::Authority;
pub use http::Request;
pub use server::{Behaviour, Server};
