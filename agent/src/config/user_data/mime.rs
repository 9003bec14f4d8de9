//! A MIME multipart (RFC 2046) carries several texts, each with headers that say what it is; here is as much of it as
//! user-data uses.
//!
//! Libraries for e-mail are no help: where a hand-written message lacks the empty line after its headers, `mailparse` loses
//! the whole part without a word, while Python's `email`, by which cloud-init reads, takes the first line that is no header
//! for the beginning of the text. So does this reader.

use super::{Problem, packing};

/// Multiparts in each other, at most.
const DEEPEST: usize = 8;

/// One text of a message.
pub struct Part {
    /// In lower case, without parameters; `text/plain` where there is none (RFC 2045, 5.2).
    pub content_type: String,
    /// The file name, where it has one.
    pub name: Option<String>,
    /// Its text, or why it cannot be decoded.
    pub body: Result<Vec<u8>, String>,
}

/// Whether this is a message: cloud-init looks for `MIME-Version:` in the first 4096 bytes.
pub fn is_message(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let start = bytes.get(..4096).unwrap_or(bytes).to_ascii_lowercase();
    let has_version = start.windows(13).any(|window| window == b"mime-version:");
    !start.starts_with(b"#") && (has_version || start.starts_with(b"content-type: multipart/"))
}

/// The parts of a message in their order, those of inner multiparts in place.
pub fn parts(message: &[u8]) -> Result<Vec<Part>, Problem> {
    let mut found = Vec::new();
    collect(message.trim_ascii_start(), 0, &mut found)?;
    Ok(found)
}

fn collect(entity: &[u8], depth: usize, found: &mut Vec<Part>) -> Result<(), Problem> {
    let (headers, body) = split_headers(entity);
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let declared = header("content-type").unwrap_or("text/plain");
    let content_type = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if content_type.starts_with("multipart/") {
        if depth == DEEPEST {
            return Err(Problem::new(
                format!("more than {DEEPEST} multiparts lie in each other here"),
                "put all parts into one multipart",
            ));
        }
        let Some(boundary) = parameter(declared, "boundary").filter(|boundary| !boundary.is_empty()) else {
            return Err(Problem::new(
                "this multipart does not say what divides its parts",
                "write Content-Type: multipart/mixed; boundary=\"PART\", and a line --PART before each part",
            ));
        };
        let entities = divide(body, &boundary);
        if entities.is_empty() {
            return Err(Problem::new(
                "no line of this multipart is the boundary that its Content-Type names",
                "write a line with two hyphens and the boundary before each part",
            ));
        }
        return entities.into_iter().try_for_each(|entity| collect(entity, depth + 1, found));
    }
    let disposition = header("content-disposition").and_then(|value| parameter(value, "filename"));
    let name = disposition.or_else(|| parameter(declared, "name"));
    let encoding = header("content-transfer-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let body = match encoding.as_str() {
        "base64" => packing::base64(body).ok_or_else(|| "this part is not the base64 that its header says".to_owned()),
        "quoted-printable" => quoted_printable::decode(body, quoted_printable::ParseMode::Robust)
            .map_err(|error| format!("this part is not the quoted-printable that its header says: {error}")),
        _ => Ok(body.to_vec()),
    };
    found.push(Part { content_type, name, body });
    Ok(())
}

/// Headers with their names in lower case, and the text after the empty line, or from the first line that is no header.
fn split_headers(entity: &[u8]) -> (Vec<(String, String)>, &[u8]) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut rest = entity;
    for line in entity.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let after = &rest[line.len()..];
        if text.is_empty() {
            return (headers, after);
        }
        match (text.split_once(':'), headers.last_mut()) {
            (_, Some((_, value))) if text.starts_with([' ', '\t']) => value.push_str(text),
            (Some((name, value)), _) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            _ => return (headers, rest),
        }
        rest = after;
    }
    (headers, rest)
}

/// What lies between the lines that are the boundary; the line break before one belongs to it. Without a last boundary the
/// last part goes to the end.
fn divide<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    let mut start = None;
    let mut offset = 0;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let end = offset;
        offset += line.len();
        let divider = line.trim_ascii_end().strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary.as_bytes()));
        let Some(rest @ (b"" | b"--")) = divider else { continue };
        if let Some(start) = start {
            let part = &body[start..end];
            let part = part.strip_suffix(b"\n").unwrap_or(part);
            found.push(part.strip_suffix(b"\r").unwrap_or(part));
        }
        start = rest.is_empty().then_some(offset);
        if start.is_none() {
            break;
        }
    }
    found.extend(start.map(|start| &body[start..]));
    found
}

/// A parameter of a header, e.g. `boundary`: `; name=value`, the value perhaps in quotes (RFC 2045, 5.1).
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut is_quoted = false;
    let parameters = value.split(|letter| {
        is_quoted ^= letter == '"';
        letter == ';' && !is_quoted
    });
    let mut named = parameters.skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = named.find(|(known, _)| known.trim().eq_ignore_ascii_case(name))?;
    let value = value.trim();
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(inner.map_or_else(|| value.to_owned(), |inner| inner.replace("\\\"", "\"").replace("\\\\", "\\")))
}
