//! Stands for client-go's REST client as kubeadm and the kubelet use it (apimachinery, `NewGenericServerResponse`): one request, one answer,
//! one text for a failure. It cannot show client-go's own repetition of requests, nor its watches.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

/// A server and the credential for it.
pub struct Api {
    server: String,
    client: reqwest::Client,
    token: Option<String>,
}

/// What came of a request that did not succeed.
#[derive(Debug)]
pub struct Refused {
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// As client-go says it.
    pub text: String,
}

impl Api {
    /// From a kubeconfig in JSON with a CA and a token, as the agent and kubeadm write it for a bootstrap.
    pub fn of_bootstrap(kubeconfig: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(kubeconfig).map_err(|error| format!("error loading the kubeconfig: {error}"))?;
        let token = file.pointer("/users/0/user/token").and_then(Value::as_str).ok_or("no credential")?;
        Self::new(&file, Some(token.to_owned()), None)
    }

    /// From a kubelet's kubeconfig, with the certificate and key that it names.
    pub fn of_kubelet(kubeconfig: &str, pem: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(kubeconfig).map_err(|error| format!("error loading the kubeconfig: {error}"))?;
        Self::new(&file, None, Some(pem))
    }

    fn new(kubeconfig: &Value, token: Option<String>, identity: Option<&str>) -> Result<Self, String> {
        let cluster = kubeconfig.pointer("/clusters/0/cluster").ok_or("no cluster")?;
        let pem = cluster["certificate-authority-data"].as_str().unwrap_or_default();
        let pem = base64::engine::general_purpose::STANDARD.decode(pem).map_err(|error| error.to_string())?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string())?;
        let mut builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).tls_certs_only(roots);
        if let Some(pem) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).map_err(|error| error.to_string())?);
        }
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { server: cluster["server"].as_str().unwrap_or_default().to_owned(), client, token })
    }

    /// GET; `what` is the object as client-go names it, e.g. `configmaps kubeadm-config`.
    pub async fn get(&self, path: &str, what: &str, limit: Duration) -> Result<Value, Refused> {
        self.send(self.client.get(format!("{}{path}", self.server)).timeout(limit), "get", what).await
    }

    /// POST.
    pub async fn post(&self, path: &str, what: &str, object: &Value, limit: Duration) -> Result<Value, Refused> {
        self.send(self.client.post(format!("{}{path}", self.server)).timeout(limit).json(object), "post", what).await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder, verb: &str, what: &str) -> Result<Value, Refused> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let lost = |error: reqwest::Error| {
            let url = error.url().map(ToString::to_string).unwrap_or_default();
            let words = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Refused { status: None, text: format!("{} {url:?}: {words}", if verb == "get" { "Get" } else { "Post" }) }
        };
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(lost)?;
        let object: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) && object.is_object() {
            return Ok(object);
        }
        let said = if object["kind"] == "Status" { object["message"].as_str().map(str::to_owned) } else { None };
        let generic = || {
            let words = match status {
                401 => "the server has asked for the client to provide credentials".to_owned(),
                404 => "the server could not find the requested resource".to_owned(),
                429 => "the server has received too many requests and has asked us to try again later".to_owned(),
                503 => "the server is currently unable to handle the request".to_owned(),
                _ => format!(
                    "an error on the server ({:?}) has prevented the request from succeeding",
                    String::from_utf8_lossy(&body)
                ),
            };
            format!("{words} ({verb} {what})")
        };
        Err(Refused { status: Some(status), text: said.unwrap_or_else(generic) })
    }
}
