//! The page that people search when a join fails is made from the tables that decide.

use super::super::bootstrap_token::BootstrapToken;
use super::super::credential::Credential;
use super::super::target::{Target, of};
use super::super::verdict::{Action, Verdict};
use super::super::{kubeadm, kubelet_log};
use super::*;
use crate::config::Secret;
use crate::host::cluster::Node;

/// An example of every row of the table, in its order.
fn examples() -> Vec<Verdict> {
    let unreachable = |kind, text: &str| Verdict::Unreachable(Unreachable { kind, text: text.to_owned() });
    let text = str::to_owned;
    let holder = || {
        let (machine_id, system_uuid) = ("1b0c".repeat(8), "4c4c4544-0034-5210-8051-cac04f4a4e32".to_owned());
        Box::new(Node { name: "gpu-1".to_owned(), machine_id, system_uuid, address: "10.0.0.21".to_owned(), ..Node::default() })
    };
    vec![
        unreachable(UnreachableKind::Refused, ""),
        Verdict::Busy { status: 429, retry_after: Some(Duration::from_secs(2)) },
        Verdict::Starting { saw: format!("HTTP 403 to {CLUSTER_INFO} while /readyz says 500") },
        Verdict::SignerDown,
        Verdict::ClockWrong { saw: text("certificate expired"), skew: -7200 },
        Verdict::OwnNodeStillReady(holder()),
        Verdict::WrongName(text(
            "certificate not valid for name \"10.0.0.1\"; certificate is only valid for \"api.example.com\"",
        )),
        Verdict::CertificateDates(text("certificate expired: verification time 1780272000, expired at 1780185600")),
        Verdict::UnknownAuthority(text("invalid peer certificate: UnknownIssuer")),
        Verdict::NotAnApiServer(text("HTTP 404 to /api/v1/namespaces/kube-public/configmaps/cluster-info")),
        Verdict::AnonymousOff,
        Verdict::ClusterInfoForbidden(text(
            "configmaps \"cluster-info\" is forbidden: User \"system:anonymous\" cannot get resource",
        )),
        Verdict::ClusterInfoMissing(text("HTTP 404: configmaps \"cluster-info\" not found")),
        Verdict::AnswerChanged,
        Verdict::Unsigned,
        Verdict::TokenRejected { signed: false },
        Verdict::TokenForbidden(text(
            "configmaps \"kubeadm-config\" is forbidden: User \"system:bootstrap:abcdef\" cannot get resource",
        )),
        Verdict::WrongSignature { pinned: true },
        Verdict::WrongSignature { pinned: false },
        Verdict::PinMismatch { seen: vec![text("sha256:5f3c…")] },
        Verdict::NameTaken(holder()),
    ]
}

fn target(machine: &Machine) -> Target {
    let (host, config, facts) = (machine.host(), machine.config(), machine.facts());
    let token = BootstrapToken::parse(&Secret::new(TOKEN)).unwrap();
    let credential = Credential { token, pins: vec!["sha256:1de9…".to_owned()] };
    of(Look::new(&host, &config, &facts), &credential, false).unwrap().unwrap()
}

fn made() -> String {
    let target = target(&Machine::fresh(&[A]));
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut page =
        String::from("| finding | what is said | seen, for example | the agent | what to do |\n|---|---|---|---|---|\n");
    for verdict in examples() {
        let row = verdict.row(A, &target);
        let does = match row.action {
            Action::Wait => "waits, and goes on by itself",
            Action::NextEndpoint => "takes another endpoint; with none left it stops",
            Action::NextCredential => "takes the next source of a token; with none left it stops",
            Action::Stop => "stops: a person is needed",
        };
        page.push_str(&format!(
            "| `{}` | {} | {} | {does} | {} |\n",
            row.code,
            cell(&row.what),
            cell(&row.saw),
            cell(&row.remedy)
        ));
    }
    page.push_str("\n## What kubeadm says\n\n| kubeadm's words | finding | what is said | the agent | what to do |\n|---|---|---|---|---|\n");
    for (words, code, what, waits, remedy) in kubeadm::rows() {
        let does = if waits { "waits, looks itself and tries again" } else { "stops" };
        page.push_str(&format!("| `{}` | `{code}` | {} | {does} | {} |\n", cell(words), cell(what), cell(remedy)));
    }
    page.push_str(
        "\n## What the kubelet says\n\nA kubelet that cannot start is told within seconds, with its own last words: `kubelet-cannot-start`.\n\n\
         | the kubelet's words | what is said | what to do |\n|---|---|---|\n",
    );
    for (words, what, remedy) in kubelet_log::rows() {
        let words: Vec<String> = words.iter().map(|words| format!("`{}`", cell(words))).collect();
        page.push_str(&format!("| {} | {} | {} |\n", words.join(", "), cell(what), cell(remedy)));
    }
    page
}

#[test]
fn there_is_an_example_of_every_row() {
    let table = include_str!("../verdict/table.rs").split_once("match self {").unwrap().1;
    assert_eq!(table.matches(" row(").count(), examples().len());
}

/// To write it anew: GPUK_WRITE_DOCS=1 cargo test -p gpuk-agent --lib the_page
#[test]
fn the_page_is_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/join.md");
    let written = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- made from the tables: begin -->\n", "<!-- made from the tables: end -->");
    let (before, rest) = written.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let page = format!("{before}{begin}{}{end}{after}", made());
    if std::env::var_os("GPUK_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert!(
        written == page || std::env::var_os("GPUK_WRITE_DOCS").is_some(),
        "docs/join.md is old: GPUK_WRITE_DOCS=1 cargo test -p gpuk-agent --lib the_page"
    );
}
