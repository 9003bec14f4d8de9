//! As much of HTTP/1.1 as metadata services need: one request and one answer a connection (RFC 9112).

use std::io::{self, BufRead, Read as _, Write};
use std::time::Duration;

use serde_json::Value;

/// A request as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// E.g. `GET`.
    pub method: String,
    /// Without the query, percent-encoding undone.
    pub path: String,
    /// What stood behind the question mark, as it was sent.
    pub query: String,
    /// In the order seen, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// No client of ours sends more than this many bytes of request line and headers.
const LONGEST_HEAD: u64 = 1 << 16;

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter in the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value)
    }

    /// `None`: the client left without a request, or what came is not HTTP.
    pub(crate) fn read(stream: impl BufRead) -> io::Result<Option<Self>> {
        let mut lines = stream.take(LONGEST_HEAD);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (method, path, query) = (method.to_owned(), decoded(path), query.to_owned());
        let mut headers = Vec::new();
        loop {
            line.clear();
            lines.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let request = Self { method, path, query, headers };
        // A body is read and forgotten: closing a socket with unread bytes would reset the connection.
        let length: u64 = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        io::copy(&mut lines.take(length), &mut io::sink())?;
        Ok(Some(request))
    }
}

/// Undoes percent-encoding (RFC 3986).
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn of(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body: body.into() }
    }

    pub(crate) fn text(body: impl Into<Vec<u8>>) -> Self {
        Self::of(200, "text/plain", body)
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::of(200, "application/json", value.to_string())
    }

    /// An error as web servers write it: a page.
    pub(crate) fn error(status: u16) -> Self {
        let title = format!("{status} - {}", reason(status));
        Self::of(status, "text/html", format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"))
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Writes it, but no more than `limit` bytes of its body, and with a pause after each byte if one is given.
    pub(crate) fn write(&self, mut stream: impl Write, limit: usize, pause: Option<Duration>) -> io::Result<()> {
        let mut bytes = format!("HTTP/1.1 {} {}\r\nConnection: close\r\n", self.status, reason(self.status)).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).into_bytes());
        bytes.extend_from_slice(&self.body[..limit.min(self.body.len())]);
        match pause {
            None => stream.write_all(&bytes)?,
            Some(pause) => {
                for byte in bytes {
                    stream.write_all(&[byte])?;
                    stream.flush()?;
                    std::thread::sleep(pause);
                }
            }
        }
        stream.flush()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Unnamed",
    }
}
