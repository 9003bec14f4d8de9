//! What a supervisor answers: `/cacerts` and `/ping` to anyone, the rest to who proves a role, and certificates to who has the node's password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::authority::Authority;
use crate::http::{Answer, Request};
use crate::server::Behaviour;

pub(crate) fn answer(authority: &Authority, behaviour: &mut Behaviour, request: &Request) -> Answer {
    if let Some((_, status)) = behaviour.instead.iter().find(|(path, _)| *path == request.path) {
        return Answer::error(*status, "as the test wants it");
    }
    match request.path.as_str() {
        "/cacerts" => return Answer::ok(authority.cacerts.clone()),
        "/ping" => return Answer::ok("pong"),
        path if !path.starts_with("/v1-k3s/") => return api_server(behaviour),
        _ => {}
    }
    if !behaviour.has_authenticator {
        return Answer::error(401, "not authorized");
    }
    let Some(role) = role(behaviour, request) else { return Answer::error(401, "not authorized") };
    match (request.path.trim_start_matches("/v1-k3s/"), role) {
        ("encrypt/status", Role::Server) => Answer::ok("{}"),
        ("encrypt/status", Role::Agent) | (_, Role::Server) => Answer::error(403, "forbidden"),
        ("config", Role::Agent) => Answer::ok(r#"{"ClusterDomain":"cluster.local"}"#),
        ("readyz", Role::Agent) if behaviour.is_ready => Answer::ok("ok"),
        ("readyz", Role::Agent) => Answer::error(503, "runtime core not ready"),
        ("apiservers", Role::Agent) => Answer::ok(serde_json::json!(behaviour.api_servers).to_string()),
        ("client-ca.crt" | "server-ca.crt", Role::Agent) => Answer::ok(authority.cacerts.clone()),
        ("client-kubelet.crt", Role::Agent) => with_password(behaviour, request, |node| authority.client(node)),
        ("serving-kubelet.crt", Role::Agent) => with_password(behaviour, request, |node| authority.server(&[node, "127.0.0.1"])),
        _ => api_server(behaviour),
    }
}

#[derive(Clone, Copy)]
enum Role {
    Agent,
    Server,
}

/// Basic authentication of the users `node` and `server`, or a bootstrap token.
fn role(behaviour: &Behaviour, request: &Request) -> Option<Role> {
    let shown = request.header("authorization")?;
    if let Some(token) = shown.strip_prefix("Bearer ") {
        return behaviour.bootstrap_tokens.iter().any(|known| known == token).then_some(Role::Agent);
    }
    let basic = STANDARD.decode(shown.strip_prefix("Basic ")?).ok()?;
    match String::from_utf8(basic).ok()?.split_once(':')? {
        ("node", password) if password == behaviour.agent_password => Some(Role::Agent),
        ("server", password) if password == behaviour.server_password => Some(Role::Server),
        _ => None,
    }
}

/// The API server behind the supervisor, to a request that it does not know: anonymous ones are refused.
fn api_server(behaviour: &Behaviour) -> Answer {
    if behaviour.has_api_server { Answer::error(401, "Unauthorized") } else { Answer::error(503, "apiserver not ready") }
}

/// The first password that comes with a node's name is bound to it (k3s, `pkg/nodepassword`).
fn with_password(behaviour: &mut Behaviour, request: &Request, make: impl Fn(&str) -> (String, String)) -> Answer {
    if !behaviour.is_ready {
        return Answer::error(503, "runtime core not ready");
    }
    let (name, password) = (request.header("k3s-node-name"), request.header("k3s-node-password"));
    let Some(name) = name.map(str::to_lowercase) else { return Answer::error(400, "node name not set") };
    let Some(password) = password else { return Answer::error(400, "node password not set") };
    let bound = behaviour.node_passwords.entry(name.clone()).or_insert_with(|| password.to_owned());
    if bound != password {
        return Answer::error(403, &format!("unable to verify password for node {name}: hash does not match"));
    }
    let (certificate, key) = make(&name);
    Answer::ok(format!("{certificate}{key}"))
}
