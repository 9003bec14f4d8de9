//! An API server is judged by what it answers and by how the connection failed, so both come back typed.

mod connect;
mod plain;
mod scripted;

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::causes;
use crate::config::Secret;
pub use plain::{PlainAnswer, PlainRequest};
pub use scripted::ScriptedNetwork;

/// Whom to trust for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate: only for the first, unverified look of a discovery. Never with a credential.
    Anyone,
    /// Only certificates under these CA certificates (PEM), with the right name and dates.
    Only(String),
}

/// One GET over HTTPS.
#[derive(Clone, Debug)]
pub struct Get {
    /// The whole URL.
    pub url: String,
    /// Whom to trust.
    pub trust: Trust,
    /// A bearer token. Never sent when `trust` is `Anyone`.
    pub bearer: Option<Secret>,
    /// Further headers that carry a credential, e.g. `authorization`. Never sent when `trust` is `Anyone`.
    pub headers: Vec<(&'static str, Secret)>,
    /// From the first packet to the last byte.
    pub limit: Duration,
}

/// What a server answered, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status, e.g. 403.
    pub status: u16,
    /// The server's clock, from the `Date` header (one second is the resolution).
    pub date: Option<SystemTime>,
    /// `Retry-After` in seconds.
    pub retry_after: Option<Duration>,
    /// The body, at most [`BODY_CAP`] bytes.
    pub body: Vec<u8>,
}

/// A larger answer is an error.
pub const BODY_CAP: usize = 1024 * 1024;

/// No answer came; `kind` says which way it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Which way.
    pub kind: UnreachableKind,
    /// The library's own words, innermost cause last.
    pub text: String,
}

/// The ways in which a request fails without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreachableKind {
    /// Nobody listens there.
    Refused,
    /// Not within the limit.
    Timeout,
    /// The name does not resolve.
    Name,
    /// The server's certificate is not under the trusted CA.
    UnknownAuthority,
    /// The certificate is for other names.
    WrongName,
    /// The certificate has expired or is not valid yet, by our clock.
    CertificateDates,
    /// The answer is larger than [`BODY_CAP`].
    TooLarge,
    /// Anything else: reset, no route, not TLS.
    Other,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Requests to API servers and metadata services.
#[async_trait(?Send)]
pub trait Network {
    /// One GET: no proxy, no redirect.
    async fn get(&self, request: Get) -> Result<Answer, Unreachable>;

    /// One request to a metadata service over plain HTTP: no proxy, no redirect.
    async fn plain(&self, request: PlainRequest) -> Result<PlainAnswer, Unreachable>;

    /// Whether somebody accepts a TCP connection, asked from the network namespace in a file, or from this machine's own.
    async fn connect(&self, to: SocketAddr, namespace: Option<&Path>, limit: Duration) -> Result<(), Unreachable>;

    /// The address from which this machine speaks to the world; `None` where it has no default route.
    fn own_address(&self) -> Option<IpAddr>;
}

/// The machine's network.
#[derive(Default)]
pub struct RealNetwork {
    /// Kept, so that requests to one metadata service share connections.
    plain: OnceCell<reqwest::Client>,
}

#[async_trait(?Send)]
impl Network for RealNetwork {
    async fn get(&self, request: Get) -> Result<Answer, Unreachable> {
        let other = |text: String| Unreachable { kind: UnreachableKind::Other, text };
        // reqwest has no provider of its own; an error only says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(request.limit)
            .user_agent(concat!("gpuk-agent/", env!("CARGO_PKG_VERSION")));
        let has_credential = request.bearer.is_some() || !request.headers.is_empty();
        builder = match &request.trust {
            Trust::Anyone if has_credential => {
                return Err(other("a credential is never sent to a server that is not verified".to_owned()));
            }
            Trust::Anyone => builder.tls_danger_accept_invalid_certs(true),
            Trust::Only(pem) => {
                let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| other(causes(&error)))?;
                builder.tls_certs_only(roots)
            }
        };
        let client = builder.build().map_err(|error| other(causes(&error)))?;
        let mut call = client.get(&request.url);
        if let Some(token) = &request.bearer {
            call = call.bearer_auth(token.expose());
        }
        for (name, value) in &request.headers {
            let mut value =
                http::HeaderValue::from_str(value.expose()).map_err(|_| other(format!("the header {name} cannot be sent")))?;
            value.set_sensitive(true);
            call = call.header(*name, value);
        }
        let response = call.send().await.map_err(|error| unreachable(&error))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Answer {
            status: response.status().as_u16(),
            date: header("date").and_then(|date| httpdate::parse_http_date(&date).ok()),
            retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
            body: body(response).await?,
        })
    }

    async fn plain(&self, request: PlainRequest) -> Result<PlainAnswer, Unreachable> {
        let client = match self.plain.get() {
            Some(client) => client,
            None => {
                let client = plain::client().map_err(|error| unreachable(&error))?;
                self.plain.get_or_init(|| client)
            }
        };
        plain::send(client, request).await
    }

    async fn connect(&self, to: SocketAddr, namespace: Option<&Path>, limit: Duration) -> Result<(), Unreachable> {
        connect::connect(to, namespace.map(Path::to_owned), limit).await
    }

    fn own_address(&self) -> Option<IpAddr> {
        connect::own_address()
    }
}

/// The whole body, when it is no larger than [`BODY_CAP`].
async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, Unreachable> {
    let size = |size: u64| format!("the answer is larger than {} KiB: {size} bytes", BODY_CAP >> 10);
    let url = response.url().clone();
    let too_large = |text: String| Unreachable { kind: UnreachableKind::TooLarge, text: format!("{url}: {text}") };
    if let Some(announced) = response.content_length().filter(|&length| length > BODY_CAP as u64) {
        return Err(too_large(size(announced)));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_CAP {
            return Err(too_large(size(body.len() as u64) + " and more"));
        }
    }
    Ok(body)
}

/// Finds out which way a request failed from the chain of its causes.
fn unreachable(error: &reqwest::Error) -> Unreachable {
    // The outermost error only repeats the URL, which whoever asked knows.
    let text = std::error::Error::source(error).map_or_else(|| causes(error), causes);
    let text = text.trim_start_matches("client error (Connect): ").to_owned();
    let mut kind = if error.is_timeout() { UnreachableKind::Timeout } else { UnreachableKind::Other };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => kind = UnreachableKind::Refused,
                std::io::ErrorKind::TimedOut => kind = UnreachableKind::Timeout,
                _ => {}
            }
            if let Some(tls) = tls_error(io) {
                kind = tls_kind(tls);
            }
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            kind = tls_kind(tls);
        }
        if inner.to_string().contains("dns error") {
            kind = UnreachableKind::Name;
        }
        cause = inner.source();
    }
    Unreachable { kind, text }
}

/// rustls' error travels inside an io::Error, or inside one in another; it is no `source` of either.
fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| tls_error(inner.downcast_ref()?))
}

fn tls_kind(error: &rustls::Error) -> UnreachableKind {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => UnreachableKind::UnknownAuthority,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => UnreachableKind::WrongName,
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                UnreachableKind::CertificateDates
            }
            _ => UnreachableKind::Other,
        },
        _ => UnreachableKind::Other,
    }
}

#[cfg(test)]
mod tests;
