//! containerd "started" is not "ready": only its CRI socket can say that pods can run (image-builder#173).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tonic::transport::{Endpoint, Uri};

/// The runtime's answer to `RuntimeService/Status` (Kubernetes CRI API, `runtime.v1`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Condition `RuntimeReady`: containers can be started.
    pub runtime_ready: bool,
    /// Condition `NetworkReady`: a CNI configuration is loaded. False on a node before its CNI is installed.
    pub network_ready: bool,
    /// The messages of conditions that are not true.
    pub messages: Vec<String>,
    /// Names of the runtime handlers (filled by containerd 2.x; empty before).
    pub handlers: Vec<String>,
}

/// The container runtime.
#[async_trait(?Send)]
pub trait ContainerRuntime {
    /// Asks the CRI socket at `socket` (an absolute path); an error when nobody answers within 5 s.
    async fn status(&self, socket: &str) -> Result<RuntimeStatus>;
}

/// The real socket.
pub struct CriSocket;

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Conditions>,
    #[prost(message, repeated, tag = "3")]
    runtime_handlers: Vec<Handler>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Conditions {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Handler {
    #[prost(string, tag = "1")]
    name: String,
}

const LIMIT: Duration = Duration::from_secs(5);

#[async_trait(?Send)]
impl ContainerRuntime for CriSocket {
    async fn status(&self, socket: &str) -> Result<RuntimeStatus> {
        let asking = async {
            let path = socket.to_owned();
            let connector = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
            });
            // The URI is only a form: the connector goes to the socket.
            let channel = Endpoint::from_static("http://cri.invalid").connect_with_connector(connector).await?;
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await?;
            let codec = tonic_prost::ProstCodec::<StatusRequest, StatusResponse>::default();
            let path = http::uri::PathAndQuery::from_static("/runtime.v1.RuntimeService/Status");
            let answer = client.unary(tonic::Request::new(StatusRequest {}), path, codec).await;
            match answer {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => bail!("{}: {}", status.code(), status.message()),
            }
        };
        let response = tokio::time::timeout(LIMIT, asking)
            .await
            .with_context(|| format!("asking {socket} for its CRI status: no answer in {} s", LIMIT.as_secs()))?
            .with_context(|| format!("asking {socket} for its CRI status"))?;
        let mut status = RuntimeStatus::default();
        for condition in response.status.unwrap_or_default().conditions {
            match condition.kind.as_str() {
                "RuntimeReady" => status.runtime_ready = condition.status,
                "NetworkReady" => status.network_ready = condition.status,
                _ => {}
            }
            if !condition.status {
                status.messages.push(format!("{}: {} {}", condition.kind, condition.reason, condition.message));
            }
        }
        status.handlers =
            response.runtime_handlers.into_iter().map(|handler| handler.name).filter(|name| !name.is_empty()).collect();
        Ok(status)
    }
}

/// A fake: always the same answer, or nobody there.
pub struct ScriptedRuntime(pub Option<RuntimeStatus>);

#[async_trait(?Send)]
impl ContainerRuntime for ScriptedRuntime {
    async fn status(&self, socket: &str) -> Result<RuntimeStatus> {
        self.0.clone().with_context(|| format!("asking {socket} for its CRI status: connection refused"))
    }
}
