//! A Go program carries its module path and flags in its `.go.buildinfo` section, so its generation can be read instead of asked.
//!
//! Debian's builds carry the module path only (no version): then dpkg's status has the version.
//! A cold start of a 50 MB program can take seconds (amazon-eks-ami#1751); four short reads do not.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::files::SeekableFile;
use crate::host::units::UNIT_DIRECTORIES;
use crate::look::Look;

/// Which containerd is installed, as far as its configuration is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// 1 or 2.
    pub major: u32,
    /// `None` when only the module path was found.
    pub minor: Option<u32>,
    /// The whole version and where it was read, for people.
    pub evidence: String,
}

impl Generation {
    fn at_least(&self, major: u32, minor: u32) -> bool {
        // An unknown minor version is taken for the newest of its line.
        self.major > major || (self.major == major && self.minor.is_none_or(|own| own >= minor))
    }

    /// Plugin sections of an imported file are merged into those of earlier files; before 2.0 they replace them whole.
    pub fn merges_sections(&self) -> bool {
        self.major >= 2
    }

    /// Each file is brought to the newest version before it is merged (2.3); before that the merged whole is.
    pub fn migrates_each_file(&self) -> bool {
        self.at_least(2, 3)
    }

    /// `cni.bin_dirs` exists (2.1).
    pub fn has_bin_dirs(&self) -> bool {
        self.at_least(2, 1)
    }

    /// `cni.bin_dir` still exists in the runtime section of version 3 files (2.0 to 2.2).
    pub fn has_bin_dir(&self) -> bool {
        !self.at_least(2, 3)
    }

    /// `enable_cdi` exists and is off unless set (1.7).
    pub fn needs_enable_cdi(&self) -> bool {
        self.major == 1 && self.at_least(1, 7)
    }

    /// Relative patterns in `imports` are relative to the file that imports (1.7); before that to the working directory.
    pub fn resolves_relative_patterns(&self) -> bool {
        self.at_least(1, 7)
    }

    /// The version that a new configuration file is given: the newest that the whole line of releases reads.
    pub fn file_version(&self) -> i64 {
        if self.major >= 2 { 3 } else { 2 }
    }
}

/// What starts containerd on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The program.
    pub binary: PathBuf,
    /// `--config` of the unit's command line.
    pub config_file: Option<PathBuf>,
}

const BINARIES: [&str; 4] =
    ["/usr/local/bin/containerd", "/usr/bin/containerd", "/usr/local/sbin/containerd", "/usr/sbin/containerd"];

/// The program that the unit starts, or the one that a shell would find; `None` when there is none.
pub fn service(look: Look<'_>) -> Result<Option<Service>> {
    let mut words = Vec::new();
    for directory in UNIT_DIRECTORIES {
        if let Some(text) = look.text(Path::new(directory).join("containerd.service"))? {
            words = exec_start(&text, words);
            break;
        }
    }
    for directory in UNIT_DIRECTORIES.iter().rev() {
        let drop_ins = Path::new(directory).join("containerd.service.d");
        for name in look.list(&drop_ins)?.iter().filter(|name| name.ends_with(".conf")) {
            words = exec_start(&look.text(drop_ins.join(name))?.unwrap_or_default(), words);
        }
    }
    let config_file = config_argument(&words).map(PathBuf::from);
    let named = words.first().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for binary in named.into_iter().chain(BINARIES.map(PathBuf::from)) {
        if look.exists(&binary)? {
            return Ok(Some(Service { binary, config_file }));
        }
    }
    Ok(None)
}

/// The words of the last `ExecStart=` of a unit file, or those that were valid before it (systemd.service(5)).
fn exec_start(text: &str, mut words: Vec<String>) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    for value in joined.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")) {
        let command = value.trim().trim_start_matches(['@', '-', ':', '+', '!']);
        words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    }
    words
}

fn config_argument(words: &[String]) -> Option<&str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(("--config" | "-config" | "-c", path)) => return Some(path),
            None if ["--config", "-config", "-c"].contains(&word.as_str()) => return words.next().map(String::as_str),
            _ => {}
        }
    }
    None
}

/// Which generation `binary` is; `None` when neither the program nor dpkg says.
pub fn read(look: Look<'_>, binary: &Path) -> Result<Option<Generation>> {
    let build = match look.open(binary)? {
        Some(file) => build_information(file).unwrap_or_default(),
        None => return Ok(None),
    };
    let major = major_of(&build);
    if let Some((major, version)) = major.zip(version_of(&build)) {
        let minor = numbers(&version).map(|(_, minor)| minor);
        return Ok(Some(Generation { major, minor, evidence: format!("{version}, read from {}", binary.display()) }));
    }
    if let Some((package, version)) = packaged(look, binary)?
        && let Some((packaged_major, minor)) = numbers(&version)
        && major.is_none_or(|major| major == packaged_major)
    {
        let evidence = format!("{version}, package {package}");
        return Ok(Some(Generation { major: packaged_major, minor: Some(minor), evidence }));
    }
    Ok(major.map(|major| Generation { major, minor: None, evidence: format!("{major}.x, read from {}", binary.display()) }))
}

const MODULE: &str = "github.com/containerd/containerd";

/// The major version from the path of the main package.
fn major_of(build: &str) -> Option<u32> {
    let path = build.lines().find_map(|line| line.strip_prefix("path\t"))?;
    match path.strip_prefix(MODULE)? {
        "/cmd/containerd" => Some(1),
        "/v2/cmd/containerd" => Some(2),
        _ => None,
    }
}

/// The version that the linker was told to set, or the version of the module.
fn version_of(build: &str) -> Option<String> {
    let linked = build.lines().filter_map(|line| line.strip_prefix("build\t-ldflags=")).find_map(|flags| {
        let (_, rest) = flags.split_once("version.Version=")?;
        rest.split(|character: char| character.is_whitespace() || "\"'\\".contains(character)).next()
    });
    let module = || {
        build.lines().find_map(|line| {
            let mut fields = line.split('\t');
            let kind = fields.next()?;
            let path = fields.next()?;
            (["mod", "dep"].contains(&kind) && [MODULE, "github.com/containerd/containerd/v2"].contains(&path))
                .then(|| fields.next())
                .flatten()
        })
    };
    let version = linked.filter(|version| numbers(version).is_some()).or_else(module)?;
    numbers(version).map(|_| version.to_owned())
}

/// Major and minor of `v2.4.2`, `1.6.20~ds1-1+deb12u1`, `2:1.7.24-1`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let plain = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut parts = plain.trim_start_matches('v').split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, minor))
}

/// The installed package that owns the binary, and its version.
fn packaged(look: Look<'_>, binary: &Path) -> Result<Option<(String, String)>> {
    let Some(status) = look.read("/var/lib/dpkg/status")? else { return Ok(None) };
    let status = String::from_utf8_lossy(&status);
    for stanza in status.split("\n\n").filter(|stanza| stanza.trim_start().starts_with("Package: containerd")) {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
        let (Some(package), Some(version)) = (field("Package:"), field("Version:")) else { continue };
        let installed = field("Status:").is_some_and(|words| words.ends_with(" installed"));
        let list = look.text(format!("/var/lib/dpkg/info/{package}.list"))?.unwrap_or_default();
        if installed && list.lines().any(|line| Path::new(line) == binary) {
            return Ok(Some((package.to_owned(), version.to_owned())));
        }
    }
    Ok(None)
}

/// The text that Go's linker left in the program (debug/buildinfo), or `None` when it is no such program.
fn build_information(mut file: SeekableFile) -> Option<String> {
    let mut read_at = |offset: u64, length: usize| -> Option<Vec<u8>> {
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let header = read_at(0, 64)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (long(&header, 0x28)?, short(&header, 0x3a)?, short(&header, 0x3c)?);
    if size < 64 {
        return None;
    }
    let sections = read_at(table, size * count)?;
    let section = |index: usize| -> Option<(usize, u64, usize)> {
        let entry = sections.get(index * size..(index + 1) * size)?;
        Some((word(entry, 0)?, long(entry, 0x18)?, usize::try_from(long(entry, 0x20)?).ok()?))
    };
    let (_, names_offset, names_length) = section(short(&header, 0x3e)?)?;
    let names = read_at(names_offset, names_length.min(1 << 16))?;
    let (_, offset, length) = (0..count)
        .filter_map(section)
        .find(|(name, _, _)| names.get(*name..).is_some_and(|rest| rest.starts_with(b".go.buildinfo\0")))?;
    let bytes = read_at(offset, length.min(1 << 18))?;
    // Since Go 1.18 (flag 2) two strings follow the 32 bytes of header: Go's version, then the build information.
    if !bytes.starts_with(b"\xff Go buildinf:") || bytes.get(15)? & 2 == 0 {
        return None;
    }
    let (_, rest) = counted(bytes.get(32..)?)?;
    let (information, _) = counted(rest)?;
    // Sixteen bytes before and after it let debuggers find it in memory.
    let text = information.get(16..information.len().checked_sub(16)?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// A byte string after its length (an unsigned LEB128), and what follows it.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..)?.split_at_checked(length);
        }
    }
    None
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
