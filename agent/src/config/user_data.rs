//! User-data belongs to many readers; the agent finds its own parts in every form that cloud-init takes, and leaves the rest.
//!
//! The forms are those of cloud-init's documentation ("User-data formats"), with the agent's own TOML beside them: a text
//! whose first line is `#gpuk-agent`, or a MIME part of type `text/x-gpuk-toml`. Where the agent differs from cloud-init:
//! - Each part is a layer over those before it, key by key, as everywhere in the configuration. cloud-init's default merge
//!   (`dict(replace)+list()+str()`) takes a later `gpuk:` whole instead, and honours `Merge-Type` and `merge_how`, which the
//!   agent does not.
//! - `Launch-Index`, JSON patches (`#cloud-config-jsonp`) and part handlers are passed over.
//! - A byte order mark, base64 around everything, gzip in a part of any text type and a `Content-Type: multipart/…` without
//!   `MIME-Version` are taken too: not every machine has cloud-init.
//! - A cloud-config that is not YAML is cloud-init's business unless it names the key `gpuk` (at the beginning of a line, or
//!   first or next in `{…, …}`): then the agent's part cannot be known and the error is the agent's.

mod kind;
mod mime;
mod packing;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::Value as Json;

use self::kind::Kind;
use self::mime::Part;
use self::packing::Unpacker;
pub use self::packing::base64;
use super::error::{ConfigError, ConfigErrors};
use super::place::{Origin, Place};
use super::{Format, Source, yaml_text};

/// Where cloud-init leaves what all cloud-configs of the user-data came to, templates and includes among them.
pub const MERGED_BY_CLOUD_INIT: &str = "/var/lib/cloud/instance/cloud-config.txt";

/// How often everything may be wrapped, e.g. base64 of gzip is twice.
const WRAPPINGS: usize = 4;

/// Why something cannot be read.
#[derive(Debug)]
struct Problem {
    what: String,
    hint: &'static str,
    /// Line and column, where known.
    position: Option<(usize, usize)>,
}

impl Problem {
    fn new(what: impl Into<String>, hint: &'static str) -> Self {
        Self { what: what.into(), hint, position: None }
    }

    fn at(self, place: &Place) -> ConfigError {
        let place = self.position.map_or_else(|| place.clone(), |(line, column)| place.at(line, column));
        ConfigError::new(&place, self.what).hint(self.hint)
    }
}

/// What user-data holds for the agent.
#[derive(Debug, Default)]
pub struct UserData {
    /// The parts that can be read as they are, in their order.
    pub sources: Vec<Source>,
    /// Whether cloud-init can know more of the agent's part: there is an include, or a template around `gpuk:`.
    pub cloud_init_may_know_more: bool,
    /// Templates that only cloud-init can fill in.
    templates: Vec<ConfigError>,
}

impl UserData {
    /// The layers in their order. `merged` is the text of [`MERGED_BY_CLOUD_INIT`], where there is one and it is needed;
    /// it stands for all cloud-configs and lies below the TOML parts. Without it, a template that holds `gpuk:` is an error.
    pub fn layers(self, merged: Option<String>) -> Result<Vec<Source>, ConfigErrors> {
        match merged {
            Some(text) => {
                let origin = Origin::File(MERGED_BY_CLOUD_INIT.to_owned());
                let toml = self.sources.into_iter().filter(|source| matches!(source.format, Format::Toml(_)));
                Ok(std::iter::once(Source { origin, format: Format::CloudConfig(text) }).chain(toml).collect())
            }
            None if self.templates.is_empty() => Ok(self.sources),
            None => Err(ConfigErrors(self.templates)),
        }
    }
}

/// Unpacks user-data as a platform hands it out. What is in no form that could hold a part of the agent has no parts.
/// An error names every part that could be the agent's and cannot be read.
pub fn unpack(bytes: &[u8]) -> Result<UserData, ConfigErrors> {
    let mut reader = Reader::default();
    if let Err(problem) = reader.whole(bytes) {
        reader.errors.push(problem.at(&Place::of(Origin::UserData)));
    }
    if reader.errors.is_empty() { Ok(reader.found) } else { Err(ConfigErrors(reader.errors)) }
}

#[derive(Default)]
struct Reader {
    unpacker: Unpacker,
    /// Parts seen so far, the agent's or not.
    count: usize,
    found: UserData,
    errors: Vec<ConfigError>,
}

impl Reader {
    fn whole(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let place = Place::of(Origin::UserData);
        let mut bytes = Cow::Borrowed(without_mark(bytes));
        let mut wrappings = 0;
        while let Some(inner) = self.unpacker.unwrap(&bytes)? {
            bytes = Cow::Owned(without_mark(&inner).to_vec());
            wrappings += 1;
            if wrappings > WRAPPINGS {
                let what = format!("this is packed more than {WRAPPINGS} times over");
                return Err(Problem::new(what, "gzip it once, and encode that in base64 once"));
            }
        }
        if !mime::is_message(&bytes) {
            return self.part("text/x-not-multipart", &place, &bytes);
        }
        for part in mime::parts(&bytes)? {
            let Part { content_type, name, body } = part;
            let place = self.next_part(name);
            let read = match body {
                Ok(body) => self.part(&content_type, &place, &body),
                Err(_) if !kind::may_be_ours(&content_type) => Ok(()),
                Err(why) => Err(Problem::new(why, "encode the part again")),
            };
            self.errors.extend(read.err().map(|problem| problem.at(&place)));
        }
        Ok(())
    }

    fn next_part(&mut self, name: Option<String>) -> Place {
        self.count += 1;
        Place::of(Origin::UserDataPart { number: self.count, name })
    }

    fn part(&mut self, content_type: &str, place: &Place, bytes: &[u8]) -> Result<(), Problem> {
        let unpacked;
        let mut bytes = bytes;
        if kind::may_be_ours(content_type) {
            unpacked = self.unpacker.gunzip(bytes)?;
            bytes = unpacked.as_deref().unwrap_or(bytes);
        }
        let text = String::from_utf8_lossy(without_mark(bytes));
        let kind = Kind::of(content_type, &text);
        let is_ours = match kind {
            Kind::Foreign | Kind::Include => false,
            Kind::Toml => true,
            Kind::CloudConfig | Kind::Template | Kind::Archive => text.contains(yaml_text::OUR_KEY),
        };
        if is_ours && matches!(text, Cow::Owned(_)) {
            return Err(Problem::new("this is not UTF-8 text", "save it as UTF-8"));
        }
        match kind {
            Kind::Foreign => {}
            Kind::Include => self.found.cloud_init_may_know_more = true,
            Kind::Toml => self.add(place, Format::Toml(text.into_owned())),
            Kind::CloudConfig => self.add(place, Format::CloudConfig(text.into_owned())),
            // A template of anything else, such as a script.
            Kind::Template
                if Kind::by_beginning(text.split_once('\n').map_or("", |(_, rest)| rest)) != Some(Kind::CloudConfig) => {}
            Kind::Template => match template::our_part(&text) {
                Ok(part) => self.add(place, Format::CloudConfig(part)),
                Err(problem) => {
                    self.found.cloud_init_may_know_more = true;
                    self.found.templates.push(problem.at(place));
                }
            },
            Kind::Archive => self.archive(&text, place, is_ours),
        }
        Ok(())
    }

    fn add(&mut self, place: &Place, format: Format) {
        self.found.sources.push(Source { origin: place.origin.clone(), format });
    }

    /// A list of texts, or of mappings with `content` and perhaps `type` and `filename`. What has no type and does not say
    /// what it is is a cloud-config.
    fn archive(&mut self, text: &str, place: &Place, is_ours: bool) {
        let entries: Vec<Json> = match yaml_text::parse(text) {
            Ok(entries) => entries,
            Err(error) => {
                // One that is not the agent's is cloud-init's business.
                self.errors.extend(is_ours.then(|| yaml_text::unreadable(&error, "cloud-config-archive", place)));
                return;
            }
        };
        for entry in entries {
            let field = |name: &str| entry.get(name).and_then(Json::as_str);
            let Some(content) = entry.as_str().or_else(|| field("content")) else { continue };
            let place = self.next_part(field("filename").map(str::to_owned));
            let content_type = match field("type").filter(|written| !written.is_empty()) {
                Some(written) => written.to_ascii_lowercase(),
                None if Kind::by_beginning(content).is_some() => "text/plain".to_owned(),
                None => "text/cloud-config".to_owned(),
            };
            // cloud-init does not open an archive in an archive either.
            if Kind::of(&content_type, content) == Kind::Archive {
                continue;
            }
            let read = self.part(&content_type, &place, content.as_bytes());
            self.errors.extend(read.err().map(|problem| problem.at(&place)));
        }
    }
}

/// Without the byte order mark that Windows editors write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}
