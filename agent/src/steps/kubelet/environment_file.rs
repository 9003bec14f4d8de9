//! systemd reads a value of an `EnvironmentFile` much as a shell does, and drops its quotes and backslashes (systemd.exec(5)).

/// What systemd makes of a value as it stands behind `NAME=` on its line.
pub fn unquoted(value: &str) -> String {
    let mut read = String::new();
    let mut letters = value.trim().chars().peekable();
    while let Some(&letter) = letters.peek() {
        match letter {
            '"' | '\'' => {
                letters.next();
                in_quotes(letter, &mut letters, &mut read);
            }
            _ if letter.is_whitespace() => _ = letters.next(),
            // Outside quotes a value goes on to the end of its line, and quotes in it are letters like others.
            _ => {
                while let Some(letter) = letters.next() {
                    read.extend(if letter == '\\' { letters.next() } else { Some(letter) });
                }
            }
        }
    }
    read
}

/// Reads to the end of what began with this quote. Between double quotes a backslash is dropped before `"`, `\`, `` ` `` and `$` alone.
fn in_quotes(quote: char, letters: &mut impl Iterator<Item = char>, read: &mut String) {
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == quote => return,
            '\\' if quote == '"' => match letters.next() {
                Some(escaped) if is_special(escaped) => read.push(escaped),
                other => read.extend(std::iter::once('\\').chain(other)),
            },
            _ => read.push(letter),
        }
    }
}

/// The value between double quotes, so that systemd reads it back as it is.
pub fn quoted(value: &str) -> String {
    let escaped = value.chars().flat_map(|letter| is_special(letter).then_some('\\').into_iter().chain([letter]));
    format!("\"{}\"", escaped.collect::<String>())
}

fn is_special(letter: char) -> bool {
    matches!(letter, '"' | '\\' | '`' | '$')
}

#[cfg(test)]
mod tests {
    use super::{quoted, unquoted};

    #[test]
    fn a_value_is_read_as_systemd_reads_it() {
        for (written, read) in [
            ("--v=4", "--v=4"),
            ("  \"--v=4 --a\"  ", "--v=4 --a"),
            ("'--a \"b c\" \\'", "--a \"b c\" \\"),
            (r#""--a \"b\" \n \$""#, r#"--a "b" \n $"#),
            (r#"--a="b c" \d"#, r#"--a="b c" d"#),
            (r#""--a" '--b'"#, "--a--b"),
            ("", ""),
            ("\"open", "open"),
        ] {
            assert_eq!(unquoted(written), read, "{written}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for value in ["", "--v=4 --a", r#"--a="b c" --d='e' \ $f `g`"#] {
            assert_eq!(unquoted(&quoted(value)), value);
        }
    }
}
