//! At boot a metadata service may still be on its way; one limit over all tries tells "late" from "never".

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;

use super::Trouble;
use super::unanswered::{Race, Unanswered};
use crate::host::network::{PlainAnswer, PlainRequest, UnreachableKind};
use crate::look::Look;

/// A single try ends after this time: a blackhole must leave room for further tries.
const TRY: Duration = Duration::from_secs(1);

/// Pauses between tries, doubling from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Asks metadata services, all of them together within `cloud.limit`.
pub struct Asking<'a> {
    /// The machine that asks.
    pub look: Look<'a>,
    began: Instant,
    deadline: Instant,
    unanswered: Unanswered,
}

/// One question: what is the same at every address of a service.
#[derive(Clone)]
pub struct Question<'a> {
    method: Method,
    path: &'a str,
    headers: HeaderMap,
    retried: &'static [u16],
}

impl<'a> Question<'a> {
    /// GET of a path, which begins with a slash.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, headers: HeaderMap::new(), retried: &[] }
    }

    /// PUT without a body.
    pub fn put(path: &'a str) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// Statuses that this service uses for "not yet", beside 429 and 5xx.
    #[must_use]
    pub fn retried_at(mut self, statuses: &'static [u16]) -> Self {
        self.retried = statuses;
        self
    }

    /// 501 says what a service never does; every other 5xx may pass (RFC 9110, "Status Codes"), and so does 429.
    fn is_not_yet(&self, status: u16) -> bool {
        status == 429 || (500..600).contains(&status) && status != 501 || self.retried.contains(&status)
    }
}

/// An answer, and the URL that gave it.
pub struct Answered {
    /// The address of the service, for further questions.
    pub base: String,
    /// The whole URL.
    pub url: String,
    /// What it answered.
    pub answer: PlainAnswer,
}

impl Answered {
    /// The body of a 200; `None` for 204 and 404, the service's word for "there is none". Any other status is not the service's.
    pub fn found(self) -> Result<Option<Vec<u8>>, Trouble> {
        match self.answer.status {
            200 => Ok(Some(self.answer.body)),
            204 | 404 => Ok(None),
            _ => Err(self.is_not_the_service("an answer in the service's form")),
        }
    }

    /// The body of a 200 as one word (an id, a zone, an address): no page that somebody else put in between is one.
    pub fn word(self) -> Result<Option<String>, Trouble> {
        let unfit = self.is_not_the_service("one word");
        let Some(body) = self.found()? else { return Ok(None) };
        let text = String::from_utf8(body).unwrap_or_default();
        let text = text.trim();
        if is_word(text) { Ok(Some(text.to_owned())) } else { Err(unfit) }
    }

    /// The body of a 200 as JSON.
    pub fn json(self) -> Result<serde_json::Value, Trouble> {
        let unfit = self.is_not_the_service("JSON");
        let Some(body) = self.found()? else { return Err(unfit) };
        serde_json::from_slice(&body).map_err(|_| unfit)
    }

    /// Something answered, but not this service. The answer itself may be anybody's and is not repeated.
    pub fn is_not_the_service(&self, wanted: &str) -> Trouble {
        let header = |name: HeaderName| self.answer.headers.get(name).and_then(|value| value.to_str().ok());
        let kind = header(header::CONTENT_TYPE).unwrap_or("no content type");
        let server =
            header(header::SERVER).map_or_else(String::new, |server| format!(", from a server that calls itself {server:?}"));
        Trouble::Unreadable(format!(
            "{} answered with status {} and {} bytes ({kind}){server} where {wanted} was expected: this is not the metadata service. \
             Name the right one as cloud.name and cloud.endpoint, or cloud.name = \"none\"",
            self.url,
            self.answer.status,
            self.answer.body.len(),
        ))
    }
}

/// A word of a metadata service: letters, digits and a few signs, never white space or markup.
pub fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=~@%".contains(&byte);
    !text.is_empty() && text.len() <= 1024 && text.bytes().all(fits)
}

impl<'a> Asking<'a> {
    /// The limit begins to run now.
    pub fn new(look: Look<'a>) -> Self {
        let began = Instant::now();
        Self { look, began, deadline: began + look.config.cloud.limit.0, unanswered: Unanswered::default() }
    }

    /// The configured address, else the service's own.
    pub fn addresses(&self, own: &[&str]) -> Vec<String> {
        match &self.look.config.cloud.endpoint {
            Some(endpoint) => vec![endpoint.as_str().to_owned()],
            None => own.iter().map(|&address| address.to_owned()).collect(),
        }
    }

    /// How long it has been asked for.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// The addresses that have not answered yet, each with the reasons.
    pub fn unanswered(&self) -> String {
        self.unanswered.text()
    }

    /// Asks one address where perhaps nobody is: then one try is enough. Somebody who answers "not yet" is there.
    pub async fn whoever_is_there(&self, base: &str, question: &Question<'_>) -> Result<Option<Answered>, Trouble> {
        match self.attempt(base, question).await {
            Ok(answered) => Ok(Some(answered)),
            Err(Attempt::NotYet(_)) => self.ask(base, question).await.map(Some),
            Err(Attempt::Silent(_) | Attempt::Failed(_)) => Ok(None),
        }
    }

    /// Asks one address until it answers or the limit is over.
    pub async fn ask(&self, base: &str, question: &Question<'_>) -> Result<Answered, Trouble> {
        self.race(&[base.to_owned()], question).await
    }

    /// Asks all addresses of a service at once, again and again; the first that answers is the one.
    pub async fn race(&self, bases: &[String], question: &Question<'_>) -> Result<Answered, Trouble> {
        let mut pause = PAUSES.0;
        let race = self.unanswered.race(question.path, bases);
        loop {
            let mut tries: FuturesUnordered<_> =
                bases.iter().map(|base| async move { (base, self.attempt(base, question).await) }).collect();
            while let Some((base, tried)) = tries.next().await {
                match tried {
                    Ok(answered) => return Ok(answered),
                    Err(Attempt::Failed(trouble)) => return Err(trouble),
                    Err(Attempt::NotYet(why) | Attempt::Silent(why)) => race.note(base, why),
                }
            }
            if self.deadline.saturating_duration_since(Instant::now()) <= pause {
                tokio::time::sleep_until(self.deadline).await;
                return Err(self.over(bases, question, &race));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn attempt(&self, base: &str, question: &Question<'_>) -> Result<Answered, Attempt> {
        let limit = TRY.min(self.deadline.saturating_duration_since(Instant::now()));
        let url = format!("{base}{}", question.path);
        let request =
            PlainRequest { method: question.method.clone(), url: url.clone(), headers: question.headers.clone(), limit };
        // The second limit is for a network that does not keep the first.
        let answer = tokio::time::timeout(limit, self.look.plain(request)).await;
        match answer {
            Ok(Ok(answer)) if question.is_not_yet(answer.status) => {
                Err(Attempt::NotYet(format!("{} answers with status {}", question.path, answer.status)))
            }
            Ok(Ok(answer)) => Ok(Answered { base: base.to_owned(), url, answer }),
            Ok(Err(failure)) if failure.kind == UnreachableKind::TooLarge => {
                Err(Attempt::Failed(Trouble::Unreadable(failure.text)))
            }
            Ok(Err(failure)) if failure.kind != UnreachableKind::Timeout => Err(Attempt::Silent(failure.text)),
            Ok(Err(_)) | Err(_) => Err(Attempt::Silent("no answer in time".to_owned())),
        }
    }

    fn over(&self, bases: &[String], question: &Question<'_>, race: &Race<'_>) -> Trouble {
        let took = crate::show::duration(self.took());
        let why = format!("{} {}: not answered within {took} (cloud.limit)", race.text(), question.path);
        Trouble::Unreachable { url: format!("{}{}", bases.first().map_or("", String::as_str), question.path), why }
    }
}

/// Why a try gave no answer.
enum Attempt {
    /// Somebody is there, and a further try may be answered.
    NotYet(String),
    /// Nobody answered; a further try may be answered.
    Silent(String),
    /// No further one will.
    Failed(Trouble),
}
