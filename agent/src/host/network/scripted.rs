//! A fake network: it shows what the agent makes of an answer, not how a connection behaves.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::{Answer, Get, Network, PlainAnswer, PlainRequest, Unreachable, UnreachableKind};

/// Answers by the URL's beginning, the first match first; an unknown URL is refused.
#[derive(Default)]
pub struct ScriptedNetwork {
    #[allow(clippy::type_complexity, reason = "a list of rules, read nowhere else")]
    rules: Vec<(String, Box<dyn Fn(&Get) -> Result<Answer, Unreachable>>)>,
    #[allow(clippy::type_complexity, reason = "a list of rules, read nowhere else")]
    plain: Vec<(String, Box<dyn Fn(&PlainRequest) -> Result<PlainAnswer, Unreachable>>)>,
    /// Connections that are accepted: `tcp://10.0.0.5:80`, with ` from PATH` for a network namespace.
    pub open: Vec<String>,
    /// This machine's own address.
    pub address: Option<IpAddr>,
    /// Every URL that was asked, in order.
    pub seen: RefCell<Vec<String>>,
}

impl ScriptedNetwork {
    /// Answers HTTPS requests whose URL begins with `prefix`.
    #[must_use]
    pub fn answering(mut self, prefix: &str, rule: impl Fn(&Get) -> Result<Answer, Unreachable> + 'static) -> Self {
        self.rules.push((prefix.to_owned(), Box::new(rule)));
        self
    }

    /// Answers plain requests whose URL begins with `prefix`.
    #[must_use]
    pub fn answering_plain(
        mut self,
        prefix: &str,
        rule: impl Fn(&PlainRequest) -> Result<PlainAnswer, Unreachable> + 'static,
    ) -> Self {
        self.plain.push((prefix.to_owned(), Box::new(rule)));
        self
    }
}

fn refused(url: &str) -> Unreachable {
    Unreachable { kind: UnreachableKind::Refused, text: format!("{url}: connection refused") }
}

#[async_trait(?Send)]
impl Network for ScriptedNetwork {
    async fn get(&self, request: Get) -> Result<Answer, Unreachable> {
        self.seen.borrow_mut().push(request.url.clone());
        match self.rules.iter().find(|(prefix, _)| request.url.starts_with(prefix.as_str())) {
            Some((_, rule)) => rule(&request),
            None => Err(refused(&request.url)),
        }
    }

    async fn plain(&self, request: PlainRequest) -> Result<PlainAnswer, Unreachable> {
        self.seen.borrow_mut().push(request.url.clone());
        match self.plain.iter().find(|(prefix, _)| request.url.starts_with(prefix.as_str())) {
            Some((_, rule)) => rule(&request),
            None => Err(refused(&request.url)),
        }
    }

    async fn connect(&self, to: SocketAddr, namespace: Option<&Path>, _limit: Duration) -> Result<(), Unreachable> {
        let from = namespace.map_or_else(String::new, |path| format!(" from {}", path.display()));
        let whole = format!("tcp://{to}{from}");
        self.seen.borrow_mut().push(whole.clone());
        if self.open.contains(&whole) { Ok(()) } else { Err(refused(&whole)) }
    }

    fn own_address(&self) -> Option<IpAddr> {
        self.address
    }
}
