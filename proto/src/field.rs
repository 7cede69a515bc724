//! Reading one field: present, bounded, well formed.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use codegen_types::WorkspacePath;
use codegen_types::ids::InvalidId;

use crate::bounds::{DURATION_MS_MAX, MESSAGE_BYTES_MAX};
use crate::invalid::InvalidMessage;

pub(crate) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, InvalidMessage> {
    value.ok_or(InvalidMessage::Missing { field })
}

pub(crate) fn bounded(size: usize, max: usize, field: &'static str) -> Result<(), InvalidMessage> {
    if size > max { Err(InvalidMessage::TooLarge { field, size, max }) } else { Ok(()) }
}

pub(crate) fn text(value: String, max: usize, field: &'static str) -> Result<String, InvalidMessage> {
    bounded(value.len(), max, field)?;
    Ok(value)
}

/// An empty text stands for none, as proto3 has it.
pub(crate) fn text_or_none(value: String, max: usize, field: &'static str) -> Result<Option<String>, InvalidMessage> {
    Ok(Some(text(value, max, field)?).filter(|text| !text.is_empty()))
}

pub(crate) fn optional_text(
    value: Option<String>,
    max: usize,
    field: &'static str,
) -> Result<Option<String>, InvalidMessage> {
    value.map(|value| text(value, max, field)).transpose()
}

/// A text that reaches a program through the kernel, where a NUL would end it early.
pub(crate) fn without_nul(value: &str, field: &'static str) -> Result<(), InvalidMessage> {
    if value.contains('\0') {
        return Err(InvalidMessage::OutOfRange { field, expected: "without NUL bytes" });
    }
    Ok(())
}

pub(crate) fn contents(value: Bytes, max: usize, field: &'static str) -> Result<Vec<u8>, InvalidMessage> {
    bounded(value.len(), max, field)?;
    Ok(value.into())
}

pub(crate) fn id<T: FromStr<Err = InvalidId>>(value: &str, field: &'static str) -> Result<T, InvalidMessage> {
    value.parse().map_err(|source| InvalidMessage::Id { field, source })
}

pub(crate) fn path(value: &str, field: &'static str) -> Result<WorkspacePath, InvalidMessage> {
    WorkspacePath::parse(value).map_err(|source| InvalidMessage::Path { field, source })
}

/// One word of a closed vocabulary.
pub(crate) fn word<T: Copy>(value: &str, words: &[(&str, T)], field: &'static str) -> Result<T, InvalidMessage> {
    let found = words.iter().find(|(name, _)| *name == value);
    found.map(|(_, word)| *word).ok_or(InvalidMessage::UnknownWord { field })
}

/// The text of a word, from the same table that reads it.
pub(crate) fn word_text<T: PartialEq>(word: &T, words: &[(&'static str, T)]) -> String {
    let (name, _) = words.iter().find(|(_, known)| known == word).expect("the table holds every word");
    (*name).to_owned()
}

pub(crate) fn duration(ms: u64, field: &'static str) -> Result<Duration, InvalidMessage> {
    if ms > DURATION_MS_MAX {
        return Err(InvalidMessage::OutOfRange { field, expected: "at most thirty days" });
    }
    Ok(Duration::from_millis(ms))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(DURATION_MS_MAX)
}

pub(crate) fn list<W, T>(
    items: Vec<W>,
    max: usize,
    field: &'static str,
    each: impl FnMut(W) -> Result<T, InvalidMessage>,
) -> Result<Vec<T>, InvalidMessage> {
    bounded(items.len(), max, field)?;
    items.into_iter().map(each).collect()
}

/// A map with a bound on its entries and on all names and values together.
pub(crate) fn map(
    entries: HashMap<String, String>,
    entries_max: usize,
    bytes_max: usize,
    field: &'static str,
) -> Result<BTreeMap<String, String>, InvalidMessage> {
    bounded(entries.len(), entries_max, field)?;
    bounded(entries.iter().map(|(name, value)| name.len() + value.len()).sum(), bytes_max, field)?;
    Ok(entries.into_iter().collect())
}

/// Cuts a text for people, so that a long one of ours is never refused by the other side.
pub(crate) fn cut(text: String) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text;
    }
    let mark = "…";
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX - mark.len());
    format!("{}{mark}", &text[..end])
}
