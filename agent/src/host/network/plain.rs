//! A metadata service is spoken to over plain HTTP on a link-local address, where a proxy or a redirect could only mislead.

use std::time::Duration;

use http::{HeaderMap, Method};

use super::{Unreachable, body, unreachable};

/// One request over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainRequest {
    /// GET, or PUT without a body.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// Headers; one that holds a token is marked sensitive.
    pub headers: HeaderMap,
    /// From the first packet to the last byte.
    pub limit: Duration,
}

/// What answered, whatever its status. The body may hold secrets, so there is no `Debug`.
#[derive(Clone)]
pub struct PlainAnswer {
    /// HTTP status, e.g. 404.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The body, at most [`super::BODY_CAP`] bytes.
    pub body: Vec<u8>,
}

/// A client that follows nothing and trusts no certificate: there is none in plain HTTP.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    // reqwest has no provider of its own; an error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        .user_agent(concat!("gpuk-agent/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Sends one request. Anything but plain HTTP is refused: nothing here could verify it.
pub(super) async fn send(client: &reqwest::Client, request: PlainRequest) -> Result<PlainAnswer, Unreachable> {
    if !request.url.starts_with("http://") {
        let text = format!("{}: a metadata service is asked over plain http only", request.url);
        return Err(Unreachable { kind: super::UnreachableKind::Other, text });
    }
    let call = client.request(request.method, &request.url).headers(request.headers).timeout(request.limit);
    let response = call.send().await.map_err(|error| unreachable(&error))?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(PlainAnswer { status, headers, body: body(response).await? })
}
