//! A check takes a text and gives it back in its one right spelling, or says what the text is instead.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::error::quoted;
use super::labels::{NAME, is_name};
use super::values::Period;

/// Answers with the right spelling, or with the end of a sentence that begins with the text: "is not …", "has …".
/// A check of a secret never repeats it.
pub type Check = fn(&str) -> Result<String, String>;

/// The check of everything that has a type of its own.
pub(super) fn typed<T: FromStr<Err = String> + Display>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|value| value.to_string())
}

/// A length of time in which something can happen.
pub(super) fn some_time(text: &str) -> Result<String, String> {
    match text.parse::<Period>()? {
        Period(Duration::ZERO) => Err("is no time at all".into()),
        period => Ok(period.to_string()),
    }
}

/// A path from the root.
pub(super) fn absolute_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        Err("is not an absolute path".into())
    } else if text.chars().any(char::is_control) || text.split('/').any(|part| part == "..") {
        Err("is a path with \"..\" or a control character in it".into())
    } else {
        Ok(text.to_owned())
    }
}

/// A SHA-256, in lower case.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(text.to_ascii_lowercase()) } else { Err("is not a SHA-256".into()) }
}

/// What encrypts the control plane's certificates: an AES-256 key (kubeadm, `init phase upload-certs`). What is said never repeats the text.
pub(super) fn certificate_key(text: &str) -> Result<String, String> {
    let digits = text.trim();
    match digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
        Some(_) => Err("is not a certificate key: it has something in it that is not a hexadecimal digit".into()),
        None if digits.len() != 64 => Err(format!("is not a certificate key: it has {} digits", digits.len())),
        None => Ok(digits.to_ascii_lowercase()),
    }
}

/// One network, or two of different families, in CIDR notation (RFC 4632, section 3.1).
pub(super) fn networks(text: &str) -> Result<String, String> {
    let one = |text: &str| {
        let (address, length) =
            text.split_once('/').ok_or_else(|| "has no \"/\" and length of the network's prefix".to_owned())?;
        let address: IpAddr = address.parse().map_err(|_| "is not an IP address, \"/\" and the length of a prefix".to_owned())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        match length.parse::<u8>() {
            Ok(length) if (8..bits).contains(&length) => Ok(address.is_ipv4()),
            _ => Err(format!("has a prefix that is not from 8 to {} bits long", bits - 1)),
        }
    };
    let families = text.split(',').map(one).collect::<Result<Vec<bool>, String>>()?;
    match families[..] {
        [_] => Ok(text.to_owned()),
        [first, second] if first != second => Ok(text.to_owned()),
        _ => Err("are not one network, or one of IPv4 and one of IPv6".into()),
    }
}

/// An address that other machines can reach the node by.
pub(super) fn node_address(text: &str) -> Result<String, String> {
    let address: IpAddr = text.parse().map_err(|_| "is not an IP address".to_owned())?;
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() || is_link_local {
        return Err("is an address that other machines cannot reach the node by".into());
    }
    Ok(address.to_string())
}

/// What may be the value of a label may be a cluster's name.
pub(super) fn cluster_name(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("is not {NAME}")) }
}

/// An image reference.
pub(super) fn image(text: &str) -> Result<String, String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins_well && text.bytes().all(is_letter) { Ok(text.to_owned()) } else { Err("is not an image reference".into()) }
}

/// One argument of the kubelet.
pub(super) fn kubelet_argument(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("--").unwrap_or_default();
    if !name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        Err("does not begin with \"--\" and a name".into())
    } else if text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        Err("contains white space, and the unit of the kubelet would take it apart there".into())
    } else if !is_plain_word(text) {
        Err("contains a quote, a backslash or a dollar, and systemd would not hand it to the kubelet as it is".into())
    } else {
        Ok(text.to_owned())
    }
}

/// Whether systemd hands it on as one argument, as it is: it takes a line apart at white space and reads quotes, backslashes and dollars
/// (systemd.service(5), systemd.exec(5)).
pub(super) fn is_plain_word(text: &str) -> bool {
    !text.chars().any(|letter| letter.is_whitespace() || letter.is_control() || r#""'\$`"#.contains(letter))
}

/// The word of a list that someone may have meant, forgiving case and `_` for `-`.
pub(super) fn nearest<'word>(word: &str, known: impl IntoIterator<Item = &'word str>) -> Option<&'word str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    // A word far longer than any of ours cannot be near one, and the distance costs its length.
    let written = plain(&word.chars().take(100).collect::<String>());
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&written, &plain(known)), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// "did you mean …?" where something is near.
pub(super) fn did_you_mean<'word>(word: &str, known: impl IntoIterator<Item = &'word str>) -> Option<String> {
    nearest(word, known).map(|known| format!("did you mean {}?", quoted(known)))
}

#[cfg(test)]
mod tests {
    use super::{certificate_key, kubelet_argument, networks};

    #[test]
    fn a_certificate_key_is_64_digits_and_never_repeated() {
        let key = "0123456789abcdef".repeat(4);
        assert_eq!(certificate_key(&format!("{}\n", key.to_uppercase())), Ok(key.clone()));
        for wrong in [&key[1..], "", &key.replace('f', "g")] {
            let error = certificate_key(wrong).unwrap_err();
            assert!(!error.contains("0123") && error.contains("certificate key"), "{error}");
        }
    }

    #[test]
    fn a_cluster_has_one_network_of_a_family() {
        for right in ["10.244.0.0/16", "fd00::/48", "10.244.0.0/16,fd00::/48"] {
            assert_eq!(networks(right), Ok(right.to_owned()));
        }
        for wrong in ["10.244.0.0", "10.244/16", "10.0.0.0/32", "10.0.0.0/0", "10.0.0.0/16,10.1.0.0/16", "", "a/b"] {
            assert!(networks(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_argument_of_the_kubelet_reaches_it_as_it_is() {
        assert_eq!(kubelet_argument("--a=b,c:d/e_(f)"), Ok("--a=b,c:d/e_(f)".to_owned()));
        for text in [r#"--a="b""#, "--a='b'", r"--a=b\c", "--a=$b", "--a=`b`"] {
            let error = kubelet_argument(text).unwrap_err();
            assert!(error.contains("systemd"), "{text}: {error}");
        }
        assert!(kubelet_argument("--a b").unwrap_err().contains("white space"));
    }
}
