//! One connection through the proxy, and what becomes of it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Canned, Fault, Forgery, Shared, Whose};
use crate::certificates::{Says, credulous};

/// Closes with RST instead of FIN.
pub fn hang_up(client: TcpStream) {
    // Gone already: nothing is left to reset.
    let _ = client.set_zero_linger();
}

/// To its end.
pub async fn connection(shared: Arc<Shared>, mut client: TcpStream, fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Forward => forward(&shared, client).await,
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            forward(&shared, client).await
        }
        Fault::Refuse(_) => Ok(()),
        Fault::Blackhole => {
            let mut nothing = [0; 4096];
            while client.read(&mut nothing).await? > 0 {}
            Ok(())
        }
        Fault::Reset => {
            // After some of the first message of the handshake.
            client.read_exact(&mut [0; 5]).await?;
            hang_up(client);
            Ok(())
        }
        Fault::Answer(canned) => {
            let mut client = accept(&shared, client, Whose::Cluster, Says::Right).await?;
            request(&mut client).await?;
            client.write_all(&canned.bytes()).await?;
            client.shutdown().await
        }
        Fault::Truncated => {
            let mut client = accept(&shared, client, Whose::Cluster, Says::Right).await?;
            request(&mut client).await?;
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"kind\":\"ConfigMap\",\"data\":{").await?;
            client.shutdown().await
        }
        Fault::HalfClosed => {
            let mut client = accept(&shared, client, Whose::Cluster, Says::Right).await?;
            request(&mut client).await?;
            client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"kind\":\"ConfigMap\",\"data\":{").await?;
            client.flush().await?;
            // TCP's goodbye without TLS's own.
            client.into_inner().0.shutdown().await
        }
        Fault::Certificate(whose, says) => {
            let client = accept(&shared, client, whose, says).await?;
            relay(&shared, client, whose, None).await
        }
        Fault::Middle(forgery) => {
            let client = accept(&shared, client, Whose::Stranger, Says::Right).await?;
            relay(&shared, client, Whose::Stranger, Some(forgery)).await
        }
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn accept(shared: &Shared, client: TcpStream, whose: Whose, says: Says) -> std::io::Result<Tls> {
    TlsAcceptor::from(shared.faces.show(whose, says)).accept(client).await
}

async fn to_server(shared: &Shared) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server)).await
}

async fn forward(shared: &Shared, mut client: TcpStream) -> std::io::Result<()> {
    let mut server = to_server(shared).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Reads the head of one request.
async fn request(client: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..count]);
    }
    Ok(request)
}

/// Passes one request on and answers as the API server does, or nearly so.
async fn relay(shared: &Shared, mut client: Tls, whose: Whose, forgery: Option<Forgery>) -> std::io::Result<()> {
    let request = request(&mut client).await?;
    if whose != Whose::Cluster {
        shared.heard.lock().unwrap().extend_from_slice(&request);
    }
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut server = TlsConnector::from(credulous()).connect(name, to_server(shared).await?).await?;
    // The answer has an end only if the server closes after it.
    let text = String::from_utf8_lossy(&request).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    // A server that does not say goodbye has answered all the same.
    let _ = server.read_to_end(&mut answer).await;
    if let Some(forgery @ (Forgery::OwnAuthority | Forgery::Unsigned)) = forgery
        && text.contains("/cluster-info ")
    {
        answer = forged(shared, &answer, forgery).unwrap_or(answer);
    }
    finish(client, &answer).await
}

async fn finish(mut client: impl AsyncWrite + Unpin, answer: &[u8]) -> std::io::Result<()> {
    client.write_all(answer).await?;
    client.shutdown().await
}

fn forged(shared: &Shared, answer: &[u8], forgery: Forgery) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text = String::from_utf8_lossy(answer);
    // The object is one line of JSON, whatever frames it.
    let object = &text[text.find('{')?..=text.rfind('}')?];
    let mut object: serde_json::Value = serde_json::from_str(object).ok()?;
    let data = object["data"].as_object_mut()?;
    let own = base64::engine::general_purpose::STANDARD.encode(&shared.faces.stranger.pem);
    let kubeconfig = data["kubeconfig"].as_str()?.lines().map(|line| match line.split_once("certificate-authority-data: ") {
        Some((indent, _)) => format!("{indent}certificate-authority-data: {own}\n"),
        None => format!("{line}\n"),
    });
    let kubeconfig: String = kubeconfig.collect();
    data.insert("kubeconfig".to_owned(), kubeconfig.into());
    if forgery == Forgery::Unsigned {
        data.retain(|key, _| key == "kubeconfig");
    }
    Some(Canned::status(200).with("Content-Type: application/json").saying(object.to_string()).bytes())
}
