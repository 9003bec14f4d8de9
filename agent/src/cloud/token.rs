//! A metadata service that wants a token hands one out to whoever can send a PUT, which a cheated web server cannot.

use http::HeaderValue;
use tokio::sync::Mutex;

use super::Trouble;
use super::asking::{Answered, Asking, Question, is_word};

/// How a service hands out tokens.
pub struct Protocol {
    /// Where the PUT goes.
    pub path: &'static str,
    /// The header that says how many seconds the token is to live, and the seconds.
    pub lifetime: (&'static str, &'static str),
    /// The header that carries the token in every further request.
    pub header: &'static str,
    /// Answers to the PUT that mean "without a token, please".
    pub without_at: &'static [u16],
}

/// A service with the token in hand.
pub struct Service<'a> {
    asking: &'a Asking<'a>,
    protocol: &'static Protocol,
    /// The address that answered first.
    pub base: String,
    token: Mutex<Token>,
}

#[derive(Clone)]
struct Token {
    value: Option<HeaderValue>,
    renewed: bool,
}

impl<'a> Service<'a> {
    /// Asks all addresses for a token; the one that answers first is asked from then on.
    pub async fn open(asking: &'a Asking<'a>, own: &[&str], protocol: &'static Protocol) -> Result<Self, Trouble> {
        let answered = asking.race(&asking.addresses(own), &put(protocol)).await?;
        let base = answered.base.clone();
        let value = token(answered, protocol)?;
        Ok(Self { asking, protocol, base, token: Mutex::new(Token { value, renewed: false }) })
    }

    /// GET with the token. A token that went stale is replaced once.
    pub async fn get(&self, question: Question<'_>) -> Result<Answered, Trouble> {
        let used = self.token.lock().await.value.clone();
        let answered = self.asking.ask(&self.base, &self.with(question.clone(), used.clone())).await?;
        if answered.answer.status != 401 || used.is_none() {
            return Ok(answered);
        }
        let mut token_now = self.token.lock().await;
        // Of several questions at once, the first fetches the new token for all.
        if token_now.value == used && !token_now.renewed {
            let answered = self.asking.ask(&self.base, &put(self.protocol)).await?;
            *token_now = Token { value: token(answered, self.protocol)?, renewed: true };
        }
        let value = token_now.value.clone();
        drop(token_now);
        self.asking.ask(&self.base, &self.with(question, value)).await
    }

    /// GET of one word; `None` where the service has none.
    pub async fn word(&self, path: &str) -> Result<Option<String>, Trouble> {
        self.get(Question::get(path)).await?.word()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn with<'q>(&self, question: Question<'q>, token: Option<HeaderValue>) -> Question<'q> {
        match token {
            Some(token) => question.with(self.protocol.header, token),
            None => question,
        }
    }
}

fn put(protocol: &Protocol) -> Question<'static> {
    let (name, seconds) = protocol.lifetime;
    Question::put(protocol.path).with(name, HeaderValue::from_static(seconds))
}

fn token(answered: Answered, protocol: &Protocol) -> Result<Option<HeaderValue>, Trouble> {
    if protocol.without_at.contains(&answered.answer.status) {
        return Ok(None);
    }
    let unfit = answered.is_not_the_service("a token");
    if answered.answer.status == 403 {
        let (url, remedy) = (&answered.url, "Switch it on for this instance, or set cloud.name = \"none\"");
        return Err(Trouble::Unreadable(format!(
            "{url} answered with status 403: the metadata service is switched off. {remedy}"
        )));
    }
    let text = answered.found()?.and_then(|body| String::from_utf8(body).ok()).unwrap_or_default();
    match HeaderValue::try_from(text.trim()) {
        Ok(mut token) if is_word(text.trim()) => {
            token.set_sensitive(true);
            Ok(Some(token))
        }
        _ => Err(unfit),
    }
}
