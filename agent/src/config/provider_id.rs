//! A cloud's controller finds the machine of a Node by `spec.providerID`, which can be set once and never changed.

use std::fmt;
use std::str::FromStr;

use super::checks::is_plain_word;
use super::values::written_as_text;

/// What the Node's `spec.providerID` is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderId {
    /// Left to others, written `none`.
    None,
    /// `CLOUD://…`, as the cloud's controller writes it.
    Is(String),
}

written_as_text!(ProviderId);

impl fmt::Display for ProviderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Is(id) => id,
        })
    }
}

impl FromStr for ProviderId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        match text.split_once("://") {
            Some((cloud, rest)) if !cloud.is_empty() && !rest.is_empty() && is_plain_word(text) => Ok(Self::Is(text.to_owned())),
            _ => Err("is not a provider id".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProviderId;

    #[test]
    fn provider_ids_print_as_they_are_read() {
        for text in ["none", "aws:///eu-west-1a/i-0abc", "azure:///subscriptions/a/resourceGroups/b_(c)/d", "linode://1"] {
            assert_eq!(text.parse::<ProviderId>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "i-1", "aws://", "://x", "aws:///a b", "aws:///\"", "aws:///$HOME", "aws:///a\\"] {
            assert!(text.parse::<ProviderId>().is_err(), "{text}");
        }
    }
}
