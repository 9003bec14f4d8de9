//! What can go wrong between a node and its API server goes wrong on a connection, so a proxy that spoils connections can show all of it.

mod connection;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};

use crate::certificates::{Authority, Says};
use connection::{connection, hang_up};

/// What happens to one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it goes to the API server as it is.
    Forward,
    /// For so long nobody listens.
    Refuse(Duration),
    /// It is accepted, and nothing ever comes.
    Blackhole,
    /// It is reset after the client's first words.
    Reset,
    /// It goes to the API server so much later.
    Slow(Duration),
    /// TLS ends here, with this certificate; the API server's answers are passed on.
    Certificate(Whose, Says),
    /// Each request on it gets this answer, under a certificate that is right.
    Answer(Canned),
    /// The head of an answer comes, and half of the body that it promises.
    Truncated,
    /// Half of an answer comes that promises no length, and then the end of the connection without TLS's own.
    HalfClosed,
    /// Somebody of another authority reads everything, and hands strangers a cluster-info of his own making.
    Middle(Forgery),
}

/// Who signed a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The cluster's CA.
    Cluster,
    /// Another CA of the same name.
    Namesake,
    /// Another CA.
    Stranger,
}

/// What somebody in the middle does to cluster-info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Nothing.
    Nothing,
    /// His own CA in it, under the signatures for the real one.
    OwnAuthority,
    /// His own CA in it, and no signature.
    Unsigned,
}

/// An answer that does not come from the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canned {
    /// HTTP status.
    pub status: u16,
    /// More lines of the head, e.g. `Retry-After: 3`.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl Canned {
    /// As a load balancer or an API server answers that cannot serve.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: format!("{status} not now\n") }
    }

    /// As an API server refuses.
    pub fn refusal(status: u16, message: &str) -> Self {
        Self::status(status).saying(serde_json::json!({"kind": "Status", "code": status, "message": message}).to_string())
    }

    /// With another line in its head.
    #[must_use]
    pub fn with(mut self, header: &str) -> Self {
        self.headers.push(header.to_owned());
        self
    }

    /// With this body.
    #[must_use]
    pub fn saying(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let Self { status, body, .. } = self;
        let length = body.len();
        format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
    }
}

/// The certificates that a proxy can show. Making them takes longer than a connection, so all proxies of one cluster share them.
pub struct Faces {
    cluster: Authority,
    namesake: Authority,
    stranger: Authority,
    ready: Vec<((Whose, Says), Arc<ServerConfig>)>,
}

/// `(Whose, Says)` as the table of ready certificates knows it.
const WHOSE: [Whose; 3] = [Whose::Cluster, Whose::Namesake, Whose::Stranger];
const SAYS: [Says; 3] = [Says::Right, Says::OtherName, Says::Expired];

impl Faces {
    /// For the cluster whose control plane keeps its files there.
    pub fn of(directory: &std::path::Path) -> Arc<Self> {
        let (cluster, namesake) = (Authority::of_cluster(directory), Authority::stranger("kubernetes"));
        let mut faces = Self { cluster, namesake, stranger: Authority::stranger("somebody"), ready: Vec::new() };
        let all = WHOSE.iter().flat_map(|whose| SAYS.iter().map(|says| (*whose, *says)));
        faces.ready = all.map(|(whose, says)| ((whose, says), faces.authority(whose).server(says))).collect();
        Arc::new(faces)
    }

    fn authority(&self, whose: Whose) -> &Authority {
        match whose {
            Whose::Cluster => &self.cluster,
            Whose::Namesake => &self.namesake,
            Whose::Stranger => &self.stranger,
        }
    }

    fn show(&self, whose: Whose, says: Says) -> Arc<ServerConfig> {
        self.ready.iter().find(|(face, _)| *face == (whose, says)).map(|(_, config)| config.clone()).unwrap()
    }
}

/// A proxy on a port of its own. It ends with the runtime that it was started on.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    faces: Arc<Faces>,
    plan: Mutex<Plan>,
    /// What was said in plain text to somebody who is not the cluster.
    heard: Mutex<Vec<u8>>,
}

struct Plan {
    /// What happens to the next connections, one each.
    next: VecDeque<Fault>,
    /// What happens to all later ones.
    then: Fault,
    /// What did happen.
    done: Vec<Fault>,
}

impl Proxy {
    /// Stands before the API server on `server` of this machine's loopback interface.
    pub fn start(server: u16, faces: Arc<Faces>) -> Self {
        let plan = Plan { next: VecDeque::new(), then: Fault::Forward, done: Vec::new() };
        let shared = Arc::new(Shared { server, faces, plan: Mutex::new(plan), heard: Mutex::default() });
        // Never listens: it keeps the port while nobody does.
        let keeper = bound(0);
        let port = keeper.local_addr().unwrap().port();
        let listener = bound(port).listen(1024).unwrap();
        tokio::spawn(serve(shared.clone(), keeper, listener));
        Self { port, shared }
    }

    /// Its address, as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// What happens to the next connections, one each, and what to all later ones.
    pub fn plan(&self, next: impl IntoIterator<Item = Fault>, then: Fault) {
        let mut plan = self.shared.plan.lock().unwrap();
        plan.next = next.into_iter().collect();
        plan.then = then;
    }

    /// What happened to the connections so far.
    pub fn done(&self) -> Vec<Fault> {
        self.shared.plan.lock().unwrap().done.clone()
    }

    /// Everything that was said in plain text to somebody who is not the cluster.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.shared.heard.lock().unwrap()).into_owned()
    }
}

fn bound(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    socket
}

impl Shared {
    fn next(&self) -> Fault {
        let mut plan = self.plan.lock().unwrap();
        let fault = plan.next.pop_front().unwrap_or_else(|| plan.then.clone());
        plan.done.push(fault.clone());
        fault
    }

    /// How long nobody is to listen from now on.
    fn next_refusal(&self) -> Option<Duration> {
        let mut plan = self.plan.lock().unwrap();
        let refusal = match (plan.next.front(), &plan.then) {
            (Some(Fault::Refuse(time)), _) => Some(*time),
            (None, Fault::Refuse(time)) => Some(*time),
            _ => None,
        }?;
        let fault = plan.next.pop_front().unwrap_or(Fault::Refuse(refusal));
        plan.done.push(fault);
        Some(refusal)
    }
}

async fn serve(shared: Arc<Shared>, keeper: TcpSocket, mut listener: TcpListener) {
    let port = keeper.local_addr().unwrap().port();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let fault = shared.next();
        if let Fault::Refuse(time) = fault {
            // It came before the listener could close: to the client it is the same.
            hang_up(client);
            listener = deaf(listener, port, time).await;
        } else {
            let (one, shared) = (shared.clone(), shared.clone());
            // A client that goes away is no trouble of the proxy's.
            tokio::spawn(async move { drop(connection(one, client, fault).await) });
            while let Some(time) = shared.next_refusal() {
                listener = deaf(listener, port, time).await;
            }
        }
    }
}

async fn deaf(listener: TcpListener, port: u16, time: Duration) -> TcpListener {
    drop(listener);
    tokio::time::sleep(time).await;
    bound(port).listen(1024).unwrap()
}
