//! As much of HTTP/1.1 as a supervisor needs: one request and one answer a connection (RFC 9112).

use std::io::{BufRead, BufReader, Read, Write};

/// A request as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// E.g. `/v1-k3s/config`.
    pub path: String,
    /// In the order seen, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads the head of one; `None` from a client that went away.
    pub(crate) fn read(stream: &mut impl Read) -> Option<Self> {
        let mut lines = BufReader::new(stream.take(1 << 16)).lines().map_while(Result::ok);
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let headers = lines.take_while(|line| !line.is_empty());
        let headers = headers
            .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())));
        Some(Self { path, headers: headers.collect() })
    }
}

/// What is answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) retry_after: Option<u32>,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, body: body.into(), retry_after: None }
    }

    /// The API's error object, as k3s's `util.SendError` writes it.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        let object =
            serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status});
        Self { status, body: object.to_string(), retry_after: (status == 429).then_some(1) }
    }

    pub(crate) fn write(&self, to: &mut impl Write, date: &str) -> std::io::Result<()> {
        let retry = self.retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
        let length = self.body.len();
        write!(
            to,
            "HTTP/1.1 {} x\r\nDate: {date}\r\n{retry}Connection: close\r\nContent-Length: {length}\r\n\r\n{}",
            self.status, self.body
        )?;
        to.flush()
    }
}
