//! Values: who wins, what is shown, and that the schema and the structs agree.

use super::*;

#[test]
fn defaults() {
    let loaded = right(Vec::new());
    let config = &loaded.config;
    assert_eq!(config.cluster.kind, ClusterKind::Kubeadm);
    assert_eq!(config.cluster.patience, Period(std::time::Duration::from_secs(600)));
    assert_eq!(config.node.name.to_string(), "{instance-id}");
    assert_eq!(config.containerd.default_runtime, Runtime::Runc);
    assert!(config.report.node_condition && !config.node.allow_swap && config.node.ip.is_none());
    assert!(loaded.settings.iter().all(|setting| setting.origin.to_string() == "default"));
}

#[test]
fn later_layers_win_and_say_so() {
    let loaded = right(vec![
        toml(
            "[gpu]\nenabled = \"never\"\n[node]\nrole = \"control-plane\"\ntaints = [\"a:NoExecute\", \"b:NoExecute\"]\nallow-swap = true",
        ),
        Source::file("/etc/gpuk/agent.toml.d/10-site.toml", "node.taints = [\"c:NoSchedule\"]\n"),
        cloud_config("#cloud-config\ngpuk:\n  gpu:\n    enabled: always\n  cluster: {token: 123456.7890123456789012}\n"),
        Source::environment(pairs(&[("HOME", "/"), ("GPUK_VM_X", "1"), ("GPUK_NODE_ALLOW_SWAP", "0"), ("GPUK_NODE_IP", "")])),
        Source::flags(pairs(&[("cluster.endpoints", "a, https://b:1")])),
    ]);
    let config = &loaded.config;
    assert_eq!((config.gpu.enabled, config.node.role), (Enabled::Always, Role::ControlPlane));
    assert_eq!(config.node.taints.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c:NoSchedule"]);
    assert_eq!(config.cluster.endpoints.iter().map(Endpoint::authority).collect::<Vec<_>>(), ["a:6443", "b:1"]);
    assert_eq!(config.cluster.token.as_ref().map(Secret::expose), Some("123456.7890123456789012"));
    assert!(!config.node.allow_swap);
    for (key, from) in [
        ("gpu.enabled", "user-data:4:14"),
        ("node.role", "/etc/gpuk/agent.toml:4:8"),
        ("node.taints", "/etc/gpuk/agent.toml.d/10-site.toml:1:15"),
        ("node.allow-swap", "environment GPUK_NODE_ALLOW_SWAP"),
        ("node.ip", "default"),
        ("cluster.endpoints", "flag --set"),
    ] {
        assert_eq!(origin(&loaded, key), from, "{key}");
    }
}

#[test]
fn maps_merge_entry_by_entry() {
    let loaded = right(vec![
        toml("[node.labels]\npool = \"cpu\"\nrack = \"7\"\n"),
        cloud_config("gpuk:\n  node:\n    labels:\n      pool: gpu\n      row: 12\n"),
        Source::environment(pairs(&[("GPUK_NODE_LABELS", "example.com/a=b, c=")])),
        Source::flags(pairs(&[("node.labels.example.com/a", "d")])),
    ]);
    let labels: Vec<String> = loaded.config.node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["c=", "example.com/a=d", "pool=gpu", "rack=7", "row=12"]);
    assert_eq!(origin(&loaded, "node.labels.rack"), "/etc/gpuk/agent.toml:3:1");
    assert_eq!(origin(&loaded, "node.labels.pool"), "user-data:4:7");
    assert_eq!(origin(&loaded, "node.labels.example.com/a"), "flag --set");
}

#[test]
fn user_data_of_every_kind() {
    let enabled = |text: &str| {
        let sources = user_data::unpack(text.as_bytes()).and_then(|user_data| user_data.layers(None)).unwrap();
        (!sources.is_empty()).then(|| right(sources).config.gpu.enabled)
    };
    assert_eq!(enabled("#cloud-config\ngpuk:\n  gpu: {enabled: never}\n"), Some(Enabled::Never));
    assert_eq!(enabled("#cloud-config\r\ngpuk: |\r\n  [gpu]\r\n  enabled = \"never\"\r\n"), Some(Enabled::Never));
    assert_eq!(enabled("#gpuk-agent\n[gpu]\nenabled = \"never\"\n"), Some(Enabled::Never));
    assert_eq!(enabled("#cloud-config\nruncmd:\n  - [a, !x b]\npackages: [a]\npackages: [b]\n1: 2\n"), Some(Enabled::Auto));
    for empty in
        ["", "#cloud-config\n", "#cloud-config\ngpuk:\n", "#cloud-config\ngpuk:\n  cluster:\n  gpu: {}\n", "#cloud-config\n{}\n"]
    {
        assert_eq!(right(vec![cloud_config(empty)]).config.gpu.enabled, Enabled::Auto, "{empty}");
    }
    assert_eq!(enabled("#!/bin/sh\n"), None);
    assert_eq!(enabled(""), None);
}

#[test]
fn secrets_are_not_shown() {
    let text = "[cluster]\ntoken = \"zbcdef.9876543210fedcba\"\n";
    let source = toml(text);
    let mut shown = format!("{source:?}");
    let loaded = right(vec![source]);
    shown += &format!("{loaded:?} {} {}", serde_json::json!(loaded.config), serde_json::json!(loaded.settings));
    assert!(!shown.contains("9876") && shown.contains("\"token\":\"(secret)\""), "{shown}");
}

#[test]
fn what_a_join_needs() {
    let missing = |text: &str| right(vec![toml(text)]).config.missing_for_join();
    let keys = |text: &str| missing(text).into_iter().map(|missing| missing.key).collect::<Vec<_>>();
    assert_eq!(keys(""), ["cluster.endpoints", "cluster.token", "cluster.ca-cert-hashes"]);
    assert_eq!(
        missing("").into_iter().map(|missing| missing.remedy).nth(1),
        Some("write token = \"abcdef.0123456789abcdef\" under [cluster], or set GPUK_CLUSTER_TOKEN, or where it comes from as cluster.ssh.hosts, token-file, token-url or token-command".to_owned())
    );
    assert_eq!(keys("[cluster]\nendpoints = [\"a\"]\ntoken-file = \"/t\"\nunsafe-skip-ca-verification = true"), [""; 0]);
    assert_eq!(keys("[cluster]\nendpoints = [\"a\"]\nssh.hosts = [\"b\"]"), [""; 0], "a known host can say the pin");
    assert_eq!(keys("[cluster]\nendpoints = [\"a\"]\ntoken-command = [\"/b\"]"), ["cluster.ca-cert-hashes"]);
    assert_eq!(keys("cluster.init = \"this-node\"\nnode.role = \"control-plane\""), ["cluster.endpoints"]);
    // A worker makes no cluster, whatever it is told.
    assert_eq!(keys("cluster.init = \"this-node\"\ncluster.endpoints = [\"a\"]"), ["cluster.token", "cluster.ca-cert-hashes"]);
    assert_eq!(keys("cluster.kind = \"none\""), [""; 0]);
    assert_eq!(keys("node.role = \"observed\""), [""; 0]);
}

/// Keys of one section that are only taken together.
const PAIRS: [(&str, &str); 3] =
    [("repository", "repository-key"), ("run-file", "run-file-sha256"), ("token-url", "token-url-ca-file")];

#[test]
fn every_row_of_the_schema_holds() {
    let mut variables: Vec<String> = schema::KEYS.iter().map(schema::Key::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), schema::KEYS.len());
    assert!(variables.contains(&"GPUK_CLUSTER_CA_CERT_HASHES".to_owned()));
    for key in schema::KEYS {
        assert!(!key.documentation.is_empty() && schema::SECTIONS.iter().any(|section| section.name == key.section));
        // Some keys are refused without another one.
        let other = PAIRS.iter().find_map(|(one, other)| match key.name {
            name if name == *one => Some(*other),
            name if name == *other => Some(*one),
            _ => None,
        });
        let other = other.and_then(|name| schema::find(key.section, name));
        let lines = [Some(key), other].into_iter().flatten().map(|key| format!("{} = {}\n", key.path(), key.example));
        let loaded = right(vec![toml(&lines.collect::<String>())]);
        let pointer = format!("/{}", key.path().replace('.', "/"));
        let value = serde_json::json!(loaded.config).pointer(&pointer).cloned().unwrap_or_default();
        assert!(!value.is_null(), "{}", key.path());
        if let schema::Kind::Choice(words) = key.kind {
            for word in words {
                right(vec![Source::environment(vec![(key.variable(), (*word).to_owned())])]);
            }
        }
    }
    // Every field has a row: without one, the defaults could not be built, and with one too many neither.
    let fields = serde_json::json!(right(Vec::new()).config);
    let pointers = schema::SECTIONS.iter().map(|section| format!("/{}", section.name.replace('.', "/")));
    let count: usize = pointers.map(|pointer| fields.pointer(&pointer).unwrap().as_object().unwrap().len()).sum();
    // A section inside of another one is a field of it, too.
    let inner = schema::SECTIONS.iter().filter(|section| section.name.contains('.')).count();
    assert_eq!(count - inner, schema::KEYS.len());
    assert_eq!(fields.as_object().unwrap().len(), schema::SECTIONS.len() - inner);
}

#[test]
fn periods() {
    for (text, shown) in [("5m", "5m"), ("90s", "1m30s"), ("1h30m", "1h30m"), ("24h", "1d"), ("0s", "0s")] {
        assert_eq!(text.parse::<Period>().map(|period| period.to_string()), Ok(shown.to_owned()));
    }
    for text in ["", "5", "m", "5x", "-5m", "99999999999999999999s", "999999999999999999d", "5 m"] {
        assert!(text.parse::<Period>().is_err(), "{text}");
    }
}

#[test]
fn nothing_that_can_be_written_panics() {
    // A xorshift generator: the same texts every time.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0)
    };
    let words = [
        "[cluster]",
        "[node.labels]",
        "gpuk:",
        "endpoints",
        "token",
        "=",
        ":",
        "|",
        "\n",
        "\n  ",
        "\n    ",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "https://",
        "[::1]",
        "sha256:",
        "é",
        "\u{feff}",
        "\0",
        "\t",
        "#",
        "- ",
        "&a",
        "*a",
        "<<",
        "true",
        "1e9",
        ".inf",
        ",",
        ".",
        "🦀",
        "\r\n",
        "--",
        "!x",
        "%",
        "\\",
        "node",
        "labels",
        "taints",
        "a=b:NoExecute",
        "name",
        "{instance-id}",
        "patience",
        "5m",
    ];
    for round in 0..4000 {
        let text: String = if round % 2 == 0 {
            (0..next() % 24).map(|_| words[next() % words.len()]).collect()
        } else {
            let bytes: Vec<u8> = (0..next() % 64).map(|_| u8::try_from(next() % 256).unwrap_or(0)).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let key = &schema::KEYS[next() % schema::KEYS.len()];
        let sources = vec![
            toml(&text),
            cloud_config(&text),
            cloud_config(&format!("gpuk: {text}")),
            cloud_config(&format!("gpuk: |\n  {}", text.replace('\n', "\n  "))),
            Source::environment(vec![(key.variable(), text.clone()), (format!("GPUK_{text}"), text.clone())]),
            Source::flags(vec![(key.path(), text.clone()), (text.clone(), text.clone())]),
        ];
        let _ = message(sources);
    }
    let deep = format!("gpuk: {}", "[".repeat(100_000));
    assert!(message(vec![cloud_config(&deep), toml(&format!("a = {}", "[".repeat(100_000)))]).contains("cannot be read"));
}
