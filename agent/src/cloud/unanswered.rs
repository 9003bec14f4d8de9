//! Whoever waits is told for whom and why: by question and address, as several questions may be on their way to one address.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Why each address has not answered yet, for every question that is being asked.
#[derive(Default)]
pub struct Unanswered(RefCell<BTreeMap<Asked, String>>);

/// The path of a question, and the address that it went to.
type Asked = (String, String);

impl Unanswered {
    /// A question goes to these addresses; when the answer is dropped, nobody waits for them any more.
    pub fn race<'a>(&'a self, path: &'a str, bases: &[String]) -> Race<'a> {
        let race = Race { unanswered: self, path };
        bases.iter().for_each(|base| race.note(base, "no answer yet".to_owned()));
        race
    }

    /// The addresses that have not answered yet, each with the reasons.
    pub fn text(&self) -> String {
        self.text_of(|_| true)
    }

    fn text_of(&self, of: impl Fn(&str) -> bool) -> String {
        let mut addresses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let unanswered = self.0.borrow();
        for ((_, base), why) in unanswered.iter().filter(|((path, _), _)| of(path)) {
            addresses.entry(base).or_default().insert(why);
        }
        let reasons = |whys: BTreeSet<&str>| whys.into_iter().collect::<Vec<_>>().join(", ");
        let each: Vec<String> = addresses.into_iter().map(|(base, whys)| format!("{base} ({})", reasons(whys))).collect();
        each.join(" and ")
    }
}

/// A question on its way to the addresses of a service, the first of which to answer is the one.
pub struct Race<'a> {
    unanswered: &'a Unanswered,
    path: &'a str,
}

impl Race<'_> {
    /// Why this address has not answered yet.
    pub fn note(&self, base: &str, why: String) {
        self.unanswered.0.borrow_mut().insert((self.path.to_owned(), base.to_owned()), why);
    }

    /// The addresses that have not answered this question, each with the reason.
    pub fn text(&self) -> String {
        self.unanswered.text_of(|path| path == self.path)
    }
}

impl Drop for Race<'_> {
    fn drop(&mut self) {
        self.unanswered.0.borrow_mut().retain(|(path, _), _| path != self.path);
    }
}
