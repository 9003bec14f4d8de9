//! NVIDIA maintains its driver in branches of three digits; Ubuntu packages each twice, once as a server line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Enabled;
use super::error::ConfigError;
use super::place::Place;
use super::values::{split_port, written_as_text};
use crate::facts::loaded_module;

written_as_text!(Branch, Repository);

/// `[gpu.driver]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Driver {
    /// Whether it is installed.
    pub install: Enabled,
    /// Which one.
    pub branch: Branch,
    /// Which kernel modules.
    pub flavour: Flavour,
    /// How they come to be.
    pub kernel_modules: KernelModules,
    /// Where its packages come from; `None` is the distribution.
    pub repository: Option<Repository>,
    /// The file of the repository's key. Given where `repository` is.
    pub repository_key: Option<PathBuf>,
    /// NVIDIA's `.run` file, in place of packages. Never given together with `repository`.
    pub run_file: Option<PathBuf>,
    /// Its SHA-256. Given where `run_file` is.
    pub run_file_sha256: Option<String>,
}

/// Which kernel modules. NVIDIA publishes two flavours from branch 515 on ("Kernel Modules", NVIDIA Driver Installation Guide).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// What suits every GPU.
    Auto,
    /// Those with published source.
    Open,
    /// Those without.
    Proprietary,
}

impl Flavour {
    /// The one that is asked for; `None` where it is left to the GPUs.
    pub fn named(self) -> Option<loaded_module::Flavour> {
        match self {
            Self::Auto => None,
            Self::Open => Some(loaded_module::Flavour::Open),
            Self::Proprietary => Some(loaded_module::Flavour::Proprietary),
        }
    }
}

impl From<loaded_module::Flavour> for Flavour {
    fn from(flavour: loaded_module::Flavour) -> Self {
        match flavour {
            loaded_module::Flavour::Open => Self::Open,
            loaded_module::Flavour::Proprietary => Self::Proprietary,
        }
    }
}

/// How kernel modules come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelModules {
    /// What there is, precompiled ones first.
    Auto,
    /// Built and signed by the distribution.
    Precompiled,
    /// Built here, for each kernel.
    Dkms,
}

/// A branch of the driver, or one version of it: `auto`, `535`, `550-server`, `535.261.03`, `535.261.03-server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The number of the branch; `None` where nothing is asked for.
    pub number: Option<u16>,
    /// The whole version, where one is asked for.
    pub version: Option<String>,
    /// Ubuntu's server line.
    pub server: bool,
}

impl fmt::Display for Branch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = if self.server { "-server" } else { "" };
        match (&self.version, self.number) {
            (Some(version), _) => write!(formatter, "{version}{server}"),
            (None, Some(number)) => write!(formatter, "{number}{server}"),
            (None, None) => formatter.write_str("auto"),
        }
    }
}

impl FromStr for Branch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self { number: None, version: None, server: false });
        }
        let (version, server) = text.strip_suffix("-server").map_or((text, false), |version| (version, true));
        let parts: Vec<&str> = version.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = parts.first().filter(|first| first.len() == 3).and_then(|first| first.parse().ok());
        let Some(number) = number.filter(|number| *number >= 300 && parts.len() <= 3 && parts.iter().all(is_number)) else {
            return Err("is neither a branch nor a version of NVIDIA's driver".into());
        };
        Ok(Self { number: Some(number), version: (parts.len() > 1).then(|| version.to_owned()), server })
    }
}

/// A package repository: its address, and for apt a suite and components. A suite that ends with `/` stands alone (sources.list(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its address.
    pub url: String,
    /// The suite; `/` where none was given.
    pub suite: String,
    /// The components.
    pub components: Vec<String>,
}

impl Repository {
    /// NVIDIA's own network repository, or a mirror of it that kept the path ("Network Repository", NVIDIA Driver Installation Guide).
    pub fn is_nvidias(&self) -> bool {
        self.url.contains("/compute/cuda/repos/")
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.url)?;
        if self.suite != "/" || !self.components.is_empty() {
            write!(formatter, " {}", self.suite)?;
        }
        self.components.iter().try_for_each(|component| write!(formatter, " {component}"))
    }
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let url = words.next().unwrap_or_default().to_owned();
        match url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) {
            Some(rest) => drop(split_port(rest.split('/').next().unwrap_or_default())?),
            None if url.starts_with("file:/") => {}
            None => return Err("does not begin with the address of a repository".into()),
        }
        let suite = words.next().unwrap_or("/").to_owned();
        let components: Vec<String> = words.map(str::to_owned).collect();
        let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/+~".contains(&byte));
        if !is_word(&suite) || !components.iter().all(|component| is_word(component)) {
            return Err("has a suite or a component that apt would not take".into());
        }
        if suite.ends_with('/') != components.is_empty() {
            return Err("needs components behind its suite, or a suite that ends with /, and then none".into());
        }
        Ok(Self { url, suite, components })
    }
}

/// The error that one key of a section is given and the other, which it needs, is not.
pub(super) fn given_without<'a>(
    section: &str,
    given: &str,
    other: &str,
    hint: &str,
    said: &dyn Fn(&str) -> Option<(&'a str, &'a Place)>,
) -> Option<ConfigError> {
    let [given, other] = [given, other].map(|name| format!("{section}.{name}"));
    let (_, place) = said(&given)?;
    said(&other).is_none().then(|| ConfigError::new(place, format!("this is given without {other}")).about(given).hint(hint))
}

/// What the keys of the section say that cannot hold together; `said` gives a key's text and place.
pub(super) fn contradictions<'a>(said: &dyn Fn(&str) -> Option<(&'a str, &'a Place)>) -> Vec<ConfigError> {
    let key = |name: &str| format!("gpu.driver.{name}");
    let of = |name: &str| said(&key(name));
    let missing = |given: &str, other: &str, hint: &str| given_without("gpu.driver", given, other, hint, said);
    let mut found: Vec<ConfigError> = [
        missing("repository", "repository-key", "give the file of the key that signs it: packages are not taken on trust"),
        missing("repository-key", "repository", "give the repository that it signs, or leave the key out"),
        missing("run-file", "run-file-sha256", "give what sha256sum prints for it"),
        missing("run-file-sha256", "run-file", "give the file, or leave the sum out"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let (Some((_, repository)), Some((_, place))) = (of("repository"), of("run-file")) {
        let message = format!("this is given at {place}, and {} at {repository}", key("repository"));
        found.push(ConfigError::new(place, message).about(key("run-file")).hint("keep one of them"));
    }
    if let (Some(("precompiled", place)), Some(_)) = (of("kernel-modules"), of("run-file")) {
        let message = "a .run file builds its modules here";
        found.push(ConfigError::new(place, message).about(key("kernel-modules")).hint("say \"auto\" or \"dkms\""));
    }
    let branch = of("branch").and_then(|(text, place)| Some((text.parse::<Branch>().ok()?, place)));
    if let (Some((branch, place)), Some((run_file, _))) = (branch, of("run-file")) {
        let asked = branch.version.clone().or_else(|| branch.number.map(|number| format!("{number}.")));
        if asked.is_some_and(|asked| !run_file.contains(&format!("-{asked}"))) {
            let message = format!("the .run file {run_file} is not of {branch}");
            found.push(ConfigError::new(place, message).about(key("branch")).hint("say \"auto\", or what the file's name says"));
        }
    }
    if let (Some(("open", place)), Some((branch, _))) = (of("flavour"), of("branch")) {
        let number = branch.parse::<Branch>().ok().and_then(|branch| branch.number);
        if number.is_some_and(|number| number < 515) {
            let message = format!("branch {branch} has no open modules");
            found.push(
                ConfigError::new(place, message).about(key("flavour")).hint("say \"auto\", or ask for branch 515 or later"),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Branch, Repository};
    use crate::config::{Source, load};

    #[test]
    fn a_branch_is_read_as_it_is_written() {
        for text in ["auto", "535", "550-server", "535.261.03", "580.82.07-server", "610.57"] {
            assert_eq!(text.parse::<Branch>().map(|branch| branch.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "53", "5350", "abc", "535-", "535.", "535.1.2.3", "535-open", "server", "-server", "120", "535.+1"] {
            assert!(text.parse::<Branch>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_repository_is_an_address_and_for_apt_a_suite() {
        for text in [
            "https://a.example/x",
            "https://a.example/x/ jammy main",
            "http://10.0.0.1:8080 ./",
            "file:/srv/packages",
            "https://developer.download.example/compute/cuda/repos/ubuntu2204/x86_64/",
        ] {
            assert_eq!(text.parse::<Repository>().map(|repository| repository.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "a.example", "ftp://a", "https://", "https://a b", "https://a [trusted=yes] x", "https://a ./ main"] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_hold_together_is_refused_with_its_place() {
        let sum = "e".repeat(64);
        let message = |text: &str| {
            let text = format!("[gpu.driver]\n{text}");
            load(vec![Source::file("agent.toml", text)]).unwrap_err().to_string()
        };
        assert_eq!(
            message("repository = \"https://a.example/x\"\n"),
            "agent.toml:2:14: gpu.driver.repository: this is given without gpu.driver.repository-key; \
             give the file of the key that signs it: packages are not taken on trust"
        );
        let run = format!("run-file = \"/a/NVIDIA-Linux-x86_64-535.261.03.run\"\nrun-file-sha256 = \"{sum}\"\n");
        assert!(message("run-file = \"/a.run\"\n").contains("sha256sum"));
        assert!(message(&format!("{run}branch = \"550\"\n")).contains("agent.toml:4:10: gpu.driver.branch: the .run file"));
        assert!(message(&format!("{run}kernel-modules = \"precompiled\"\n")).contains("builds its modules here"));
        assert!(message("branch = \"470\"\nflavour = \"open\"\n").contains("branch 470 has no open modules"));
        let repository = "repository = \"https://a.example/x\"\nrepository-key = \"/k\"\n";
        assert!(message(&format!("{run}{repository}")).contains("keep one of them"));
        assert!(load(vec![Source::file("a", format!("[gpu.driver]\n{run}branch = \"535\"\n"))]).is_ok());
    }
}
