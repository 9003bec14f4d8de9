//! A TLS server of a few lines, whose certificates OpenSSL made, is enough to fail in every way.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// Valid from 2020 to 2049, like all that has no other remark.
const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBSzCB8aADAgECAgEBMAoGCCqGSM49BAMCMA0xCzAJBgNVBAMMAmNhMB4XDTIw
MDEwMTAwMDAwMFoXDTQ5MTIzMTAwMDAwMFowDTELMAkGA1UEAwwCY2EwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAASzWYXYHobPBz3/u3vfj3xBRdy8O5E2uSBTnS2Q
x3LAeCwQRfu4ft+AQLiQNyjiPHDTiSklA6U3FMkR+V9knqJ3o0IwQDAPBgNVHRMB
Af8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQUT4S/qOXPBxZDIlir
QnxCUC5H3YowCgYIKoZIzj0EAwIDSQAwRgIhAKqG6nRAwsF5aSnFLbLBU71N2xLY
Ch5a74Irz3WIaxC1AiEAxKZpmBcXhkr9C4y/djsaam07Rv4/XaQbVjGyspOBY00=
-----END CERTIFICATE-----";
const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----
MIIBUTCB96ADAgECAgECMAoGCCqGSM49BAMCMBAxDjAMBgNVBAMMBW90aGVyMB4X
DTIwMDEwMTAwMDAwMFoXDTQ5MTIzMTAwMDAwMFowEDEOMAwGA1UEAwwFb3RoZXIw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATje0ivO8AVomoYdzyx4S3mdVQuwdq8
Hb5ZxluF66cHOoDWB8koPGz5lR494z8OhxrmbqpNDutiudZvR3TJO/Vzo0IwQDAP
BgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQUeSywNBHP
NhPxGrhPSGec/842SCgwCgYIKoZIzj0EAwIDSQAwRgIhAOuUMUD5X9ALIEqOwY78
ibAvJaLU8OMZKLUidhoCJoFMAiEA0+83k8tOgNMApWcftFYJpRvTWrs0kfthloBq
hqtu+YA=
-----END CERTIFICATE-----";
/// For 127.0.0.1 only.
const GOOD: &str = "-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIBAzAKBggqhkjOPQQDAjANMQswCQYDVQQDDAJjYTAeFw0y
MDAxMDEwMDAwMDBaFw00OTEyMzEwMDAwMDBaMBExDzANBgNVBAMMBnNlcnZlcjBZ
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABEB8oWzLWSBAin12ESUpKEY2pWG2V0KI
xDxc7KnL2QHFuchXbeOpPgOsqDrKkoKGCFe6YAQ8oF1jDMTOmv3nB6ajgYcwgYQw
DAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUH
AwEwDwYDVR0RBAgwBocEfwAAATAdBgNVHQ4EFgQUfSNNJeVja7lAUyqLqhed0ZaZ
RgcwHwYDVR0jBBgwFoAUT4S/qOXPBxZDIlirQnxCUC5H3YowCgYIKoZIzj0EAwID
SAAwRQIhAJEQgP/hhLJKd/R9nGfiMQMMkj0cWZ0HS1ZPJ5GsjdlzAiBwu/WBoJhB
MxqarNXumUIkjJrdgzsv2Xni+HxvFK1V4g==
-----END CERTIFICATE-----";
/// Until 2021.
const EXPIRED: &str = "-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIBBDAKBggqhkjOPQQDAjANMQswCQYDVQQDDAJjYTAeFw0y
MDAxMDEwMDAwMDBaFw0yMTAxMDEwMDAwMDBaMBExDzANBgNVBAMMBnNlcnZlcjBZ
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABEB8oWzLWSBAin12ESUpKEY2pWG2V0KI
xDxc7KnL2QHFuchXbeOpPgOsqDrKkoKGCFe6YAQ8oF1jDMTOmv3nB6ajgYcwgYQw
DAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUH
AwEwDwYDVR0RBAgwBocEfwAAATAdBgNVHQ4EFgQUfSNNJeVja7lAUyqLqhed0ZaZ
RgcwHwYDVR0jBBgwFoAUT4S/qOXPBxZDIlirQnxCUC5H3YowCgYIKoZIzj0EAwID
SAAwRQIgTmHs2ZsKQ1Qm9Wu0YTeE+u4qLzVi5966pzoJgptgI4kCIQDCAEdDdEDP
yP+i0pIeB0RYX6lQnpfTaj39BJPXBL/cSw==
-----END CERTIFICATE-----";
/// From 2048.
const FUTURE: &str = "-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIBBTAKBggqhkjOPQQDAjANMQswCQYDVQQDDAJjYTAeFw00
ODAxMDEwMDAwMDBaFw00OTEyMzEwMDAwMDBaMBExDzANBgNVBAMMBnNlcnZlcjBZ
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABEB8oWzLWSBAin12ESUpKEY2pWG2V0KI
xDxc7KnL2QHFuchXbeOpPgOsqDrKkoKGCFe6YAQ8oF1jDMTOmv3nB6ajgYcwgYQw
DAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUH
AwEwDwYDVR0RBAgwBocEfwAAATAdBgNVHQ4EFgQUfSNNJeVja7lAUyqLqhed0ZaZ
RgcwHwYDVR0jBBgwFoAUT4S/qOXPBxZDIlirQnxCUC5H3YowCgYIKoZIzj0EAwID
SAAwRQIhALuwcln+YWUbDKcDNgSxC7n930SiYiRbt11dD/UheyYgAiACGs/Mt7pR
NTTsVmYY4BW1e7ikYzHKOy0/HZB+UkXzMQ==
-----END CERTIFICATE-----";
/// The key to the server's certificates; the CA's own key was thrown away.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtv6fJC9blhGMnE9/
ewzUiaJx/+heavxTzgOekum08wuhRANCAARAfKFsy1kgQIp9dhElKShGNqVhtldC
iMQ8XOypy9kBxbnIV23jqT4DrKg6ypKChghXumAEPKBdYwzEzpr95wem
-----END PRIVATE KEY-----";

/// Answers one request after the other; its port.
fn server(certificate: &str, answer: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut request = [0; 4096];
            // A client that does not like the certificate goes away.
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    port
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 429 Too Many\r\nDate: Sat, 21 Nov 2026 07:13:02 GMT\r\nRetry-After: 7\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn get(url: String, trust: Trust, bearer: Option<Secret>) -> Result<Answer, Unreachable> {
    RealNetwork::default().get(Get { url, trust, bearer, headers: Vec::new(), limit: Duration::from_millis(1500) }).await
}

async fn failure(url: String, ca: &str) -> Unreachable {
    get(url, Trust::Only(ca.to_owned()), None).await.unwrap_err()
}

#[tokio::test]
async fn an_answer_carries_its_status_date_and_patience() {
    let port = server(GOOD, ok("busy"));
    let answer = get(format!("https://127.0.0.1:{port}/x"), Trust::Only(CA.to_owned()), None).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (429, &b"busy"[..]));
    assert_eq!(answer.date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_245_182)));
    assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_says_which_way() {
    use UnreachableKind::{CertificateDates, UnknownAuthority, WrongName};
    for (certificate, host, ca, kind) in [
        (GOOD, "127.0.0.1", OTHER_CA, UnknownAuthority),
        (GOOD, "localhost", CA, WrongName),
        (EXPIRED, "127.0.0.1", CA, CertificateDates),
        (FUTURE, "127.0.0.1", CA, CertificateDates),
        // The dates are looked at before anything else.
        (EXPIRED, "127.0.0.1", OTHER_CA, CertificateDates),
        (EXPIRED, "localhost", CA, CertificateDates),
    ] {
        let port = server(certificate, ok(""));
        let failure = failure(format!("https://{host}:{port}/"), ca).await;
        assert_eq!(failure.kind, kind, "{}", failure.text);
        assert!(failure.text.contains("certificate"), "{}", failure.text);
        // The first look of a discovery sees none of this.
        let answer = get(format!("https://{host}:{port}/"), Trust::Anyone, None).await.unwrap();
        assert_eq!(answer.status, 429);
    }
}

#[tokio::test]
async fn a_connection_that_fails_says_which_way() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    assert_eq!(failure(format!("https://127.0.0.1:{silent}/"), CA).await.kind, UnreachableKind::Timeout);
    drop(listener);
    assert_eq!(failure(format!("https://127.0.0.1:{silent}/"), CA).await.kind, UnreachableKind::Refused);
    assert_eq!(failure("https://nowhere.invalid/".to_owned(), CA).await.kind, UnreachableKind::Name);
    assert_eq!(failure("http://127.0.0.1/".to_owned(), CA).await.kind, UnreachableKind::Other);
}

#[tokio::test]
async fn a_credential_never_goes_to_a_server_that_is_not_verified() {
    let port = server(GOOD, ok(""));
    let answer = get(format!("https://127.0.0.1:{port}/"), Trust::Anyone, Some(Secret::new("x"))).await;
    assert!(answer.unwrap_err().text.contains("credential"));
    let headers = vec![("authorization", Secret::new("x"))];
    let url = format!("https://127.0.0.1:{port}/");
    let request = Get { url, trust: Trust::Anyone, bearer: None, headers, limit: Duration::from_millis(1500) };
    assert!(RealNetwork::default().get(request).await.unwrap_err().text.contains("credential"));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let port = server(GOOD, ok(&"x".repeat(BODY_CAP + 1)));
    let failure = failure(format!("https://127.0.0.1:{port}/"), CA).await;
    assert!(failure.kind == UnreachableKind::TooLarge && failure.text.contains("1024 KiB"), "{}", failure.text);
}

#[tokio::test]
async fn a_plain_request_follows_nothing_and_carries_its_headers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/latest/api/token", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let count = stream.read(&mut request).unwrap();
        let answer = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nServer: portal\r\nContent-Length: 2\r\n\r\nno";
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    let headers =
        http::HeaderMap::from_iter([(http::HeaderName::from_static("metadata"), http::HeaderValue::from_static("true"))]);
    let network = RealNetwork::default();
    let limit = Duration::from_secs(5);
    let request = PlainRequest { method: http::Method::PUT, url, headers, limit };
    let answer = network.plain(request.clone()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (302, &b"no"[..]));
    assert_eq!(answer.headers.get("server").unwrap(), "portal");
    let asked = asked.join().unwrap().to_ascii_lowercase();
    assert!(asked.starts_with("put /latest/api/token http/1.1\r\n") && asked.contains("metadata: true\r\n"), "{asked}");

    let secure = PlainRequest { url: "https://127.0.0.1:1/".to_owned(), ..request };
    assert!(network.plain(secure).await.err().unwrap().text.contains("plain http only"));
}
