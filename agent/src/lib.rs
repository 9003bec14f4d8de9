//! A fresh machine becomes a healthy Kubernetes node when a short list of things is made true of it, in order.

pub mod config;
pub mod facts;
pub mod host;
pub mod look;
pub mod step;
pub mod steps;
