//! A node's name is for ever: it is chosen once from what the machine knows of itself, by a pattern.

use std::fmt;
use std::str::FromStr;

use super::checks::did_you_mean;
use super::error::quoted;
use super::values::written_as_text;

/// What may stand between braces in `node.name`.
pub const PLACEHOLDERS: [&str; 11] = [
    "instance-id",
    "instance-id-short",
    "machine-id-short",
    "instance-name",
    "cluster",
    "gpu-model",
    "gpu-count",
    "role",
    "zone",
    "region",
    "instance-type",
];

/// The longest label in a DNS name (RFC 1123, 2.1; RFC 1035, 2.3.4).
pub const LONGEST_NAME: usize = 63;

/// A pattern such as `gpu-{instance-id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Placeholder(&'static str),
}

written_as_text!(NameTemplate);

impl NameTemplate {
    /// Puts values in place of the placeholders; the error is the first placeholder that has none.
    pub fn fill(&self, value_of: impl Fn(&str) -> Option<String>) -> Result<String, &'static str> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Placeholder(placeholder) => name.push_str(&value_of(placeholder).ok_or(*placeholder)?),
            }
        }
        Ok(name)
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for NameTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literals = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, after) = match rest.split_once('{') {
                Some((literal, after)) => (literal, Some(after)),
                None => (rest, None),
            };
            if literal.contains('.') {
                return Err(
                    "contains \".\", and a node's name is one label of a DNS name: what is behind the dot is no part of it"
                        .into(),
                );
            }
            if let Some(wrong) = literal.chars().find(|letter| !is_name_letter(*letter)) {
                return Err(format!("contains {}, which a node name cannot", quoted(&wrong.to_string())));
            }
            literals += literal.len();
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let Some(after) = after else { break };
            let (name, behind) = after.split_once('}').ok_or("has a brace that is not closed")?;
            let Some(known) = PLACEHOLDERS.into_iter().find(|known| *known == name) else {
                let wrong = quoted(&format!("{{{name}}}"));
                let near = did_you_mean(name, PLACEHOLDERS).map_or(String::new(), |near| format!(" ({near})"));
                return Err(format!("has an unknown placeholder {wrong}{near}"));
            };
            parts.push(Part::Placeholder(known));
            rest = behind;
        }
        if text.is_empty() {
            Err("is empty".into())
        } else if text.starts_with('-') || text.ends_with('-') {
            Err("begins or ends with \"-\", which a node name cannot".into())
        } else if literals > LONGEST_NAME {
            Err(format!("has {literals} characters beside its placeholders, where a node name has {LONGEST_NAME} at most"))
        } else {
            Ok(Self { text: text.to_owned(), parts })
        }
    }
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_from_what_is_known() {
        let template: Result<NameTemplate, String> = "my-gpu-{instance-id}".parse();
        let known = |name: &str| (name == "instance-id").then(|| format!("<{name}>"));
        assert_eq!(template.map(|it| it.fill(known)), Ok(Ok("my-gpu-<instance-id>".to_owned())));
        let template: Result<NameTemplate, String> = "{machine-id-short}".parse();
        assert_eq!(template.map(|it| it.fill(known)), Ok(Err("machine-id-short")));
    }

    #[test]
    fn a_template_that_cannot_become_a_name_is_refused() {
        for (text, why) in [
            ("GPU-{hostname}", "contains \"G\""),
            ("{serial}", "unknown placeholder \"{serial}\""),
            ("{instance_id}", "unknown placeholder \"{instance_id}\" (did you mean \"instance-id\"?)"),
            ("{gpu-modle}", "did you mean \"gpu-model\"?"),
            ("a-{hostname", "not closed"),
            ("a}", "contains \"}\""),
            ("", "is empty"),
            ("-a", "begins or ends"),
            ("gpu-1.example.com", "contains \".\""),
            ("{zone}.{instance-id}", "contains \".\""),
            (&format!("{}{{instance-id}}", "a".repeat(64)), "has 64 characters beside its placeholders"),
        ] {
            let error = text.parse::<NameTemplate>().err().unwrap_or_default();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(format!("{}{{instance-id}}", "a".repeat(63)).parse::<NameTemplate>().is_ok());
    }
}
