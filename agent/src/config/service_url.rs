//! A metadata service has no certificate: it is known by its address, over plain http.

use std::fmt;
use std::str::FromStr;

use super::values::{split_port, written_as_text};

written_as_text!(ServiceUrl);

/// The beginning of every URL of a metadata service: `http://HOST[:PORT]`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// `http://HOST[:PORT]`
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for ServiceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(authority) = text.strip_prefix("http://") else {
            return Err("is no plain http address, and metadata services speak nothing else".into());
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('/') {
            return Err("has a path, and the paths are the cloud's own".into());
        }
        let (host, port) = split_port(authority)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self(format!("http://{host}{port}")))
    }
}

#[cfg(test)]
mod tests {
    use super::ServiceUrl;

    #[test]
    fn a_service_is_a_host_and_a_port_over_plain_http() {
        let read = |text: &str| text.parse::<ServiceUrl>().map(|url| url.to_string());
        assert_eq!(read("http://169.254.169.254/"), Ok("http://169.254.169.254".to_owned()));
        assert_eq!(read("http://[fd00:ec2::254]:80"), Ok("http://[fd00:ec2::254]:80".to_owned()));
        for wrong in ["https://a", "169.254.169.254", "http://a/latest", "http://a b", "http://"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for port in ["0", "x", "+80", "", "65536"] {
            for host in ["a", "[fd00::1]"] {
                let error = read(&format!("http://{host}:{port}"));
                assert_eq!(error, Err("has a port that is not a number from 1 to 65535".to_owned()), "{host}:{port}");
            }
        }
    }
}
