//! The kubelet and kubeadm are strict about how addresses, pins and periods are written; the agent says so before they do.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// Lets a type travel through JSON as the text that it prints and reads.
macro_rules! written_as_text {
    ($($name:ty),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(super) use written_as_text;

written_as_text!(Endpoint, Pin, Period);

/// The address of an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port, 6443 where none was given.
    pub port: u16,
}

impl Endpoint {
    /// The port of an API server when nobody says otherwise.
    pub const DEFAULT_PORT: u16 = 6443;

    /// `host:port`, an IPv6 address in brackets, as `kubeadm join` takes it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}", self.authority())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(("http", _)) => {
                return Err("is plain http, and an API server is only spoken to over https".into());
            }
            Some(_) => return Err("is not an https address".into()),
            None => text,
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('/') {
            return Err("has a path, and an endpoint is only a host and a port".into());
        }
        let (host, port) = split_port(authority)?;
        Ok(Self { host, port: port.unwrap_or(Self::DEFAULT_PORT) })
    }
}

/// Takes an authority apart into a checked host and the port after its colon.
pub(super) fn split_port(authority: &str) -> Result<(String, Option<u16>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err("has a bracket that is not closed".into());
        };
        let address: Ipv6Addr = address.parse().map_err(|_| "has no IPv6 address between its brackets")?;
        return match after.strip_prefix(':') {
            Some(digits) => Ok((address.to_string(), Some(port(digits)?))),
            None if after.is_empty() => Ok((address.to_string(), None)),
            None => Err("has more than a port after its brackets".into()),
        };
    }
    if authority.matches(':').count() > 1 {
        return Err("looks like an IPv6 address without brackets".into());
    }
    let (host, digits) = match authority.split_once(':') {
        Some((host, digits)) => (host, Some(digits)),
        None => (authority, None),
    };
    let host = host.to_ascii_lowercase();
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && host.parse::<Ipv4Addr>().is_err() {
        return Err("has neither a host name nor an IPv4 address".into());
    }
    if !is_dns_name(&host) {
        return Err("has a host that is not a DNS name".into());
    }
    Ok((host, digits.map(port).transpose()?))
}

fn port(digits: &str) -> Result<u16, String> {
    match digits.parse() {
        // What is read as a number may begin with a plus.
        Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err("has a port that is not a number from 1 to 65535".into()),
    }
}

/// Whether a text is a lower-case DNS name (RFC 1123), as Kubernetes names nodes and label prefixes.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Whether a text is one label of such a name: 1 to 63 letters, digits and hyphens, no hyphen at an end.
pub fn is_dns_label(text: &str) -> bool {
    let letters = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    letters && !text.is_empty() && text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-')
}

/// The hash of a cluster's CA public key, by which a joining node knows that it talks to the right cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin(String);

impl Pin {
    /// `sha256:` and 64 hexadecimal digits in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.strip_prefix("sha256:") {
            None if text.len() == 64 && is_hexadecimal(text) => Err("lacks \"sha256:\" before its digits".into()),
            None => Err("does not begin with \"sha256:\"".into()),
            Some(digits) if !is_hexadecimal(digits) => {
                Err("has something after \"sha256:\" that is not a hexadecimal digit".into())
            }
            Some(digits) if digits.len() != 64 => {
                Err(format!("has {} hexadecimal digits after \"sha256:\" where there are 64 in a pin", digits.len()))
            }
            Some(_) => Ok(Self(text.to_ascii_lowercase())),
        }
    }
}

/// A length of time, written like `90s`, `5m` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// In seconds: more than anyone waits for, and less than a clock can count.
const LONGEST: u64 = 365 * 86_400;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        if rest == 0 {
            return formatter.write_str("0s");
        }
        for (unit, seconds) in UNITS {
            if rest >= seconds {
                write!(formatter, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is not a length of time".to_owned();
        let mut total: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or("has a number without a unit")?;
            let (number, after) = rest.split_at(digits);
            let mut letters = after.chars();
            let unit = letters.next().ok_or_else(wrong)?;
            let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let part = number.checked_mul(seconds).ok_or("is too long")?;
            total = total.checked_add(part).ok_or("is too long")?;
            rest = letters.as_str();
        }
        match total {
            _ if text.is_empty() => Err(wrong()),
            _ if total > LONGEST => Err("is longer than 365 days".into()),
            _ => Ok(Self(Duration::from_secs(total))),
        }
    }
}
