//! Outcomes are told to people (terminal, console), to machines (journal) and to the cluster (Node conditions, Events).

use std::cell::RefCell;
use std::collections::BTreeMap;

pub mod condition;
pub mod journal;
pub mod lanes;
pub mod recorder;
pub mod repairs;
pub mod terminal;

/// What was last said of each step that waits: it is said once, not at every look.
#[derive(Default)]
struct SaidOnce(RefCell<BTreeMap<String, String>>);

impl SaidOnce {
    /// Whether this was not what was said of the step last; now it is.
    fn is_new(&self, step: &str, text: &str) -> bool {
        self.0.borrow_mut().insert(step.to_owned(), text.to_owned()).as_deref() != Some(text)
    }
}
