//! Entries in JSON files as people keep them: comments, trailing commas, order and layout of everything else stay.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstObjectProp, CstRootNode};
use serde_json::Value;

use super::entry::{Entry, Found, Unfit};

/// What VS Code and its relatives read, and nothing more lenient: every other liberty is more likely a mistake.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// What stands under `name` in the object `servers`, in a file with this text.
pub(super) fn find(text: &str, servers: &str, name: &str) -> Result<Option<Found>, Unfit> {
    find_in(&parse(text)?, servers, name)
}

fn find_in(root: &CstRootNode, servers: &str, name: &str) -> Result<Option<Found>, Unfit> {
    let Some(value) = root.value() else { return Ok(None) };
    let object = value.as_object().ok_or_else(|| no_object("the file"))?;
    let Some(servers) = child(&object, servers)? else { return Ok(None) };
    child(&servers, name)?.map(|entry| found(&entry)).transpose()
}

/// The text with the entry in it. An entry of ours that is there keeps whatever else it says.
pub(super) fn merge(text: &str, servers: &str, typed: bool, entry: &Entry) -> Result<String, Unfit> {
    let root = parse(text)?;
    let before = said(&root)?;
    let object = root.object_value_or_create().ok_or_else(|| no_object("the file"))?;
    let all = match child(&object, servers)? {
        Some(all) => all,
        None => object.append(servers, CstInputValue::Object(Vec::new())).object_value().expect("just made"),
    };
    match child(&all, &entry.name)? {
        Some(old) => {
            found(&old)?.must_be_ours(&entry.name)?;
            set(&old, "command", entry.command.as_str().into())?;
            set(&old, "args", list(&entry.args))?;
        }
        None => drop(all.append(&entry.name, value(entry, typed))),
    }
    let mut merged = root.to_string();
    if !merged.ends_with('\n') && text.trim().is_empty() {
        merged.push('\n');
    }
    let after = parse(&merged)?;
    let says_the_same = without(before, servers, &entry.name) == without(said(&after)?, servers, &entry.name);
    let says_ours = find_in(&after, servers, &entry.name)?.is_some_and(|found| found.is(entry));
    if says_the_same && says_ours { Ok(merged) } else { Err(Unfit::Delicate) }
}

/// What a file says; an empty one says nothing.
fn said(root: &CstRootNode) -> Result<Value, Unfit> {
    match root.value() {
        None => Ok(Value::Object(serde_json::Map::new())),
        Some(value) => value.to_serde_value().ok_or(Unfit::Delicate),
    }
}

fn parse(text: &str) -> Result<CstRootNode, Unfit> {
    CstRootNode::parse(text, &OPTIONS)
        .map_err(|error| Unfit::Syntax { line: error.line_display(), why: error.kind().to_string() })
}

fn no_object(what: impl Into<String>) -> Unfit {
    Unfit::Shape { what: what.into(), expected: "an object" }
}

fn child(object: &CstObject, name: &str) -> Result<Option<CstObject>, Unfit> {
    let Some(property) = only(object, name)? else { return Ok(None) };
    property.object_value().map(Some).ok_or_else(|| no_object(format!("`{name}`")))
}

fn only(object: &CstObject, name: &str) -> Result<Option<CstObjectProp>, Unfit> {
    let mut named = object.properties().into_iter().filter(|p| p.decoded_name().as_deref() == Some(name));
    let first = named.next();
    if named.next().is_some() { Err(Unfit::Twice(name.to_owned())) } else { Ok(first) }
}

fn found(entry: &CstObject) -> Result<Found, Unfit> {
    let read = |name: &str| Ok(only(entry, name)?.and_then(|property| property.value()?.to_serde_value()));
    let command = read("command")?.and_then(|command| command.as_str().map(str::to_owned));
    let args = match read("args")? {
        None => Some(Vec::new()),
        Some(args) => serde_json::from_value(args).ok(),
    };
    Ok(Found { command, args })
}

fn set(entry: &CstObject, name: &str, value: CstInputValue) -> Result<(), Unfit> {
    match only(entry, name)? {
        Some(property) => property.set_value(value),
        None => drop(entry.append(name, value)),
    }
    Ok(())
}

fn value(entry: &Entry, typed: bool) -> CstInputValue {
    let kind = typed.then(|| ("type".to_owned(), CstInputValue::from("stdio")));
    let rest = [("command".to_owned(), entry.command.as_str().into()), ("args".to_owned(), list(&entry.args))];
    CstInputValue::Object(kind.into_iter().chain(rest).collect())
}

fn list(args: &[String]) -> CstInputValue {
    CstInputValue::Array(args.iter().map(|arg| arg.as_str().into()).collect())
}

/// All that a file says beside the entry; an object for the servers that holds nothing else counts as none.
fn without(mut file: Value, servers: &str, name: &str) -> Value {
    if let Some(Value::Object(all)) = file.get_mut(servers) {
        all.shift_remove(name);
        if all.is_empty() {
            file.as_object_mut().expect("it has a member").shift_remove(servers);
        }
    }
    file
}
