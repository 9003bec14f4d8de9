//! A fresh machine becomes a healthy Kubernetes node when a short list of things is made true of it, in order.

pub mod catalog;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod digest;
pub mod engine;
pub mod facts;
pub mod host;
pub mod identity;
pub mod kernel_log;
pub mod look;
pub mod report;
pub mod role;
pub mod session;
pub mod show;
pub mod state;
pub mod step;
pub mod steps;
pub mod unknown;
pub mod verbs;
pub mod wake;
