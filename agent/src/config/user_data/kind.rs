//! A part says what it is by its type or by its first line; these are the words of cloud-init (`INCLUSION_TYPES_MAP` of its
//! `handlers`, `DECOMP_TYPES` of its `user_data`) and two of the agent's own.

/// Types whose content says better what it is: cloud-init looks at its first line.
const TOLD_BY_CONTENT: [&str; 11] = [
    "text/plain",
    "text/x-not-multipart",
    "text/x-shellscript",
    "application/gzip",
    "application/gzip-compressed",
    "application/gzipped",
    "application/x-compress",
    "application/x-compressed",
    "application/x-gunzip",
    "application/x-gzip",
    "application/x-gzip-compressed",
];

/// First lines, each before those that it begins with.
const BEGINNINGS: [(&str, Kind); 8] = [
    ("## template: jinja", Kind::Template),
    ("#cloud-config-archive", Kind::Archive),
    ("#cloud-config-jsonp", Kind::Foreign),
    ("#cloud-config", Kind::CloudConfig),
    ("#include", Kind::Include),
    ("#!", Kind::Foreign),
    ("#part-handler", Kind::Foreign),
    ("#cloud-boothook", Kind::Foreign),
];

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// YAML in which `gpuk:` may be.
    CloudConfig,
    /// TOML for the agent alone.
    Toml,
    /// Jinja around one of the others.
    Template,
    /// A YAML list of parts.
    Archive,
    /// Addresses of more user-data.
    Include,
    /// Everything that is not the agent's: scripts, handlers, patches, pictures.
    Foreign,
}

impl Kind {
    /// What a text is that was declared as `content_type` (lower case).
    pub fn of(content_type: &str, text: &str) -> Self {
        let text = text.trim_start();
        if content_type.starts_with("text/") && text.lines().next().is_some_and(|line| line.trim_end() == "#gpuk-agent") {
            return Kind::Toml;
        }
        match content_type {
            _ if TOLD_BY_CONTENT.contains(&content_type) => Self::by_beginning(text).unwrap_or(Kind::Foreign),
            "text/cloud-config" => Kind::CloudConfig,
            "text/x-gpuk-toml" => Kind::Toml,
            "text/jinja2" => Kind::Template,
            "text/cloud-config-archive" => Kind::Archive,
            "text/x-include-url" | "text/x-include-once-url" => Kind::Include,
            _ => Kind::Foreign,
        }
    }

    /// What a text is by its first line, where that says anything.
    pub fn by_beginning(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let begins = |beginning: &str| text.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning));
        BEGINNINGS.iter().find(|(beginning, _)| begins(beginning)).map(|(_, kind)| *kind)
    }
}

/// Whether a part of this type (lower case) can be the agent's once it is unpacked.
pub fn may_be_ours(content_type: &str) -> bool {
    content_type.starts_with("text/") || TOLD_BY_CONTENT.contains(&content_type)
}
