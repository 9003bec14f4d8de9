//! A server answers each connection in a thread of its own, and keeps what it was asked.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::answers::answer;
use crate::authority::Authority;
use crate::http::Request;

/// What the server has, and what is wrong with it: each fault is a field.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Lets agents join.
    pub agent_password: String,
    /// Lets servers join.
    pub server_password: String,
    /// Let agents join while they live.
    pub bootstrap_tokens: Vec<String>,
    /// Passwords of nodes by name, as in the Secrets `<node>.node-password.k3s`.
    pub node_passwords: BTreeMap<String, String>,
    /// What `/v1-k3s/apiservers` answers.
    pub api_servers: Vec<String>,
    /// False until the authenticator is set up: every credential gets 401.
    pub has_authenticator: bool,
    /// False until the API server behind is up.
    pub has_api_server: bool,
    /// False until the server's own controllers run.
    pub is_ready: bool,
    /// Paths that are answered with this status, whatever else holds.
    pub instead: Vec<(&'static str, u16)>,
    /// Seconds that its clock is ahead.
    pub ahead: i64,
}

impl Default for Behaviour {
    /// A healthy server.
    fn default() -> Self {
        Self {
            agent_password: "agents-password".to_owned(),
            server_password: "servers-password".to_owned(),
            bootstrap_tokens: Vec::new(),
            node_passwords: BTreeMap::new(),
            api_servers: vec!["10.0.0.1:6443".to_owned()],
            has_authenticator: true,
            has_api_server: true,
            is_ready: true,
            instead: Vec::new(),
            ahead: 0,
        }
    }
}

struct State {
    behaviour: Behaviour,
    requests: Vec<Request>,
}

/// A running server. Its thread ends with the test.
pub struct Server {
    address: SocketAddr,
    /// The CA of its cluster.
    pub authority: Arc<Authority>,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// On a free port of 127.0.0.1, with a certificate for these names.
    pub fn start(authority: Authority, names: &[&str], behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (certificate, key) = authority.server(names);
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let state = Arc::new(Mutex::new(State { behaviour, requests: Vec::new() }));
        let authority = Arc::new(authority);
        let (shared, signer) = (state.clone(), authority.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, shared, signer) = (tls.clone(), shared.clone(), signer.clone());
                std::thread::spawn(move || serve(stream, tls, &shared, &signer));
            }
        });
        Self { address, authority, state }
    }

    /// A healthy one, as k3s makes it by itself.
    pub fn healthy() -> Self {
        Self::start(Authority::self_signed("k3s-server-ca"), &["127.0.0.1"], Behaviour::default())
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What `/var/lib/rancher/k3s/server/node-token` would hold on it.
    pub fn token(&self) -> String {
        format!("K10{}::node:{}", self.authority.hash, self.state().behaviour.agent_password)
    }

    /// Changes something about it from now on.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state().behaviour);
    }

    /// Every request so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(stream: TcpStream, tls: Arc<rustls::ServerConfig>, state: &Mutex<State>, authority: &Authority) {
    // A client that says nothing is left alone.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let Ok(connection) = rustls::ServerConnection::new(tls) else { return };
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let Some(request) = Request::read(&mut stream) else { return };
    let (answer, date) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(request.clone());
        let ahead = state.behaviour.ahead;
        let shift = Duration::from_secs(ahead.unsigned_abs());
        let now = SystemTime::now();
        let date = if ahead < 0 { now - shift } else { now + shift };
        (answer(authority, &mut state.behaviour, &request), httpdate::fmt_http_date(date))
    };
    // A client that does not like the answer goes away.
    let _ = answer.write(&mut stream, &date);
    stream.conn.send_close_notify();
    let _ = stream.conn.complete_io(&mut stream.sock);
}
