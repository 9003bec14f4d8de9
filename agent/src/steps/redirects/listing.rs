//! What `nft --json list table` prints of a table, as far as it tells whether the table is ours and whole.
//!
//! libnftables-json(5).

use anyhow::{Context, Result};
use serde_json::Value;

use super::table::Table;

/// Whether some of the tables that `nft --json list tables` prints are those in which iptables-nft(8) keeps its rules.
pub fn has_tables_of_iptables(listing: &str) -> Result<bool> {
    let listing: Value = serde_json::from_str(listing).context("reading nft's answer as JSON")?;
    let objects = listing.get("nftables").and_then(Value::as_array).context("nft's answer has no list nftables")?;
    let is_one = |table: &Value| {
        let field = |name: &str| table.get(name).and_then(Value::as_str).unwrap_or_default();
        matches!(field("family"), "ip" | "ip6") && matches!(field("name"), "filter" | "nat" | "mangle" | "raw" | "security")
    };
    Ok(objects.iter().filter_map(|object| object.get("table")).any(is_one))
}

/// What is wrong with a listed table, in a few words; `None` when it is as it must be.
pub fn difference(listing: &str, wanted: &Table) -> Result<Option<String>> {
    let listing: Value = serde_json::from_str(listing).context("reading nft's answer as JSON")?;
    let objects = listing.get("nftables").and_then(Value::as_array).context("nft's answer has no list nftables")?;
    let of_kind = |kind: &'static str| objects.iter().filter_map(move |object| object.get(kind));
    let text = |object: &Value, name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let listed: Vec<_> = of_kind("chain")
        .map(|chain| (text(chain, "name"), text(chain, "hook"), chain.get("prio").and_then(Value::as_i64).unwrap_or_default()))
        .collect();
    for chain in &wanted.chains {
        let Some((_, hook, priority)) = listed.iter().find(|(name, ..)| name == chain.name) else {
            return Ok(Some(format!("chain {} is missing", chain.name)));
        };
        if hook != chain.hook || *priority != i64::from(chain.priority) {
            return Ok(Some(format!("chain {} is at hook {hook} with priority {priority}", chain.name)));
        }
        let present: Vec<String> =
            of_kind("rule").filter(|rule| text(rule, "chain") == chain.name).map(|rule| text(rule, "comment")).collect();
        let expected: Vec<String> = chain.comments().collect();
        if present != expected {
            return Ok(Some(match present.len() {
                0 => format!("chain {} is empty", chain.name),
                count if count != expected.len() => format!("chain {} has {count} rules, not {}", chain.name, expected.len()),
                _ => format!("chain {} has other rules", chain.name),
            }));
        }
    }
    let strange = listed.iter().find(|(name, ..)| wanted.chains.iter().all(|chain| chain.name != name));
    Ok(strange.map(|(name, ..)| format!("chain {name} does not belong there")))
}
