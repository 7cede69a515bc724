//! Entries in Codex's TOML file: comments, order and layout of everything else stay.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::entry::{Entry, Found, Unfit};

const SERVERS: &str = "mcp_servers";

/// What stands under `name` in `mcp_servers`, in a file with this text.
pub(super) fn find(text: &str, name: &str) -> Result<Option<Found>, Unfit> {
    let document = parse(text)?;
    let Some(servers) = document.get(SERVERS) else { return Ok(None) };
    let servers = servers.as_table_like().ok_or_else(|| no_table(SERVERS))?;
    servers.get(name).map(|entry| entry.as_table_like().map(found).ok_or_else(|| no_table(name))).transpose()
}

/// The text with the entry in it. An entry of ours that is there keeps whatever else it says.
pub(super) fn merge(text: &str, entry: &Entry) -> Result<String, Unfit> {
    let mut document = parse(text)?;
    let servers = document.as_table_mut().entry(SERVERS).or_insert_with(|| {
        let mut servers = Table::new();
        servers.set_implicit(true);
        Item::Table(servers)
    });
    let inline = servers.is_inline_table();
    let servers = servers.as_table_like_mut().ok_or_else(|| no_table(SERVERS))?;
    match servers.get_mut(&entry.name) {
        Some(old) => {
            let old = old.as_table_like_mut().ok_or_else(|| no_table(&entry.name))?;
            found(old).must_be_ours(&entry.name)?;
            fill(old, entry);
        }
        None if inline => {
            let mut new = InlineTable::new();
            fill(&mut new, entry);
            servers.insert(&entry.name, value(new));
        }
        None => {
            let mut new = Table::new();
            fill(&mut new, entry);
            servers.insert(&entry.name, Item::Table(new));
        }
    }
    let merged = document.to_string();
    let says_the_same = without(text, &entry.name)? == without(&merged, &entry.name)?;
    let says_ours = find(&merged, &entry.name)?.is_some_and(|found| found.is(entry));
    if says_the_same && says_ours { Ok(merged) } else { Err(Unfit::Delicate) }
}

fn parse(text: &str) -> Result<DocumentMut, Unfit> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        Unfit::Syntax { line, why: error.message().to_owned() }
    })
}

fn no_table(what: &str) -> Unfit {
    Unfit::Shape { what: format!("`{what}`"), expected: "a table" }
}

fn found(entry: &dyn TableLike) -> Found {
    let text = |item: &Value| item.as_str().map(str::to_owned);
    let command = entry.get("command").and_then(Item::as_value).and_then(text);
    let args = match entry.get("args") {
        None => Some(Vec::new()),
        Some(args) => args.as_array().and_then(|args| args.iter().map(text).collect()),
    };
    Found { command, args }
}

/// Only what differs is touched, so that comments beside what is right stay.
fn fill(table: &mut dyn TableLike, entry: &Entry) {
    let Found { command, args } = found(table);
    if command.as_ref() != Some(&entry.command) {
        table.insert("command", value(&entry.command));
    }
    if args.as_ref() != Some(&entry.args) || !table.contains_key("args") {
        table.insert("args", value(entry.args.iter().collect::<Array>()));
    }
}

/// All that a file says beside the entry; a table of servers that holds nothing else counts as none.
fn without(text: &str, name: &str) -> Result<toml::Table, Unfit> {
    let mut all: toml::Table = text.parse().map_err(|_| Unfit::Delicate)?;
    if let Some(toml::Value::Table(servers)) = all.get_mut(SERVERS) {
        servers.remove(name);
        if servers.is_empty() {
            all.remove(SERVERS);
        }
    }
    Ok(all)
}
