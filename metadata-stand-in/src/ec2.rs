//! EC2's metadata is a tree of small text files (Amazon EC2 User Guide, "Use instance metadata to manage your EC2 instance").

use std::collections::BTreeMap;

use serde_json::json;

use crate::cloud::Tokens;
use crate::http::{Answer, Request};
use crate::machine::Machine;
use crate::token::Ledger;

/// The versions that every implementation has, and those that came later.
const OLD_VERSIONS: &[&str] =
    &["1.0", "2007-01-19", "2007-03-01", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04"];
const NEW_VERSIONS: &[&str] =
    &["2011-01-01", "2014-02-25", "2016-09-02", "2018-09-24", "2020-10-27", "2021-03-23", "2021-07-15", "2022-09-24"];

/// The longest lifetime of a token, in seconds.
const LONGEST: u64 = 21600;

pub(crate) fn answer(tokens: Tokens, machine: &Machine, request: &Request, ledger: &mut Ledger) -> Answer {
    if let (Tokens::Unknown(status), "/latest/api/token") = (tokens, request.path.as_str()) {
        return Answer::error(status);
    }
    let amazon = !matches!(tokens, Tokens::Unknown(_));
    match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/latest/api/token") if request.header("x-forwarded-for").is_some() => return Answer::error(403),
        ("PUT", "/latest/api/token") => {
            let Some((token, seconds)) = ledger.give(request.header("x-aws-ec2-metadata-token-ttl-seconds"), LONGEST) else {
                return Answer::error(400);
            };
            return Answer::text(token).with("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", seconds.to_string());
        }
        ("GET" | "HEAD", path) if path != "/latest/api/token" => {}
        _ => return Answer::error(405),
    }
    let allowed = match (tokens, request.header("x-aws-ec2-metadata-token")) {
        (Tokens::Unknown(_), _) | (Tokens::Optional, None) => true,
        (Tokens::Required, None) => false,
        (_, Some(token)) => ledger.knows(token),
    };
    if !allowed {
        return Answer::error(401);
    }
    look_up(&files(machine, amazon), machine, &request.path, amazon)
}

/// Answers from a tree that was made by [`files`].
pub(crate) fn look_up(files: &BTreeMap<String, String>, machine: &Machine, path: &str, amazon: bool) -> Answer {
    let versions: Vec<&str> =
        OLD_VERSIONS.iter().chain(NEW_VERSIONS.iter().filter(|_| amazon)).copied().chain(["latest"]).collect();
    let (version, below) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    if version.is_empty() {
        return Answer::text(versions.join("\n"));
    }
    if !versions.contains(&version) {
        return Answer::error(404);
    }
    if below == "user-data" {
        let given = !machine.user_data.is_empty();
        return if given { Answer::of(200, "application/octet-stream", machine.user_data.clone()) } else { Answer::error(404) };
    }
    if let Some(text) = files.get(below) {
        return Answer::text(text.clone());
    }
    if below.trim_end_matches('/') == "meta-data/public-keys" && !machine.public_keys.is_empty() {
        let lines: Vec<String> =
            machine.public_keys.keys().enumerate().map(|(number, name)| format!("{number}={name}")).collect();
        return Answer::text(lines.join("\n"));
    }
    match listing(files, below.trim_end_matches('/')) {
        lines if lines.is_empty() => Answer::error(404),
        mut lines => {
            if below.is_empty() && !machine.user_data.is_empty() {
                lines.push("user-data".to_owned());
            }
            Answer::text(lines.join("\n"))
        }
    }
}

/// The names right below a folder, folders with a slash behind them; nothing if there is no such folder.
fn listing(files: &BTreeMap<String, String>, folder: &str) -> Vec<String> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut names = Vec::new();
    for rest in files.keys().filter_map(|path| path.strip_prefix(&prefix)) {
        let name = match rest.split_once('/') {
            // The top level names its folders without a slash.
            Some((name, _)) if folder.is_empty() => name.to_owned(),
            Some((name, _)) => format!("{name}/"),
            None => rest.to_owned(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The text files by their paths below a version. A cloud that is only compatible has no more than the oldest ones.
pub(crate) fn files(machine: &Machine, amazon: bool) -> BTreeMap<String, String> {
    let zone = machine.zone.clone().unwrap_or_else(|| format!("{}a", machine.region));
    let mut files = BTreeMap::new();
    let mut put = |path: &str, text: &str| files.insert(format!("meta-data/{path}"), text.to_owned());
    let domain =
        if machine.region == "us-east-1" { "ec2.internal".to_owned() } else { format!("{}.compute.internal", machine.region) };
    let hostname = format!("ip-{}.{domain}", machine.address.replace('.', "-"));
    put("ami-id", "ami-0abcdef1234567890");
    put("ami-launch-index", "0");
    put("hostname", &hostname);
    put("instance-id", &machine.instance_id);
    put("instance-type", &machine.instance_type);
    put("local-hostname", &hostname);
    put("local-ipv4", &machine.address);
    put("placement/availability-zone", &zone);
    put("reservation-id", "r-0123456789abcdef0");
    put("security-groups", "default");
    put("block-device-mapping/ami", "xvda");
    put("block-device-mapping/root", "/dev/xvda");
    for (number, key) in machine.public_keys.values().enumerate() {
        put(&format!("public-keys/{number}/openssh-key"), key);
    }
    if amazon {
        put("ami-manifest-path", "(unknown)");
        put("instance-life-cycle", "on-demand");
        put("mac", &machine.mac);
        put("placement/region", &machine.region);
        put("services/domain", "amazonaws.com");
        put("services/partition", "aws");
        // The keys that instance metadata can show hold no space and no slash ("Work with instance tags in instance metadata").
        for (key, value) in machine.tags.iter().filter(|(key, _)| !key.contains([' ', '/'])) {
            put(&format!("tags/instance/{key}"), value);
        }
        let interface = format!("network/interfaces/macs/{}", machine.mac);
        let network = machine.address.rsplit_once('.').map_or(machine.address.as_str(), |(network, _)| network);
        for (name, text) in [
            ("device-number", "0"),
            ("interface-id", "eni-0123456789abcdef0"),
            ("local-hostname", &hostname),
            ("local-ipv4s", &machine.address),
            ("mac", &machine.mac),
            ("owner-id", "123456789012"),
            ("subnet-id", "subnet-0123456789abcdef0"),
            ("subnet-ipv4-cidr-block", &format!("{network}.0/24")),
            ("vpc-id", "vpc-0123456789abcdef0"),
        ] {
            put(&format!("{interface}/{name}"), text);
        }
        let document = json!({
            "accountId": "123456789012", "architecture": "x86_64", "availabilityZone": zone, "imageId": "ami-0abcdef1234567890",
            "instanceId": machine.instance_id, "instanceType": machine.instance_type, "pendingTime": "2026-01-01T00:00:00Z",
            "privateIp": machine.address, "region": machine.region, "version": "2017-09-30",
        });
        files.insert("dynamic/instance-identity/document".to_owned(), format!("{document:#}"));
    }
    files
}
