//! `fs_read`: a file, or a part of it, as text or base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codegen_types::event::FileStat;
use codegen_types::operation::{Pictures, Read};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::reply::{file_reply, line};
use crate::tools::args;
use crate::tools::call::{Answer, Call};
use crate::tools::result::{Content, ToolResult};

/// How much is read at most when a call sets no limit, in bytes.
const LIMIT_DEFAULT: u64 = 256 << 10;
/// How much one call may ask for, in bytes.
const LIMIT_MAX: u64 = 16 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsReadInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The file, relative to the workspace.
    path: String,
    /// The first byte to read. Default 0.
    offset: Option<u64>,
    /// At most so many bytes, up to 16777216. Default: what the client shows.
    limit: Option<u64>,
    /// `utf8` (the default) for text, `base64` for anything else.
    encoding: Option<Encoding>,
}

/// How bytes are written in JSON.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    #[default]
    Utf8,
    Base64,
}

impl Encoding {
    /// Bytes that take at most so many characters; enough for one character of text.
    fn bytes_in(self, chars: usize) -> u64 {
        let bytes = match self {
            Self::Utf8 => chars,
            Self::Base64 => chars / 4 * 3,
        };
        bytes.max(4) as u64
    }
}

pub(in crate::tools) fn read<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsReadInput = call.input()?;
        let path = args::path("path", &input.path)?;
        if input.limit.is_some_and(|limit| !(1..=LIMIT_MAX).contains(&limit)) {
            return Err(args::invalid("limit", format!("must be from 1 to {LIMIT_MAX}")).into());
        }
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let (offset, encoding) = (input.offset.unwrap_or(0), input.encoding.unwrap_or_default());
        let limit = input.limit.unwrap_or_else(|| encoding.bytes_in(call.part_chars()).min(LIMIT_DEFAULT));
        let read = Read { path, offset, limit: Some(limit), pictures: Pictures::AsBytes };
        let outcome = call.act(session, Operation::Read(read).into()).await?;
        let asked = Asked { offset, limited: input.limit.is_some(), encoding };
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Read { contents, stat } => Some(render(&asked, contents, stat)),
            _ => None,
        }))
    }
    .boxed()
}

struct Asked {
    offset: u64,
    limited: bool,
    encoding: Encoding,
}

fn render(asked: &Asked, contents: &[u8], stat: &FileStat) -> ToolResult {
    let (mut text, begin, end) = match asked.encoding {
        Encoding::Base64 => {
            (STANDARD.encode(contents), asked.offset, asked.offset.saturating_add(contents.len() as u64))
        }
        Encoding::Utf8 => match part_of_text(asked.offset, contents, stat) {
            Ok((part, begin)) => (part.to_owned(), begin, begin.saturating_add(part.len() as u64)),
            Err(failure) => return ToolResult::failure(&failure),
        },
    };
    let more = end < stat.size;
    let mut about = line(stat);
    if more || begin > 0 {
        about.push_str(&format!("; this is bytes {begin} to {end}"));
    }
    if more {
        let rest = format!("{} bytes follow; go on with offset {end}", stat.size - end);
        about.push_str(&format!("; {rest}"));
        // Whoever set a limit knows that this is a part; whoever did not must see it where the text ends.
        if !asked.limited {
            text.push_str(&format!("\n[{rest}]"));
        }
    }
    let mut content = vec![Content::Text(text), Content::Text(about)];
    content.retain(|block| !matches!(block, Content::Text(text) if text.is_empty()));
    let facts = json!({"size": stat.size, "etag": stat.etag, "offset": begin, "next_offset": more.then_some(end)});
    ToolResult { content, ..ToolResult::default() }.with_meta("codegen/file", facts)
}

/// The whole characters of a part of a text file, and where they begin. A character that the part's edges cut is left
/// to the neighbouring part.
fn part_of_text<'a>(offset: u64, contents: &'a [u8], stat: &FileStat) -> Result<(&'a str, u64), Failure> {
    let at_end = offset.saturating_add(contents.len() as u64) >= stat.size;
    let cut = if offset == 0 { 0 } else { contents.iter().take(3).take_while(|b| **b & 0xc0 == 0x80).count() };
    let text = match std::str::from_utf8(&contents[cut..]) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && !at_end => {
            let whole = &contents[cut..cut + error.valid_up_to()];
            std::str::from_utf8(whole).expect("valid up to there")
        }
        Err(error) => {
            let place = offset + (cut + error.valid_up_to()) as u64;
            let message = format!(
                "{} is not UTF-8 text (byte {place} is the first that is none); read it with encoding \"base64\"",
                stat.path
            );
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
    };
    if text.is_empty() && !contents.is_empty() {
        let message = "`limit`: too small to hold the character at `offset`; 4 bytes hold any";
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    Ok((text, offset + cut as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen_types::event::FileKind;

    fn stat(size: u64) -> FileStat {
        let (path, etag) = ("f.txt".to_owned(), Some("v1".to_owned()));
        FileStat { path, kind: FileKind::File, size, modified_ms: 0, etag, mode: 0o644, target: None }
    }

    fn asked(offset: u64, limited: bool) -> Asked {
        Asked { offset, limited, encoding: Encoding::Utf8 }
    }

    fn texts(result: &ToolResult) -> Vec<&str> {
        let mut texts = Vec::new();
        for block in &result.content {
            let Content::Text(text) = block else { panic!("only text: {block:?}") };
            texts.push(text.as_str());
        }
        texts
    }

    #[test]
    fn a_whole_file_comes_back_exactly() {
        let result = render(&asked(0, false), "héllo\n".as_bytes(), &stat(7));
        assert_eq!(texts(&result), ["héllo\n", "f.txt: 7 bytes, modified 1970-01-01T00:00:00Z, etag v1"]);
        assert_eq!(result.meta["codegen/file"]["next_offset"], json!(null));
        let empty = render(&asked(0, false), b"", &stat(0));
        assert_eq!(texts(&empty), ["f.txt: 0 bytes, modified 1970-01-01T00:00:00Z, etag v1"]);
    }

    #[test]
    fn a_part_says_where_to_go_on_and_parts_make_the_whole() {
        let whole = "aé漢🦀z".repeat(7);
        let mut joined = String::new();
        let mut offset = 0;
        while offset < whole.len() {
            let end = (offset + 5).min(whole.len());
            let (part, begin) =
                part_of_text(offset as u64, &whole.as_bytes()[offset..end], &stat(whole.len() as u64)).expect("text");
            assert_eq!(begin, offset as u64);
            joined.push_str(part);
            offset += part.len();
        }
        assert_eq!(joined, whole);
        let first = render(&asked(0, false), b"abc", &stat(10));
        assert_eq!(texts(&first)[0], "abc\n[7 bytes follow; go on with offset 3]");
        let limited = render(&asked(0, true), b"abc", &stat(10));
        assert_eq!(texts(&limited)[0], "abc");
        assert!(texts(&limited)[1].ends_with("this is bytes 0 to 3; 7 bytes follow; go on with offset 3"));
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_way_to_read_it() {
        for (contents, offset, size) in [(&b"ab\xff"[..], 0, 3), (b"\x80abc", 0, 4), (b"ab\xc3", 0, 3)] {
            let result = render(&asked(offset, false), contents, &stat(size));
            assert!(result.is_error);
            assert!(texts(&result)[0].contains("base64"), "{result:?}");
        }
        let base64 = render(&Asked { encoding: Encoding::Base64, ..asked(0, false) }, b"\xff\xfe", &stat(2));
        assert_eq!(texts(&base64)[0], "//4=");
    }
}
