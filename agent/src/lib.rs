//! Turns a fresh machine with GPUs into a healthy Kubernetes node, and says what is wrong when it cannot.

pub mod config;
