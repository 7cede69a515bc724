//! `fs_list` and `fs_stat`: what is there.

use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::{List, Stat};
use codegen_types::{Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::reply::{file_reply, kind_word, line};
use crate::tools::call::{Answer, Call};
use crate::tools::result::ToolResult;
use crate::tools::{args, words};

/// The most entries that one listing gives.
pub(in crate::tools) const ENTRIES_MAX: u32 = 1_000;
/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsListInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The directory, relative to the workspace; left out, the workspace itself.
    path: Option<String>,
    /// Whether to list what is in directories below, too.
    recursive: Option<bool>,
    /// A glob that the path below `path` must match: `*` stops at a slash, `**` does not. Example: `**/*.py` with
    /// `recursive`.
    pattern: Option<String>,
    /// At most so many, 1 to 1000. Default: what the client shows.
    max_entries: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsStatInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The file or directory, relative to the workspace.
    path: String,
}

/// A file or directory as clients see it.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub(crate) struct FileView {
    /// Its path, relative to the workspace.
    path: String,
    /// `file`, `directory`, `symlink` or `other`.
    kind: String,
    /// Its size, in bytes.
    size: u64,
    /// When its contents last changed (RFC 3339).
    modified_at: String,
    /// Permission bits, in octal.
    mode: String,
    /// Names this version of a file's contents, for `if_match` of fs_write.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct FsListOutput {
    /// What was found, sorted by path.
    entries: Vec<FileView>,
    /// Whether there is more than one listing gives.
    truncated: bool,
}

pub(in crate::tools) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsListInput = call.input()?;
        let path = args::path("path", input.path.as_deref().unwrap_or(""))?;
        let pattern = input.pattern;
        pattern.as_deref().map_or(Ok(()), |text| args::bounded("pattern", text, PATTERN_BYTES_MAX))?;
        if input.max_entries.is_some_and(|entries| !(1..=ENTRIES_MAX).contains(&entries)) {
            return Err(args::invalid("max_entries", format!("must be from 1 to {ENTRIES_MAX}")).into());
        }
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let recursive = input.recursive.unwrap_or(false);
        let room = match input.max_entries {
            Some(entries) => Room::Entries(entries),
            None => Room::Chars(call.part_chars()),
        };
        let list = List { path: path.clone(), recursive, pattern, entries_max: ENTRIES_MAX };
        let outcome = call.act(session, Operation::List(list).into()).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::List { entries, truncated } => Some(listing(&path.to_string(), entries, *truncated, room)),
            _ => None,
        }))
    }
    .boxed()
}

pub(in crate::tools) fn stat<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsStatInput = call.input()?;
        let path = args::path("path", &input.path)?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let outcome = call.act(session, Operation::Stat(Stat { path }).into()).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Stat { stat } => Some(ToolResult::structured(line(stat), json!(FileView::of(stat)))),
            _ => None,
        }))
    }
    .boxed()
}

/// How many entries an answer has room for.
#[derive(Debug, Clone, Copy)]
enum Room {
    /// So many.
    Entries(u32),
    /// Those that take so many characters as structured content, which some clients show in place of the text.
    Chars(usize),
}

impl Room {
    /// Those of the entries that there is room for; the first one in any case.
    fn first(self, views: Vec<FileView>) -> Vec<FileView> {
        let fit = match self {
            Self::Entries(entries) => entries as usize,
            Self::Chars(mut chars) => {
                let fits = |view: &&FileView| {
                    let left = chars.checked_sub(json!(view).to_string().chars().count() + 1);
                    chars = left.unwrap_or_default();
                    left.is_some()
                };
                views.iter().take_while(fits).count()
            }
        };
        views.into_iter().take(fit.max(1)).collect()
    }
}

fn listing(path: &str, all: &[FileStat], truncated: bool, room: Room) -> ToolResult {
    let views = room.first(all.iter().map(FileView::of).collect());
    let (entries, truncated) = (&all[..views.len()], truncated || views.len() < all.len());
    let mut lines = Vec::with_capacity(entries.len() + 2);
    lines.push(match entries.len() {
        0 => format!("{path}: nothing there"),
        1 => format!("{path}: 1 entry"),
        n => format!("{path}: {n} entries"),
    });
    lines.extend(entries.iter().map(|entry| match entry.kind {
        FileKind::File => format!("{} ({})", entry.path, words::bytes(entry.size)),
        FileKind::Directory => format!("{}/", entry.path),
        kind => format!("{} ({})", entry.path, kind_word(kind)),
    }));
    if truncated {
        let more = if entries.len() < ENTRIES_MAX as usize { ", or raise max_entries" } else { "" };
        lines.push(format!("[only the first {}; narrow it with path or pattern{more}]", entries.len()));
    }
    let output = FsListOutput { truncated, entries: views };
    ToolResult::structured(lines.join("\n"), json!(output))
}

impl FileView {
    pub(crate) fn of(stat: &FileStat) -> Self {
        Self {
            path: stat.path.clone(),
            kind: kind_word(stat.kind).to_owned(),
            size: stat.size,
            modified_at: words::time(stat.modified_ms),
            mode: format!("{:03o}", stat.mode & 0o7777),
            etag: stat.etag.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::result::Content;

    fn listed(count: usize, truncated: bool, room: Room) -> (String, Vec<String>, bool) {
        let stat = |n: usize| FileStat {
            path: format!("directory/file{n:04}"),
            kind: FileKind::File,
            size: 7,
            modified_ms: 0,
            etag: None,
            mode: 0o644,
            target: None,
        };
        let all: Vec<FileStat> = (0..count).map(stat).collect();
        let result = listing("directory", &all, truncated, room);
        let [Content::Text(text)] = result.content.as_slice() else { panic!("{result:?}") };
        let structured = result.structured.expect("structure");
        let paths = structured["entries"].as_array().expect("a list").iter();
        let paths = paths.map(|entry| entry["path"].as_str().expect("a path").to_owned()).collect();
        (text.clone(), paths, structured["truncated"] == json!(true))
    }

    #[test]
    fn a_listing_fits_what_its_client_shows_and_says_that_there_is_more() {
        let (text, paths, truncated) = listed(900, false, Room::Chars(10_000));
        assert!((20..200).contains(&paths.len()) && truncated, "{}", paths.len());
        assert!(text.starts_with(&format!("directory: {} entries\n", paths.len())), "{text}");
        let note = "narrow it with path or pattern, or raise max_entries]";
        assert!(text.ends_with(note) && text.chars().count() < 10_000, "{text}");
        assert_eq!(listed(900, false, Room::Chars(1)).1.len(), 1);
    }

    #[test]
    fn a_number_that_was_asked_for_wins() {
        let (text, paths, truncated) = listed(900, false, Room::Entries(1_000));
        assert!(paths.len() == 900 && !truncated && !text.contains("only the first"));
        let (_, paths, truncated) = listed(900, false, Room::Entries(3));
        assert!(paths == ["directory/file0000", "directory/file0001", "directory/file0002"] && truncated);
        let (text, _, truncated) = listed(1_000, true, Room::Entries(1_000));
        assert!(truncated && text.ends_with("[only the first 1000; narrow it with path or pattern]"), "{text}");
    }
}
