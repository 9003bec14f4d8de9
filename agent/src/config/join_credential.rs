//! What `kubeadm token create` prints is a bootstrap token, or with `--print-join-command` a command line that has one in it.

use super::bootstrap_token::{bootstrap_token, token_parts};
use super::secret::Secret;
use super::values::Pin;

/// A bootstrap token, and the pins that stood beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCredential {
    /// The whole token.
    pub token: Secret,
    /// `--discovery-token-ca-cert-hash`, each of them; a bare token has none.
    pub pins: Vec<Pin>,
}

/// The words with which a join command begins (kubeadm, "kubeadm join").
const COMMAND: &str = "kubeadm join";

impl JoinCredential {
    /// From a bare token or from the one line of a text that is a join command; its address is not taken. The error is the end of a
    /// sentence that begins with the text, and never repeats it.
    pub fn read(text: &str) -> Result<Self, String> {
        // kubeadm init breaks the command into lines.
        let whole = text.replace("\\\r\n", " ").replace("\\\n", " ");
        let mut commands = whole.lines().map(str::trim).filter(|line| line.starts_with(COMMAND));
        let Some(command) = commands.next() else {
            let token = bootstrap_token(text.trim())?;
            return Ok(Self { token: Secret::new(token), pins: Vec::new() });
        };
        if commands.next().is_some() {
            return Err("holds more than one join command".into());
        }
        let mut token = None;
        let mut pins = Vec::new();
        let mut words = command.split_whitespace();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            match name {
                "--token" => token = value.or_else(|| words.next()),
                "--discovery-token-ca-cert-hash" => {
                    for pin in value.or_else(|| words.next()).unwrap_or_default().split(',') {
                        pins.push(pin.parse().map_err(|_| "is a join command with a malformed --discovery-token-ca-cert-hash")?);
                    }
                }
                _ => {}
            }
        }
        match token {
            Some(token) if token_parts(token).is_some() => Ok(Self { token: Secret::new(token), pins }),
            Some(_) => Err("is a join command whose --token is not a bootstrap token".into()),
            None => Err("is a join command without --token".into()),
        }
    }
}

/// The check of a key that takes one.
pub(super) fn join_credential(text: &str) -> Result<String, String> {
    JoinCredential::read(text).map(|_| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn pin(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn a_bare_token_and_a_join_command_are_read() {
        let bare = JoinCredential::read(&format!("{TOKEN}\n")).unwrap();
        assert_eq!((bare.token.expose(), bare.pins.len()), (TOKEN, 0));
        let (a, b) = (pin('a'), pin('b'));
        for text in [
            format!("kubeadm join 10.0.0.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {a} \n"),
            format!("I1 warning\nkubeadm join 10.0.0.1:6443 --token={TOKEN} --discovery-token-ca-cert-hash={a}"),
            format!("kubeadm join [fd00::1]:6443 --token {TOKEN} \\\n\t--discovery-token-ca-cert-hash {a}\n"),
        ] {
            let read = JoinCredential::read(&text).unwrap();
            assert_eq!((read.token.expose(), read.pins), (TOKEN, vec![a.parse().unwrap()]), "{text}");
        }
        let two = format!("kubeadm join a --token {TOKEN} --discovery-token-ca-cert-hash {a},{b}");
        assert_eq!(JoinCredential::read(&two).unwrap().pins.len(), 2);
    }

    #[test]
    fn what_is_none_says_why_and_nothing_of_the_text() {
        let twice = format!("kubeadm join a --token {TOKEN}\nkubeadm join b --token {TOKEN}");
        let hash = format!("kubeadm join a --token {TOKEN} --discovery-token-ca-cert-hash sha256:zebra");
        for (text, words) in [
            ("", "no dot"),
            ("zebra", "no dot"),
            ("kubeadm join zebra:6443", "without --token"),
            ("kubeadm join a --token", "without --token"),
            ("kubeadm join a --token zebra", "whose --token"),
            (&twice, "more than one"),
            (&hash, "malformed"),
        ] {
            let error = JoinCredential::read(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("zebra") && !error.contains("0123456789"), "{text}: {error}");
        }
    }
}
