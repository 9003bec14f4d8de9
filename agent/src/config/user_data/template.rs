//! cloud-init fills in `## template: jinja` before it reads a cloud-config; the agent reads its part only where there is
//! nothing to fill in.

use super::super::yaml_text::{OUR_KEY, names_our_key};
use super::Problem;

/// What begins a statement or a comment of Jinja; either can leave out what follows it.
const CAN_LEAVE_OUT: [&str; 2] = ["{%", "{#"];

/// What begins anything of Jinja.
const EXPRESSIONS: [&str; 3] = ["{{", "{%", "{#"];

/// The template with every line outside the block of the agent's key made empty, so that the rest need not be YAML and
/// places stay true. An error where the block depends on what only cloud-init knows: expressions in it, or a statement or
/// comment somewhere above it.
pub fn our_part(text: &str) -> Result<String, Problem> {
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    let mut found = false;
    let mut depends = None;
    for (index, line) in text.lines().enumerate() {
        let begins_ours = begins_our_block(line);
        inside = begins_ours || inside && (line.trim().is_empty() || line.starts_with([' ', '\t', '#']));
        let words: &[&str] = if inside { &EXPRESSIONS } else { &CAN_LEAVE_OUT };
        if depends.is_none() && (inside || !found) {
            depends = words.iter().find_map(|word| line.find(word)).map(|byte| (index + 1, line[..byte].chars().count() + 1));
        }
        found |= begins_ours;
        if inside {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    if depends.is_none() && found {
        return Ok(kept);
    }
    if !found && !names_our_key(text) {
        return Ok(String::new());
    }
    let what = format!("this is a template, and \"{OUR_KEY}\" in it depends on what only cloud-init can fill in");
    let hint = "write the values out, and put the key above all {% … %} or into a part of its own";
    Err(Problem { position: depends, ..Problem::new(what, hint) })
}

fn begins_our_block(line: &str) -> bool {
    let after = ["gpuk", "\"gpuk\"", "'gpuk'"].iter().find_map(|key| line.strip_prefix(key));
    after.is_some_and(|after| after.trim_start().starts_with(':'))
}
