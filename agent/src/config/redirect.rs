//! A redirect is a port that people know, and the port behind which something answers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::values::written_as_text;

/// One redirect. As text: `80:32245`, or in words with all that may be said: `443:32479 protocols=tcp+udp families=ipv4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The port that people know.
    pub port: u16,
    /// The port behind which something answers.
    pub to: u16,
    /// TCP where nothing is said. Never empty.
    pub protocols: Vec<Protocol>,
    /// Both where nothing is said. Never empty.
    pub families: Vec<Family>,
}

/// The names that a redirect may be described with.
pub const FIELDS: &[&str] = &["port", "to", "protocols", "families"];

/// An enumeration whose variants are written as words.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_about])* $variant),+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it is written, in the configuration and by nft(8).
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            fn from_word(word: &str) -> Result<Self, String> {
                let known = || Self::ALL.iter().map(|known| known.word()).collect::<Vec<_>>().join(", ");
                Self::ALL.iter().copied().find(|known| known.word() == word).ok_or_else(|| format!("says {word:?}, which is none of {}", known()))
            }
        }
    };
}

words! {
    /// A protocol with ports.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP, as HTTP/3 needs it.
        Udp = "udp",
    }
}

words! {
    /// A family of addresses.
    Family {
        /// IPv4.
        Ipv4 = "ipv4",
        /// IPv6.
        Ipv6 = "ipv6",
    }
}

written_as_text!(Redirect, Mark);

impl Redirect {
    /// From one port to another, over TCP, in both families.
    pub fn new(port: u16, to: u16) -> Self {
        Self { port, to, protocols: vec![Protocol::Tcp], families: Family::ALL.to_vec() }
    }

    /// Whether connections to such an address are redirected.
    pub fn is_about(&self, address: IpAddr) -> bool {
        self.families.contains(if address.is_ipv4() { &Family::Ipv4 } else { &Family::Ipv6 })
    }

    /// Whether some packet is meant by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.protocols.iter().any(|protocol| other.protocols.contains(protocol))
            && self.families.iter().any(|family| other.families.contains(family))
    }
}

/// The ports of the web, and the node ports of the ingress in the clusters this is made for.
const INGRESS: [(u16, u16); 2] = [(80, 32245), (443, 32479)];

/// The rules, and those of the ingress where it is asked for and no rule is about its port.
pub fn all(rules: &[Redirect], ingress: bool) -> Vec<Redirect> {
    let ingress = INGRESS.iter().filter(|(port, _)| ingress && rules.iter().all(|rule| rule.port != *port));
    rules.iter().cloned().chain(ingress.map(|(port, to)| Redirect::new(*port, *to))).collect()
}

/// Why these redirects cannot all hold, if so.
pub fn contradiction(redirects: &[Redirect]) -> Option<String> {
    redirects.iter().enumerate().find_map(|(number, one)| {
        redirects[..number].iter().filter(|other| one.overlaps(other)).find_map(|other| {
            if one.port == other.port {
                Some(format!("port {} is redirected twice, to {} and to {}", one.port, other.to, one.to))
            } else if one.to == other.to {
                // The way back begins at the target port, and nothing there tells which port it was.
                Some(format!("ports {} and {} are both redirected to {}", other.port, one.port, one.to))
            } else {
                None
            }
        })
    })
}

impl fmt::Display for Redirect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::new(self.port, self.to);
        write!(formatter, "{}:{}", self.port, self.to)?;
        if self.protocols != usual.protocols {
            write!(formatter, " protocols={}", joined(self.protocols.iter().map(|protocol| protocol.word())))?;
        }
        if self.families != usual.families {
            write!(formatter, " families={}", joined(self.families.iter().map(|family| family.word())))?;
        }
        Ok(())
    }
}

fn joined<'word>(words: impl Iterator<Item = &'word str>) -> String {
    words.collect::<Vec<_>>().join("+")
}

impl FromStr for Redirect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut ports, mut redirect) = ((None, None), Self::new(0, 0));
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("port", value)) => ports.0 = Some(port(value)?),
                Some(("to", value)) => ports.1 = Some(port(value)?),
                Some(("protocols", value)) => redirect.protocols = several(value, Protocol::from_word)?,
                Some(("families", value)) => redirect.families = several(value, Family::from_word)?,
                Some((name, _)) => return Err(format!("says {name:?}, which is none of {}", FIELDS.join(", "))),
                None => {
                    let (from, to) = word.split_once(':').ok_or("has no colon between its two ports")?;
                    ports = (Some(port(from)?), Some(port(to)?));
                }
            }
        }
        redirect.port = ports.0.ok_or("does not say which port is redirected")?;
        redirect.to = ports.1.ok_or("does not say which port it is redirected to")?;
        if redirect.port == redirect.to {
            return Err("redirects a port to itself".into());
        }
        Ok(redirect)
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(format!("has the port {text:?}, which is no number from 1 to 65535")),
    }
}

fn several<T: Ord>(text: &str, one: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let mut all = text.split('+').map(one).collect::<Result<Vec<T>, String>>()?;
    all.sort();
    all.dedup();
    Ok(all)
}

/// One bit of a packet's mark (`SO_MARK`), which all who mark packets on a node share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u32);

/// Bits that others use unless told otherwise.
const TAKEN: &[(u32, &str)] = &[
    (0x2000, "the CNI plugin portmap, for masquerading"),
    (0x4000, "kube-proxy, for masquerading"),
    (0x8000, "kube-proxy, for dropping"),
    (0xffff_0000, "Calico (felix, IptablesMarkMask)"),
];

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").ok_or("does not begin with 0x")?;
        let bits = u32::from_str_radix(digits, 16).map_err(|_| "is no hexadecimal number of 32 bits")?;
        if !bits.is_power_of_two() {
            return Err(format!("has {} bits, and must be one", bits.count_ones()));
        }
        match TAKEN.iter().find(|(taken, _)| taken & bits != 0) {
            Some((_, whose)) => Err(format!("belongs to {whose}")),
            None => Ok(Self(bits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        text.parse::<Redirect>().map_or_else(|why| why, |redirect| redirect.to_string())
    }

    #[test]
    fn a_redirect_has_one_right_spelling() {
        for (text, spelling) in [
            ("80:32245", "80:32245"),
            ("to=32245 port=80", "80:32245"),
            ("port=80 to=32245 protocols=tcp families=ipv6+ipv4", "80:32245"),
            ("443:32479 protocols=udp+tcp+udp", "443:32479 protocols=tcp+udp"),
            ("443:32479 families=ipv6 protocols=udp", "443:32479 protocols=udp families=ipv6"),
        ] {
            assert_eq!(read(text), spelling, "{text}");
            assert_eq!(read(spelling), spelling);
        }
    }

    #[test]
    fn what_is_no_redirect_says_why() {
        for (text, why) in [
            ("", "does not say which port is redirected"),
            ("80", "has no colon"),
            ("port=80", "does not say which port it is redirected to"),
            ("80:80", "to itself"),
            ("0:80", "\"0\", which is no number from 1"),
            ("80:70000", "\"70000\""),
            ("+80:81", "\"+80\""),
            ("80:81 protocols=sctp", "\"sctp\", which is none of tcp, udp"),
            ("80:81 protocols=", "\"\", which is none of"),
            ("80:81 kind=node-port", "\"kind\", which is none of port, to"),
            ("80:81 family=ipv4", "\"family\", which is none of port, to"),
        ] {
            assert!(read(text).contains(why), "{text}: {}", read(text));
        }
    }

    #[test]
    fn redirects_must_not_meet() {
        let check = |texts: &[&str]| contradiction(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(check(&["80:32245", "443:32479", "80:32245 protocols=udp"]), None);
        assert_eq!(check(&["80:32245 families=ipv4", "80:32246 families=ipv6"]), None);
        assert_eq!(check(&["80:81", "81:82"]), None, "one after the other is not one behind the other");
        assert_eq!(check(&["80:1", "80:2"]).as_deref(), Some("port 80 is redirected twice, to 1 and to 2"));
        assert_eq!(check(&["80:1", "8080:1"]).as_deref(), Some("ports 80 and 8080 are both redirected to 1"));
    }

    #[test]
    fn a_mark_is_one_bit_that_nobody_else_has() {
        let read = |text: &str| text.parse::<Mark>().map_or_else(|why| why, |mark| mark.to_string());
        assert_eq!((read("0x1000"), read("0x80")), ("0x1000".to_owned(), "0x80".to_owned()));
        for (text, why) in [
            ("4096", "0x"),
            ("0x0", "0 bits"),
            ("0x3", "2 bits"),
            ("0x4000", "kube-proxy"),
            ("0x10000000", "Calico"),
            ("0x2000", "portmap"),
            ("0x1ffffffff", "32 bits"),
        ] {
            assert!(read(text).contains(why), "{text}: {}", read(text));
        }
    }
}
