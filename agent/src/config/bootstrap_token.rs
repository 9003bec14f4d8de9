//! A bootstrap token is `[a-z0-9]{6}.[a-z0-9]{16}` (Kubernetes documentation, "Authenticating with Bootstrap Tokens").

/// The characters of the id, the public half.
const ID: usize = 6;

/// The characters of the secret.
const SECRET: usize = 16;

/// The id and the secret of a token, or `None` when the text is none.
pub fn token_parts(text: &str) -> Option<(&str, &str)> {
    let is_part = |part: &str, length: usize| part.len() == length && part.bytes().all(is_token_letter);
    text.split_once('.').filter(|(id, secret)| is_part(id, ID) && is_part(secret, SECRET))
}

/// The check of a key that takes one; what it says never repeats the text.
pub(super) fn bootstrap_token(text: &str) -> Result<String, String> {
    if token_parts(text).is_some() {
        return Ok(text.to_owned());
    }
    Err(match text.split_once('.') {
        Some((id, secret)) if id.len() != ID || secret.len() != SECRET => {
            let (before, after) = (id.chars().count(), secret.chars().count());
            format!("is not a bootstrap token: it has {before} characters before its dot and {after} after it")
        }
        Some(_) => "is not a bootstrap token: it has the right length, but not only a-z and 0-9".into(),
        None => "is not a bootstrap token: it has no dot".into(),
    })
}

/// Whether one stands anywhere in the text.
pub(super) fn contains_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_letter = |byte: &&u8| is_token_letter(**byte);
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'.').any(|(dot, _)| {
        let before = bytes[..dot].iter().rev().take_while(is_letter).count();
        let after = bytes[dot + 1..].iter().take_while(is_letter).count();
        before == ID && after == SECRET
    })
}

/// The text with something else in the place of every word that has a token in it.
pub fn without_tokens(text: &str) -> String {
    let word = |word: &str| if contains_token(word) { super::secret::REDACTED.to_owned() } else { word.to_owned() };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn is_token_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_know_the_same_shape() {
        let token = "abcdef.0123456789abcdef";
        assert_eq!(token_parts(token), Some(("abcdef", "0123456789abcdef")));
        assert!(bootstrap_token(token).is_ok() && contains_token(&format!("url/{token}/x")));
        for wrong in [
            "",
            "abcdef",
            "abcdef.0123456789abcde",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcdef.x",
        ] {
            assert_eq!(token_parts(wrong), None, "{wrong}");
            assert!(bootstrap_token(wrong).is_err(), "{wrong}");
        }
        assert_eq!(without_tokens("a --token=abcdef.0123456789abcdef b"), "a (secret) b");
        assert!(contains_token("abcdef.0123456789abcdef.x") && !contains_token("abcdef.0123456789abcdefg"));
    }
}
