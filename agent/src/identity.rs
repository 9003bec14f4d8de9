//! Two nodes of one name break a cluster, so the name comes from what the platform keeps unique: the instance id.

use crate::config::Config;
use crate::facts::Facts;
use crate::step::Finding;

/// The longest label in a DNS name (RFC 1123), and with that the longest safe node name.
const LONGEST: usize = 63;

/// The node's name: the configured template over the facts, in lower case, RFC 1123, at most 63 characters.
pub fn node_name(config: &Config, facts: &Facts) -> Result<String, Finding> {
    let template = &config.node.name;
    let name = template.fill(|placeholder| value_of(placeholder, facts)).map_err(|placeholder| {
        Finding::new(
            "no-identity",
            "The node has no name yet",
            format!("node.name is \"{template}\", and nothing on this machine says what {{{placeholder}}} is"),
            "give the node a name of its own: in /etc/gpuk/agent.toml, [node] name = \"...\"",
        )
    })?;
    Ok(shorten(&tidy(&name)))
}

fn value_of(placeholder: &str, facts: &Facts) -> Option<String> {
    let value = match placeholder {
        "instance-id" => facts.instance.as_ref()?.id.clone(),
        "machine-id-short" => facts.machine_id.chars().take(8).collect(),
        _ => return None,
    };
    (!value.is_empty()).then_some(value)
}

/// Lower case, every run of other characters one hyphen, none at the ends.
fn tidy(name: &str) -> String {
    let mut tidy = String::new();
    for character in name.chars().flat_map(char::to_lowercase) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            tidy.push(character);
        } else if !tidy.is_empty() && !tidy.ends_with('-') {
            tidy.push('-');
        }
    }
    tidy.trim_end_matches('-').to_owned()
}

/// A name that is too long keeps its beginning and ends in eight characters of its digest, so that it stays unique.
fn shorten(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let end: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{end}", name[..LONGEST - 9].trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::facts::Instance;

    fn named(template: &str, id: &str) -> Result<String, Finding> {
        let name = Source::flags(vec![("node.name".to_owned(), template.to_owned())]);
        let config = crate::config::load(vec![name]).unwrap().config;
        let instance = (!id.is_empty()).then(|| Instance { cloud: "nocloud", id: id.to_owned(), ..Instance::default() });
        node_name(&config, &Facts { instance, ..Facts::default() })
    }

    #[test]
    fn the_name_is_a_dns_label() {
        assert_eq!(named("{instance-id}", "I-0ABC.def_1").unwrap(), "i-0abc-def-1");
        assert_eq!(named("gpu-{instance-id}", "i-1").unwrap(), "gpu-i-1");
    }

    #[test]
    fn a_long_name_is_cut_and_stays_unique() {
        let (one, two) = (named("{instance-id}", &"a".repeat(80)).unwrap(), named("{instance-id}", &"a".repeat(81)).unwrap());
        assert_eq!(one.len(), 63);
        assert_ne!(one, two);
        assert_eq!(one, named("{instance-id}", &"a".repeat(80)).unwrap());
    }

    #[test]
    fn without_an_instance_the_finding_names_the_placeholder_and_the_key() {
        let finding = named("{instance-id}", "").unwrap_err();
        assert!(finding.why.contains("{instance-id}") && finding.remedy.contains("[node] name"), "{finding:?}");
    }
}
