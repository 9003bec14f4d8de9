//! A node name that every cloud controller, certificate and DNS server takes is one DNS label: RFC 1123, at most 63 characters.
//!
//! Two different texts never become one name, whatever must be changed to make a label of them: a text that is one already, but for
//! its case, stays as it is, and any other one is tidied, cut, and ends in eight characters of its own digest.

use crate::config::{LONGEST_NAME, is_dns_label};

/// How many characters of a digest stand for a text.
const SHORT: usize = 8;

/// The text as a label, or `None` when no letter and no digit is in it.
pub fn from_text(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    if is_dns_label(&text) {
        return Some(text);
    }
    let tidy = tidy(&text);
    (!tidy.is_empty()).then(|| with_digest(&tidy, &text))
}

/// `LABEL-xxxxxxxx` with the short digest of a text; the label is cut where both together would be too long.
pub fn with_digest(label: &str, text: &str) -> String {
    let cut: String = label.chars().take(LONGEST_NAME - 1 - SHORT).collect();
    format!("{}-{}", cut.trim_end_matches('-'), short_digest(text))
}

/// Eight characters of a-z and 2-7 (Base 32 of RFC 4648) from the text's SHA-256: 40 bits, always the same ones.
fn short_digest(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    // A byte holds 256 = 8 * 32 values, so every letter is as likely as every other one.
    digest.as_ref().iter().take(SHORT).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// Every run of other characters one hyphen, none at the ends.
fn tidy(text: &str) -> String {
    let mut tidy = String::new();
    for character in text.chars() {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            tidy.push(character);
        } else if !tidy.is_empty() && !tidy.ends_with('-') {
            tidy.push('-');
        }
    }
    tidy.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_as_it_is_but_for_its_case() {
        for text in ["i-0abc", "a", "7", "a--b", "4C4C4544-0034-5210-8051-CAC04F4A4E32", &"a".repeat(63)] {
            assert_eq!(from_text(text), Some(text.to_ascii_lowercase()));
        }
    }

    #[test]
    fn what_tidying_would_make_the_same_stays_different() {
        let texts = ["a-b", "a_b", "a.b", "a b", "-a-b", "a-b-", "ä-b", "a_-b"];
        let mut names: Vec<String> = texts.iter().filter_map(|text| from_text(text)).collect();
        assert!(names.iter().all(|name| is_dns_label(name)), "{names:?}");
        assert_eq!(names[1], "a-b-epjt3h76");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), texts.len(), "{names:?}");
    }

    #[test]
    fn a_long_text_is_cut_and_stays_different() {
        let (one, two) = (from_text(&"a".repeat(64)).unwrap(), from_text(&"a".repeat(65)).unwrap());
        assert!(is_dns_label(&one) && is_dns_label(&two) && one.len() == LONGEST_NAME, "{one}");
        assert_ne!(one, two);
        // Where the cut leaves a hyphen at the end, it goes.
        assert!(!from_text(&format!("{}-{}", "a".repeat(53), "b".repeat(53))).unwrap().contains("--"));
    }

    #[test]
    fn without_a_letter_or_a_digit_there_is_no_label() {
        assert_eq!((from_text(""), from_text("-._ /")), (None, None));
        assert_eq!(from_text("ß"), None);
    }
}
