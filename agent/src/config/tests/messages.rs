//! Errors, each read whole.

use super::*;

#[test]
fn not_toml() {
    assert_eq!(
        message(vec![toml("[cluster]\nkind = kubeadm\n")]),
        "/etc/gpuk/agent.toml:2:8: this is not TOML: text must be in quotes"
    );
    assert_eq!(message(vec![toml("[cluster\n")]), "/etc/gpuk/agent.toml:1:9: this is not TOML: unclosed table, expected \"]\"");
    assert_eq!(
        message(vec![toml("[gpu]\nenabled = \"auto\"\nenabled = \"never\"\n[gpu]\n")]),
        "/etc/gpuk/agent.toml:3:1: this is not TOML: the key \"enabled\" was given before\n\
         /etc/gpuk/agent.toml:4:2: this is not TOML: the key \"gpu\" was given before"
    );
}

#[test]
fn wrong_types() {
    assert_eq!(
        message(vec![toml("[cluster]\nendpoints = \"https://a\"\nunsafe-skip-ca-verification = \"yes\"\ntoken = 7\n")]),
        "/etc/gpuk/agent.toml:2:13: cluster.endpoints: this is text, not a list; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         /etc/gpuk/agent.toml:3:31: cluster.unsafe-skip-ca-verification: this is text, not a boolean; right would be true or false\n\
         /etc/gpuk/agent.toml:4:9: cluster.token: this is a number, not text; right would be six characters, a dot, sixteen characters of a-z 0-9, e.g. \"abcdef.0123456789abcdef\""
    );
    assert_eq!(
        message(vec![toml("cluster = 1\n[node]\nlabels = { a = 1 }\nkubelet-extra-args = [true]\n")]),
        "/etc/gpuk/agent.toml:1:1: cluster is a section, not a number; write [cluster] and its keys below\n\
         /etc/gpuk/agent.toml:3:16: node.labels: the value of \"a\" is a number, not text; right would be a map of label keys and values, e.g. { \"example.com/pool\" = \"gpu\" }\n\
         /etc/gpuk/agent.toml:4:23: node.kubelet-extra-args: an entry of this list is a boolean, not text; right would be a list of arguments, each beginning with --, e.g. [\"--max-pods=60\"]"
    );
}

#[test]
fn unknown_keys() {
    assert_eq!(
        message(vec![toml("[cluster]\n\n\n\n\n\nendpoint = []\n")]),
        "/etc/gpuk/agent.toml:7:1: unknown key \"endpoint\" in [cluster]; did you mean \"endpoints\"?"
    );
    assert_eq!(
        message(vec![toml("[cluster]\ntoken_file = \"/a\"\nlabels = {}\nx = 1\n[redirects]\nenabled = true\n")]),
        "/etc/gpuk/agent.toml:2:1: unknown key \"token_file\" in [cluster]; did you mean \"token-file\"?\n\
         /etc/gpuk/agent.toml:3:1: unknown key \"labels\" in [cluster]; it belongs under [node]\n\
         /etc/gpuk/agent.toml:4:1: unknown key \"x\" in [cluster]; there are kind, name, endpoints, token, token-file, token-url, token-url-ca-file, token-command, ca-cert-hashes, unsafe-skip-ca-verification, certificate-key, certificate-key-file, init, pod-cidr, service-cidr, runtime-class, patience\n\
         /etc/gpuk/agent.toml:6:1: unknown key \"enabled\" in [redirects]; it belongs under [gpu]"
    );
    assert_eq!(
        message(vec![toml("token = \"a\"\n[clusters]\n[storage]\n")]),
        "/etc/gpuk/agent.toml:1:1: unknown key \"token\" at the top; it belongs under [cluster]\n\
         /etc/gpuk/agent.toml:2:2: unknown section \"clusters\" at the top; did you mean \"cluster\"?\n\
         /etc/gpuk/agent.toml:3:2: unknown section \"storage\" at the top; there are [cluster], [cluster.ssh], [node], [cloud], [gpu], [gpu.driver], [gpu.toolkit], [containerd], [redirects], [report]"
    );
    assert_eq!(
        message(vec![toml("[cluster]\n\"abcdef.0123456789abcdee\" = 1\n")]),
        "/etc/gpuk/agent.toml:2:1: unknown key a text of 23 characters that contains a bootstrap token in [cluster]; there are kind, name, endpoints, token, token-file, token-url, token-url-ca-file, token-command, ca-cert-hashes, unsafe-skip-ca-verification, certificate-key, certificate-key-file, init, pod-cidr, service-cidr, runtime-class, patience"
    );
}

#[test]
fn endpoints() {
    let list = ["http://a", "ftp://a", "https://a/b", "fd00::1", "[fd00::1", "[x]:1", "a:0", "a:http", "1.2.3", "a_b", ""];
    assert_eq!(
        message(vec![Source::flags(pairs(&list.map(|text| ("cluster.endpoints", text))))]),
        "flag --set: cluster.endpoints: \"http://a\" is plain http, and an API server is only spoken to over https; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"ftp://a\" is not an https address; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"https://a/b\" has a path, and an endpoint is only a host and a port; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"fd00::1\" looks like an IPv6 address without brackets; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"[fd00::1\" has a bracket that is not closed; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"[x]:1\" has no IPv6 address between its brackets; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"a:0\" has a port that is not a number from 1 to 65535; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"a:http\" has a port that is not a number from 1 to 65535; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"1.2.3\" has neither a host name nor an IPv4 address; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]\n\
         flag --set: cluster.endpoints: \"a_b\" has a host that is not a DNS name; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]"
    );
    let loaded = right(vec![toml(
        "cluster.endpoints = [\"API.example.com\", \"10.0.0.1:443\", \"https://[fd00::0:1]\", \"https://[fd00::1]:8443/\"]",
    )]);
    let endpoints: Vec<String> = loaded.config.cluster.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(
        endpoints,
        ["https://api.example.com:6443", "https://10.0.0.1:443", "https://[fd00::1]:6443", "https://[fd00::1]:8443"]
    );
}

#[test]
fn tokens_are_never_repeated() {
    assert_eq!(
        message(vec![toml("[cluster]\ntoken = \"hunter2\"\n")]),
        "/etc/gpuk/agent.toml:2:9: cluster.token: the text of 7 characters here is not a bootstrap token: it has no dot; right would be six characters, a dot, sixteen characters of a-z 0-9, e.g. \"abcdef.0123456789abcdef\""
    );
    for wrong in ["ABCDEF.9876543210fedcba", "zbcdef.9876543210fedcb", "zbcdef 9876543210fedcba", "zbcdef=9876543210fedcba"] {
        for source in [
            toml(&format!("[cluster]\ntoken = \"{wrong}\"")),
            cloud_config(&format!("gpuk:\n  cluster: {{token: {wrong}}}")),
            Source::environment(pairs(&[("GPUK_CLUSTER_TOKEN", wrong)])),
            Source::flags(pairs(&[("cluster.token", wrong)])),
        ] {
            let text = message(vec![source]);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains("9876543210fed") && text.contains("is not a bootstrap token"), "{text}");
        }
    }
    // In the wrong key, it is still a token.
    let text =
        message(vec![toml("[cluster]\ntoken-file = \"zbcdef.9876543210fedcba\"\nendpoints = [\"zbcdef.9876543210fedcba/x\"]")]);
    assert_eq!(
        text,
        "/etc/gpuk/agent.toml:2:14: cluster.token-file: a text of 23 characters that contains a bootstrap token is not an absolute path; right would be a path from the root, e.g. \"/run/secrets/bootstrap-token\"\n\
         /etc/gpuk/agent.toml:3:14: cluster.endpoints: a text of 25 characters that contains a bootstrap token has a path, and an endpoint is only a host and a port; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]"
    );
}

#[test]
fn pins() {
    let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85";
    assert_eq!(
        message(vec![toml(&format!(
            "[cluster]\nca-cert-hashes = [\n  \"sha256:{digits}\",\n  \"{digits}5\",\n  \"sha256:{digits}x\",\n]\n"
        ))]),
        "/etc/gpuk/agent.toml:3:3: cluster.ca-cert-hashes: \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85\" has 63 hexadecimal digits after \"sha256:\" where there are 64 in a pin; right would be a list of pins, each \"sha256:\" and 64 hexadecimal digits, e.g. [\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]\n\
         /etc/gpuk/agent.toml:4:3: cluster.ca-cert-hashes: \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\" lacks \"sha256:\" before its digits; right would be a list of pins, each \"sha256:\" and 64 hexadecimal digits, e.g. [\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]\n\
         /etc/gpuk/agent.toml:5:3: cluster.ca-cert-hashes: \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85x\" has something after \"sha256:\" that is not a hexadecimal digit; right would be a list of pins, each \"sha256:\" and 64 hexadecimal digits, e.g. [\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]"
    );
}

#[test]
fn each_kind_of_cluster_takes_its_own_tokens() {
    let long = format!("K10{}::server:hunter2", "0a".repeat(32));
    let kind = |kind: &str, token: &str| message(vec![toml(&format!("[cluster]\nkind = \"{kind}\"\ntoken = \"{token}\"\n"))]);
    for token in [&long, "hunter2", "abcdef.0123456789abcdef"] {
        assert_eq!(kind("k3s", token), "nothing is wrong", "{token}");
    }
    let text = kind("kubeadm", &long);
    assert!(text.contains(":3:9: cluster.token: ") && text.contains("for k3s's token: cluster.kind = \"k3s\""), "{text}");
    let cut = &long[..40];
    for text in [kind("k3s", cut), text, message(vec![toml(&format!("[cluster]\nendpoints = [\"{long}\"]"))])] {
        assert!(!text.contains("hunter2") && !text.contains("0a0a") && text.contains("k3s"), "{text}");
    }
}

#[test]
fn defaults_of_k3s_hold_where_nobody_says_otherwise() {
    let socket = |more: &str| {
        let loaded = right(vec![toml(&format!("[cluster]\nkind = \"k3s\"\n{more}"))]);
        loaded.config.containerd.socket.display().to_string()
    };
    assert_eq!(socket(""), "/run/k3s/containerd/containerd.sock");
    assert_eq!(socket("[containerd]\nsocket = \"/run/mine.sock\"\n"), "/run/mine.sock");
    let missing = |more: &str| {
        let loaded = right(vec![toml(&format!("[cluster]\nkind = \"k3s\"\nendpoints = [\"a\"]\n{more}"))]);
        loaded.config.missing_for_join().into_iter().map(|missing| missing.key).collect::<Vec<_>>()
    };
    assert_eq!(missing(&format!("token = \"K10{}::server:x\"", "0a".repeat(32))), [""; 0]);
    assert_eq!(missing("token-file = \"/t\""), [""; 0]);
    assert_eq!(missing("token = \"hunter2\""), ["cluster.ca-cert-hashes"]);
    assert_eq!(missing("init = \"this-node\"\n[node]\nrole = \"control-plane\""), [""; 0]);
}

#[test]
fn where_a_token_comes_from() {
    let text = "[cluster]\ntoken-url = \"https://a/b\"\ntoken-command = [\"join-token\"]\nssh.hosts = [\"root@cp1\"]\n";
    assert_eq!(
        message(vec![toml(text)]),
        "/etc/gpuk/agent.toml:4:14: cluster.ssh.hosts: \"root@cp1\" has a user in it, and that is cluster.ssh.user; right would be a list of hosts, each HOST[:PORT], an IPv6 address in brackets, e.g. [\"10.0.0.10\", \"10.0.0.11\"]\n\
         /etc/gpuk/agent.toml:2:13: cluster.token-url: this is given without cluster.token-url-ca-file, and a server is only believed under a CA that is named; give the file of the CA's certificate, too\n\
         /etc/gpuk/agent.toml:3:17: cluster.token-command: \"join-token\" is not an absolute path; begin the list with the program's path from the root"
    );
    let secret = "[cluster]\ntoken-command = [\"/a\", \"zbcdef.9876543210fedcba\"]\ntoken = \"kubeadm join a --token zbcdef\"\n";
    let shown = message(vec![toml(secret)]);
    assert!(shown.contains("everybody can see") && shown.contains("whose --token"), "{shown}");
    assert!(!shown.contains("zbcdef"), "{shown}");
}

#[test]
fn taints_in_one_place() {
    assert_eq!(
        message(vec![toml(
            "[node]\ntaints = [\"a=1:NoSchedule\", \"a=1:NoExecute\", \"a=2:NoSchedule\"]\n[gpu]\ntaints = [\"b:NoSchedule\", \"b:NoSchedule\"]\n"
        )]),
        "/etc/gpuk/agent.toml:2:10: node.taints: \"a=1:NoSchedule\" and \"a=2:NoSchedule\" have the same key and effect, and a node takes one taint of them; keep one of them\n\
         /etc/gpuk/agent.toml:4:10: gpu.taints: \"b:NoSchedule\" and \"b:NoSchedule\" have the same key and effect, and a node takes one taint of them; keep one of them"
    );
    let startup = Source::flags(pairs(&[("gpu.startup-taints", "a:NoSchedule,a=x:NoSchedule")]));
    assert!(message(vec![startup]).contains("gpu.startup-taints: \"a:NoSchedule\" and \"a=x:NoSchedule\""));
    // A later layer takes the place of an earlier one, and one list may say again what another does.
    let earlier = toml("[node]\ntaints = [\"a=1:NoSchedule\"]\n[gpu]\ntaints = [\"a=2:NoSchedule\"]\n");
    right(vec![earlier, Source::flags(pairs(&[("node.taints", "a=3:NoSchedule")]))]);
}

#[test]
fn a_certificate_key_is_said_once_and_never_shown() {
    let key = "0123456789abcdef".repeat(4);
    let both = message(vec![toml(&format!("[cluster]\ncertificate-key = \"{key}\"\ncertificate-key-file = \"/k\"\n"))]);
    assert!(both.contains("cluster.certificate-key-file: this is given at") && !both.contains(&key), "{both}");
    let wrong = message(vec![toml(&format!("[cluster]\ncertificate-key = \"{}\"\n", &key[1..]))]);
    assert!(wrong.contains("it has 63 digits") && !wrong.contains("123456"), "{wrong}");
}

#[test]
fn node() {
    assert_eq!(
        message(vec![toml(
            "[node]\nlabels = { \"node-role.kubernetes.io/gpu\" = \"\", \"topology.kubernetes.io/rack\" = \"7\", \"-a\" = \"b\" }\nname = \"GPU-{serial}\"\nrole = \"workers\"\nip = \"127.0.0.1\"\nprovider-id = \"i-1\"\ntaints = [\"gpu\", \"gpu=yes:noschedule\"]\nkubelet-extra-args = [\"max-pods=60\", \"--a b\"]\n[cluster]\npatience = \"5\"\n[containerd]\npause-image = \"a b\"\nsocket = \"containerd.sock\"\n"
        )]),
        "/etc/gpuk/agent.toml:2:12: node.labels: \"node-role.kubernetes.io/gpu=\" may not be set by a node on itself: a kubelet that is told to does not start; roles are given from outside, with kubectl label node; right would be a map of label keys and values, e.g. { \"example.com/pool\" = \"gpu\" }\n\
         /etc/gpuk/agent.toml:2:48: node.labels: \"topology.kubernetes.io/rack=7\" may not be set by a node on itself: a kubelet that is told to does not start; right would be a map of label keys and values, e.g. { \"example.com/pool\" = \"gpu\" }\n\
         /etc/gpuk/agent.toml:2:85: node.labels: \"-a=b\" has a key that is not 1 to 63 letters, digits, \"-\", \"_\" or \".\" with a letter or digit at both ends; right would be a map of label keys and values, e.g. { \"example.com/pool\" = \"gpu\" }\n\
         /etc/gpuk/agent.toml:3:8: node.name: \"GPU-{serial}\" contains \"G\", which a node name cannot; right would be a-z 0-9 - and the placeholders {instance-id}, {instance-id-short}, {machine-id-short}, {instance-name}, {cluster}, {gpu-model}, {gpu-count}, {role}, {zone}, {region}, {instance-type}, e.g. \"gpu-{instance-id}\"\n\
         /etc/gpuk/agent.toml:4:8: node.role: \"workers\" is not a choice here; did you mean \"worker\"?\n\
         /etc/gpuk/agent.toml:5:6: node.ip: \"127.0.0.1\" is an address that other machines cannot reach the node by; right would be an IPv4 or IPv6 address of this machine, e.g. \"10.0.0.12\"\n\
         /etc/gpuk/agent.toml:6:15: node.provider-id: \"i-1\" is not a provider id; right would be the cloud's name, :// and its name for the machine, without spaces, or none, e.g. \"aws:///eu-west-1a/i-0123456789abcdef0\"\n\
         /etc/gpuk/agent.toml:7:11: node.taints: \"gpu\" has no effect after a colon; right would be a list of taints, each key[=value]:Effect, e.g. [\"nvidia.com/gpu=present:NoSchedule\"]\n\
         /etc/gpuk/agent.toml:7:18: node.taints: \"gpu=yes:noschedule\" has an effect that is none of NoSchedule, PreferNoSchedule, NoExecute; right would be a list of taints, each key[=value]:Effect, e.g. [\"nvidia.com/gpu=present:NoSchedule\"]\n\
         /etc/gpuk/agent.toml:8:23: node.kubelet-extra-args: \"max-pods=60\" does not begin with \"--\" and a name; right would be a list of arguments, each beginning with --, e.g. [\"--max-pods=60\"]\n\
         /etc/gpuk/agent.toml:8:38: node.kubelet-extra-args: \"--a b\" contains white space, and the unit of the kubelet would take it apart there; right would be a list of arguments, each beginning with --, e.g. [\"--max-pods=60\"]\n\
         /etc/gpuk/agent.toml:10:12: cluster.patience: \"5\" has a number without a unit; right would be numbers with the units s, m, h or d, e.g. \"10m\"\n\
         /etc/gpuk/agent.toml:12:15: containerd.pause-image: \"a b\" is not an image reference; right would be an image reference, e.g. \"registry.k8s.io/pause:3.10\"\n\
         /etc/gpuk/agent.toml:13:10: containerd.socket: \"containerd.sock\" is not an absolute path; right would be a path from the root, e.g. \"/run/containerd/containerd.sock\""
    );
}

#[test]
fn yaml() {
    assert_eq!(
        message(vec![cloud_config("#cloud-config\nruncmd: [a\ngpuk:\n  x: 1\n")]),
        "user-data:3:5: this cannot be read as a cloud-config: illegal placement of ':' indicator"
    );
    assert_eq!(
        message(vec![cloud_config(
            "#cloud-config\nusers: []\ngpuk:\n  cluster:\n    endpoint: a\n    token:\n    endpoints:\n      - http://a\n"
        )]),
        "user-data:5:5: unknown key \"endpoint\" in [cluster]; did you mean \"endpoints\"?\n\
         user-data:6:10: cluster.token: this has no value; give it a value, or leave the key out\n\
         user-data:8:9: cluster.endpoints: \"http://a\" is plain http, and an API server is only spoken to over https; right would be a list of API servers, each https://HOST[:PORT], an IPv6 address in brackets, e.g. [\"https://api.example.com:6443\"]"
    );
    assert_eq!(
        message(vec![cloud_config("gpuk: [1]\n")]),
        "user-data:1:7: \"gpuk\" is not a mapping; right would be a mapping of sections, or a block (|) of TOML text"
    );
    assert_eq!(
        message(vec![cloud_config("[{gpuk: 1}]\n")]),
        "user-data: this cannot be read as a cloud-config: invalid type: sequence, expected a mapping, as every cloud-config is"
    );
    assert_eq!(
        message(vec![cloud_config("gpuk: {}\ngpuk: {}\n")]),
        "user-data:2:1: \"gpuk\" was given before, at user-data:1:1; put both parts under one key"
    );
    assert_eq!(
        message(vec![cloud_config("gpuk:\n  gpu: {enabled: never, enabled: auto}\n")]),
        "user-data:2:25: the key \"enabled\" was given before, at user-data:2:9"
    );
    assert_eq!(
        message(vec![cloud_config("a: b\ngpuk: |\n\n  [cluster]\n  endpoint = []\n  kind =\n")]),
        "user-data:6:9: this is not TOML: there is no value"
    );
    assert_eq!(
        message(vec![cloud_config("a: b\ngpuk: |\n\n  [cluster]\n  endpoint = []\n")]),
        "user-data:5:3: unknown key \"endpoint\" in [cluster]; did you mean \"endpoints\"?"
    );
    assert_eq!(
        message(vec![cloud_config("gpuk: \"[cluster]\\nendpoint = []\"\n")]),
        "user-data:1:7: unknown key \"endpoint\" in [cluster]; did you mean \"endpoints\"?"
    );
    assert_eq!(
        message(vec![cloud_config("gpuk: >\n  [gpu]\n\n  endpoint = 1\n\n  enable = 2\n")]),
        "user-data:2:3: unknown key \"enable\" in [gpu]; did you mean \"enabled\"?\n\
         user-data:2:3: unknown key \"endpoint\" in [gpu]; it belongs under [cloud]"
    );
    assert_eq!(
        message(vec![cloud_config("a: *nowhere\ngpuk: {}\n")]),
        "user-data:1:4: this cannot be read as a cloud-config: reference to unknown value"
    );
    assert_eq!(message(vec![cloud_config("a: *nowhere\n")]), "nothing is wrong");
}

#[test]
fn environment_and_flags() {
    assert_eq!(
        message(vec![Source::environment(pairs(&[
            ("GPUK_CLUSTER_ENDPOINT", "a"),
            ("GPUK_TOKEN", "a"),
            ("GPUK_WHATEVER", "a"),
            ("GPUK_NODE_ALLOW_SWAP", "yes"),
            ("GPUK_NODE_LABELS", "a=b,c"),
        ]))]),
        "environment GPUK_CLUSTER_ENDPOINT: unknown variable \"GPUK_CLUSTER_ENDPOINT\"; did you mean \"GPUK_CLUSTER_ENDPOINTS\"?\n\
         environment GPUK_TOKEN: unknown variable \"GPUK_TOKEN\"; did you mean \"GPUK_CLUSTER_TOKEN\"?\n\
         environment GPUK_WHATEVER: unknown variable \"GPUK_WHATEVER\"; names are GPUK_SECTION_KEY, e.g. GPUK_CLUSTER_ENDPOINTS\n\
         environment GPUK_NODE_ALLOW_SWAP: node.allow-swap: \"yes\" is not a boolean; right would be true or false\n\
         environment GPUK_NODE_LABELS: node.labels: \"c\" has no \"=\"; right would be a map of label keys and values, e.g. { \"example.com/pool\" = \"gpu\" }"
    );
    assert_eq!(
        message(vec![Source::flags(pairs(&[
            ("cluster.endpoint", "a"),
            ("endpoints", "a"),
            ("whatever", "a"),
            ("clusters.token", "a"),
            ("node.labels.kubernetes.io/role", "a"),
            ("cluster.token.x", "a"),
        ]))]),
        "flag --set: unknown key \"endpoint\" in [cluster]; did you mean \"endpoints\"?\n\
         flag --set: unknown key \"endpoints\"; did you mean \"cluster.endpoints\"?\n\
         flag --set: unknown key \"whatever\"; write SECTION.KEY=VALUE, e.g. cluster.endpoints=https://api.example.com\n\
         flag --set: unknown key \"clusters.token\"; did you mean \"cluster.token\"?\n\
         flag --set: node.labels: \"kubernetes.io/role=a\" may not be set by a node on itself: a kubelet that is told to does not start; roles are given from outside, with kubectl label node; right would be a map of label keys and values, e.g. { \"example.com/pool\" = \"gpu\" }\n\
         flag --set: unknown key \"token.x\" in [cluster]; there are kind, name, endpoints, token, token-file, token-url, token-url-ca-file, token-command, ca-cert-hashes, unsafe-skip-ca-verification, certificate-key, certificate-key-file, init, pod-cidr, service-cidr, runtime-class, patience"
    );
}

#[test]
fn errors_have_fields() {
    let errors = load(vec![toml("[gpu]\nenabled = \"alway\"\n")]).err().map(|errors| serde_json::json!(errors));
    assert_eq!(
        errors,
        Some(serde_json::json!([{
            "origin": "/etc/gpuk/agent.toml",
            "line": 2,
            "column": 11,
            "key": "gpu.enabled",
            "message": "\"alway\" is not a choice here",
            "hint": "did you mean \"always\"?",
        }]))
    );
}

#[test]
fn redirects() {
    assert_eq!(
        message(vec![toml(
            "[redirects]\nrules = [\n{ port = 80, too = 81 },\n{ port = 80, to = 70000 },\n{ port = 80, to = [80.5] },\n{ to = 1 },\n\"80\",\n80,\n]\nmark = \"0x4000\"\n"
        )]),
        "/etc/gpuk/agent.toml:3:14: redirects.rules: \"too\" is no name here; did you mean \"to\"?\n\
         /etc/gpuk/agent.toml:4:1: redirects.rules: \"port=80 to=70000\" has the port \"70000\", which is no number from 1 to 65535; right would be a list of redirects, each PORT:TO or a map of port, to, protocols, families, e.g. [{ port = 443, to = 32479, protocols = [\"tcp\", \"udp\"] }]\n\
         /etc/gpuk/agent.toml:5:19: redirects.rules: the value of \"to\" is not a word, a number or a list of them; right would be a list of redirects, each PORT:TO or a map of port, to, protocols, families, e.g. [{ port = 443, to = 32479, protocols = [\"tcp\", \"udp\"] }]\n\
         /etc/gpuk/agent.toml:6:1: redirects.rules: \"to=1\" does not say which port is redirected; right would be a list of redirects, each PORT:TO or a map of port, to, protocols, families, e.g. [{ port = 443, to = 32479, protocols = [\"tcp\", \"udp\"] }]\n\
         /etc/gpuk/agent.toml:7:1: redirects.rules: \"80\" has no colon between its two ports; right would be a list of redirects, each PORT:TO or a map of port, to, protocols, families, e.g. [{ port = 443, to = 32479, protocols = [\"tcp\", \"udp\"] }]\n\
         /etc/gpuk/agent.toml:8:1: redirects.rules: an entry of this list is a number, not text; right would be a list of redirects, each PORT:TO or a map of port, to, protocols, families, e.g. [{ port = 443, to = 32479, protocols = [\"tcp\", \"udp\"] }]\n\
         /etc/gpuk/agent.toml:10:8: redirects.mark: \"0x4000\" belongs to kube-proxy, for masquerading; right would be one bit in hexadecimal that nobody else marks packets with, e.g. \"0x1000\""
    );
    assert_eq!(
        message(vec![toml("[redirects]\ningress = true\nrules = [\"8080:32245\"]\n")]),
        "/etc/gpuk/agent.toml:3:9: redirects.rules: ports 8080 and 80 are both redirected to 32245 (with redirects.ingress = true); keep one of them"
    );
    assert_eq!(
        message(vec![toml("[redirects]\nrules = [\"80:1\", \"80:2\"]\n")]),
        "/etc/gpuk/agent.toml:2:9: redirects.rules: port 80 is redirected twice, to 1 and to 2; keep one of them"
    );
    let yaml = "#cloud-config\ngpuk:\n  redirects:\n    rules: [{port: 80, to: 32245, protocols: [tcp, udp]}, \"443:32479\"]\n";
    let sources = user_data::unpack(yaml.as_bytes()).and_then(|user_data| user_data.layers(None)).unwrap();
    let rules: Vec<String> = right(sources).config.redirects.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["80:32245 protocols=tcp+udp", "443:32479"]);
}

#[test]
fn a_section_inside_of_another_one() {
    assert_eq!(
        message(vec![toml("[gpu.driver]\nbranches = \"535\"\n[gpu]\ndrivers = 1\n")]),
        "/etc/gpuk/agent.toml:2:1: unknown key \"branches\" in [gpu.driver]; did you mean \"branch\"?\n\
         /etc/gpuk/agent.toml:4:1: unknown key \"drivers\" in [gpu]; there are enabled, taints, startup-taints, reboot, mig-layout, nvml-helper, nvml-library"
    );
    assert_eq!(
        message(vec![Source::flags(vec![("gpu.driver.branch".to_owned(), "newest".to_owned())])]),
        "flag --set: gpu.driver.branch: \"newest\" is neither a branch nor a version of NVIDIA's driver; right would be \
         \"auto\", a branch or a whole version, -server behind it for Ubuntu's server line, e.g. \"550-server\""
    );
    let loaded = right(vec![
        cloud_config("#cloud-config\ngpuk:\n  gpu: {driver: {branch: 550-server}}\n"),
        toml("gpu.driver.flavour = \"open\"\n"),
    ]);
    let driver = loaded.config.gpu.driver;
    assert_eq!((driver.branch.to_string(), driver.flavour), ("550-server".to_owned(), crate::config::Flavour::Open));
}
