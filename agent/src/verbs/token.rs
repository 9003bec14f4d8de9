//! Behind a key with a forced command a control plane node gives away one thing: a bootstrap token of a few minutes.
//!
//! sshd starts this in place of whatever the other side wanted, which it hands over as `SSH_ORIGINAL_COMMAND` (sshd(8), "command=").

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cli::{Common, Exit, ServeSsh};
use crate::config::Secret;
use crate::host::Host;
use crate::host::cluster::ClusterError;
use crate::host::minting::{Minter, Minting, NewToken};
use crate::report::journal;
use crate::show;
use crate::step::Contents;
use crate::steps::join::authorities;

/// The window of the limit.
const MINUTE: Duration = Duration::from_secs(60);

/// How long one request waits for others that are being counted.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// How often a taken id is replaced by another.
const TRIES: usize = 3;

/// Why no token was made, and how the program ends.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(Exit, String);

/// Everything that went wrong on this side.
fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal(Exit::Broken, format!("{error:#}"))
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        broken(error)
    }
}

/// Makes one token and prints its join command, or says why not. Ends with 75 where a later try may succeed.
pub async fn serve_ssh(common: &Common, options: &ServeSsh) -> Exit {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let client = client(variable("SSH_CONNECTION").as_deref());
    match serve(common, options, variable("SSH_ORIGINAL_COMMAND").as_deref(), &client).await {
        Ok((id, command)) => {
            journal::note(&format!("made bootstrap token {id} for {client}; it lives {} s", options.ttl.as_secs()));
            show::print(&format!("{}\n", command.expose()));
            Exit::Fine
        }
        Err(Refusal(exit, why)) => {
            let line = format!("no bootstrap token for {client}: {why}");
            journal::note(&line);
            show::complain(&line);
            exit
        }
    }
}

async fn serve(common: &Common, options: &ServeSsh, wanted: Option<&str>, client: &str) -> Result<(String, Secret), Refusal> {
    only_a_token(wanted)?;
    let host = Host::real(&common.root)?;
    let cluster = cluster(&host, &options.kubeconfig)?;
    count(&host, &options.state, options.per_minute).await?;
    let minter = Minter::with(&host.files, &options.kubeconfig).await.map_err(broken)?;
    let token = mint(&minter, host.clock.now() + options.ttl, client).await?;
    Ok((
        token.id.clone(),
        Secret::new(format!("kubeadm join {} --token {}{}", cluster.address, token.bearer().expose(), cluster.pins)),
    ))
}

/// Who asks, as sshd says: "client's address, its port, our address, our port" (ssh(1), "ENVIRONMENT").
fn client(connection: Option<&str>) -> String {
    let address = connection.and_then(|text| text.split(' ').next()).and_then(|word| word.parse::<IpAddr>().ok());
    address.map_or_else(|| "somebody on this machine".to_owned(), |address| format!("{address} over SSH"))
}

/// A shell, a file transfer and whatever else somebody wants is refused.
fn only_a_token(wanted: Option<&str>) -> Result<(), Refusal> {
    match wanted.map(str::trim) {
        None | Some("" | "token") => Ok(()),
        // What was wanted may be a secret, and may be anything.
        Some(_) => {
            Err(Refusal(Exit::Usage, "this key opens nothing else: the command was neither \"token\" nor empty".to_owned()))
        }
    }
}

/// Where a token opens something.
#[derive(Debug, PartialEq, Eq)]
struct Cluster {
    /// `HOST:PORT`
    address: String,
    /// ` --discovery-token-ca-cert-hash sha256:…`, for each CA.
    pins: String,
}

/// The address and the CA that the kubeconfig names.
fn cluster(host: &Host, kubeconfig: &Path) -> Result<Cluster, Refusal> {
    let broken = |why: &str| broken(format!("{}: {why}", kubeconfig.display()));
    let text = host.files.text(kubeconfig)?.ok_or_else(|| broken("there is no such file"))?;
    let file = kube::config::Kubeconfig::from_yaml(&text).map_err(|error| broken(&error.to_string()))?;
    let current = |name: &str| file.contexts.iter().find(|context| context.name == name)?.context.as_ref();
    let named = file.current_context.as_deref().and_then(current).map(|context| context.cluster.as_str());
    let cluster =
        file.clusters.iter().find(|cluster| Some(cluster.name.as_str()) == named).and_then(|named| named.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| broken("its current context names no cluster"))?;
    let server = cluster.server.as_deref().and_then(|server| server.strip_prefix("https://"));
    let pem = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => STANDARD.decode(data).map_err(|_| broken("its certificate-authority-data is not base64"))?,
        (None, Some(path)) => host.files.read(Path::new(path))?.ok_or_else(|| broken("its CA's file is not there"))?,
        (None, None) => return Err(broken("it names no CA")),
    };
    let pins = authorities(&pem).map_err(|why| broken(&why))?;
    Ok(Cluster {
        address: server.ok_or_else(|| broken("it names no https server"))?.trim_end_matches('/').to_owned(),
        pins: pins.iter().map(|authority| format!(" --discovery-token-ca-cert-hash {}", authority.pin)).collect(),
    })
}

/// Counts this request, or refuses it: a key that was stolen must not fill the cluster with Secrets.
async fn count(host: &Host, state: &Path, per_minute: u32) -> Result<(), Refusal> {
    let began = tokio::time::Instant::now();
    let _lock = loop {
        match host.files.lock(&state.join("lock"))? {
            Some(lock) => break lock,
            None if began.elapsed() >= LOCK_LIMIT => {
                return Err(Refusal(Exit::Waiting, "too many ask at once: try again in 10 s".to_owned()));
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let file = state.join("made");
    let now = host.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = host.files.text(&file)?.unwrap_or_default();
    let made = |line: &str| line.parse::<u64>().ok().map(Duration::from_secs);
    // Times in the future come from a clock that was set back.
    let recent = text.lines().filter_map(made).filter(|then| now.checked_sub(*then).is_some_and(|age| age < MINUTE));
    let mut recent: Vec<u64> = recent.map(|then| then.as_secs()).collect();
    if recent.len() >= usize::try_from(per_minute).unwrap_or(usize::MAX) {
        let oldest = recent.iter().min().copied().unwrap_or_default();
        let wait = (oldest + MINUTE.as_secs()).saturating_sub(now.as_secs()).max(1);
        return Err(Refusal(Exit::Waiting, format!("{per_minute} tokens were made within a minute: try again in {wait} s")));
    }
    recent.push(now.as_secs());
    let lines: String = recent.iter().map(|then| format!("{then}\n")).collect();
    Ok(host.record(&file, &Contents::plain(lines))?)
}

/// One token, in the cluster.
async fn mint(minting: &dyn Minting, expires: SystemTime, client: &str) -> Result<NewToken, Refusal> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let token = NewToken::random(expires, format!("made by gpuk-agent for {client}"))?;
        match minting.create(&token).await {
            Ok(()) => return Ok(token),
            Err(ClusterError::Refused(409, message)) => last = message,
            Err(error @ (ClusterError::Unreachable(_) | ClusterError::Refused(429 | 500.., _))) => {
                return Err(Refusal(Exit::Waiting, format!("the API server makes none: {error}")));
            }
            Err(error) => return Err(broken(format!("the API server makes none: {error}"))),
        }
    }
    Err(Refusal(Exit::Waiting, format!("the API server makes none: {last}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::FixedClock;
    use crate::host::minting::ScriptedMinting;

    #[test]
    fn nothing_but_a_token_is_served() {
        for right in [None, Some(""), Some(" "), Some("token")] {
            assert_eq!(only_a_token(right), Ok(()));
        }
        for wrong in ["sh", "token; sh", "/usr/lib/openssh/sftp-server", "scp -t /", "internal-sftp", "TOKEN", "token\nsh"] {
            let Err(Refusal(exit, why)) = only_a_token(Some(wrong)) else { panic!("{wrong} was served") };
            assert!(exit == Exit::Usage && !why.contains(wrong), "{why}");
        }
    }

    #[test]
    fn the_client_is_an_address_or_nobody() {
        assert_eq!(client(Some("10.0.0.5 40000 10.0.0.1 22")), "10.0.0.5 over SSH");
        assert_eq!(client(Some("fd00::5 40000 fd00::1 22")), "fd00::5 over SSH");
        for text in [None, Some(""), Some("$(sh) 1 2 3")] {
            assert_eq!(client(text), "somebody on this machine");
        }
    }

    #[tokio::test]
    async fn only_so_many_are_made_in_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::of_fakes(folder.path()).unwrap();
        let state = Path::new("/run/tokens");
        for (second, expected) in
            [(1000, Ok(())), (1010, Ok(())), (1059, Err("in 1 s")), (1060, Ok(())), (1061, Err("in 9 s")), (500, Ok(()))]
        {
            host.clock = Box::new(FixedClock::at(second));
            match (count(&host, state, 2).await, expected) {
                (Ok(()), Ok(())) => {}
                (Err(Refusal(Exit::Waiting, why)), Err(words)) => assert!(why.contains(words), "{second}: {why}"),
                other => panic!("{second}: {other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_that_somebody_else_holds_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::of_fakes(folder.path()).unwrap();
        let held = host.files.lock(Path::new("/run/tokens/lock")).unwrap();
        let refused = count(&host, Path::new("/run/tokens"), 2).await;
        assert!(matches!(refused, Err(Refusal(Exit::Waiting, _))), "{refused:?}");
        drop(held);
        assert_eq!(count(&host, Path::new("/run/tokens"), 2).await, Ok(()));
    }

    #[tokio::test]
    async fn a_taken_id_is_replaced_and_a_refusal_is_told() {
        let refused = |code: u16| ClusterError::Refused(code, "no".to_owned());
        let minting = ScriptedMinting::default();
        minting.answers.borrow_mut().push(refused(409));
        let token = mint(&minting, SystemTime::UNIX_EPOCH, "me").await.unwrap();
        let seen = minting.seen.take();
        assert_eq!((seen.len(), &seen[1]), (2, &token));
        assert!(seen[0].id != seen[1].id && token.description == "made by gpuk-agent for me");
        for (error, exit) in [
            (refused(403), Exit::Broken),
            (refused(503), Exit::Waiting),
            (ClusterError::Unreachable("x".to_owned()), Exit::Waiting),
        ] {
            let minting = ScriptedMinting::default();
            minting.answers.borrow_mut().push(error);
            assert_eq!(mint(&minting, SystemTime::UNIX_EPOCH, "me").await.map_err(|Refusal(exit, _)| exit), Err(exit));
        }
    }
}
