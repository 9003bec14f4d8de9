//! Outcomes are told to people (terminal, console), to machines (journal) and to the cluster (Node conditions).

pub mod condition;
pub mod journal;
pub mod recorder;
pub mod repairs;
pub mod terminal;
