//! `artifact_get`.

use codegen_types::event::FileStat;
use codegen_types::operation::{Pictures, Read};
use codegen_types::{Display, Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::tools::call::{Answer, Call};
use crate::tools::files::{file_reply, line};
use crate::tools::result::{Content, ResourceLink, ToolResult};
use crate::tools::{WorkspaceUri, args, media, words};

/// The largest picture that a result holds, in bytes; the worker scales what it can.
const PICTURE_BYTES_MAX: usize = 1 << 20;
/// What is read of a file, in bytes: enough for all the text that is shown.
const READ_BYTES_MAX: u64 = 1 << 20;
/// The most characters of text that a result holds.
const TEXT_CHARS_MAX: usize = 20_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct ArtifactGetInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The artifact, as artifact_list names it; `artifacts/` may be left out.
    path: String,
}

pub(in crate::tools) fn get<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: ArtifactGetInput = call.input()?;
        let given = args::path("path", &input.path)?;
        if given.is_root() {
            return Err(args::invalid("path", "it names no file; artifact_list lists them").into());
        }
        let below = given.components().next() == Some(super::DIRECTORY);
        let path = if below { given } else { args::path("path", &format!("{}/{given}", super::DIRECTORY))? };
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let read = Read { path: path.clone(), offset: 0, limit: Some(READ_BYTES_MAX), pictures: Pictures::Drawn };
        let outcome = call.act(session, Operation::Read(read).into()).await?;
        let displays = outcome.result.as_ref().map_or(&[][..], |completed| &completed.displays);
        let drawn = displays.iter().find(|shown| is_picture(shown)).cloned();
        let chars = call.part_chars().min(TEXT_CHARS_MAX);
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Read { contents, stat } => {
                let uri = WorkspaceUri { session, path: path.clone() };
                Some(render(uri, contents, stat, drawn.as_ref(), chars))
            }
            _ => None,
        }))
    }
    .boxed()
}

/// Whether the worker drew it: what only calls itself a picture is shown to nobody.
fn is_picture(shown: &Display) -> bool {
    matches!(shown.mime.as_str(), "image/png" | "image/jpeg") && shown.data.len() <= PICTURE_BYTES_MAX
}

fn render(uri: WorkspaceUri, contents: &[u8], stat: &FileStat, drawn: Option<&Display>, chars: usize) -> ToolResult {
    let path = &uri.path;
    let picture = media::of_picture(contents);
    let mime = picture.unwrap_or_else(|| media::of_name(path.as_str()));
    let about = format!("{} ({mime}) {uri}", line(stat));
    if let Some(Display { mime, data, .. }) = drawn {
        let image = Content::Image { mime: mime.clone(), data: data.clone() };
        return ToolResult { content: vec![Content::Text(about), image], ..ToolResult::default() };
    }
    let content = match (picture, beginning_of_text(contents, stat.size, chars)) {
        (None, Some(text)) => {
            let end = text.len() as u64;
            let mut shown = text.to_owned();
            if end < stat.size {
                let rest = stat.size - end;
                shown.push_str(&format!("\n[{rest} bytes follow; fs_read {path} with offset {end} reads on]"));
            }
            let blocks = [shown, about].into_iter().filter(|text| !text.is_empty());
            blocks.map(Content::Text).collect()
        }
        _ => {
            let name = path.components().last().unwrap_or_default().to_owned();
            let text = format!(
                "{about}\n{} that are not shown here: fetch the resource, or look into the file with run_python.",
                words::bytes(stat.size)
            );
            let link = ResourceLink { uri, name, mime: mime.to_owned(), size: stat.size };
            vec![Content::Text(text), Content::ResourceLink(link)]
        }
    };
    ToolResult { content, ..ToolResult::default() }
}

/// The first characters, at most so many, of a file that is text as far as it was read.
fn beginning_of_text(contents: &[u8], size: u64, chars: usize) -> Option<&str> {
    let text = match std::str::from_utf8(contents) {
        Ok(text) => text,
        // The last character is cut where reading ended.
        Err(error) if error.error_len().is_none() && (contents.len() as u64) < size => {
            std::str::from_utf8(&contents[..error.valid_up_to()]).expect("valid up to there")
        }
        Err(_) => return None,
    };
    if text.contains('\0') {
        return None;
    }
    Some(text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen_types::event::FileKind;
    use codegen_types::{SessionId, WorkspacePath};

    fn got(name: &str, contents: &[u8], size: u64) -> Vec<Content> {
        got_within(name, contents, size, TEXT_CHARS_MAX)
    }

    fn got_within(name: &str, contents: &[u8], size: u64, chars: usize) -> Vec<Content> {
        let path = WorkspacePath::parse(name).expect("a legal path");
        let stat = FileStat {
            path: name.into(),
            kind: FileKind::File,
            size,
            modified_ms: 0,
            etag: None,
            mode: 0o644,
            target: None,
        };
        render(WorkspaceUri { session: SessionId::mint(), path }, contents, &stat, None, chars).content
    }

    #[test]
    fn a_picture_is_shown_only_as_the_worker_drew_it() {
        let stat = FileStat {
            path: "artifacts/a.txt".into(),
            kind: FileKind::File,
            size: 9 << 20,
            modified_ms: 0,
            etag: None,
            mode: 0o644,
            target: None,
        };
        let path = WorkspacePath::parse("artifacts/a.txt").expect("a legal path");
        let drawn = Display { mime: "image/png".to_owned(), path: None, data: vec![1, 2] };
        let uri = WorkspaceUri { session: SessionId::mint(), path };
        let blocks = render(uri, b"\x89PNG\r\n\x1a\nrest", &stat, Some(&drawn), TEXT_CHARS_MAX).content;
        assert!(
            matches!(&blocks[1], Content::Image { mime, data } if mime == "image/png" && *data == [1, 2]),
            "{blocks:?}"
        );
        let signature = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 100]].concat();
        for (name, liar) in [
            ("artifacts/a.png", signature.as_slice()),
            ("artifacts/b.png", b"MZ\0\x90"),
            ("artifacts/c.gif", b"GIF89a"),
        ] {
            let blocks = got(name, liar, liar.len() as u64);
            assert!(!blocks.iter().any(|block| matches!(block, Content::Image { .. })), "{name}: {blocks:?}");
        }
        for mime in ["image/gif", "image/png ", "text/plain"] {
            assert!(!is_picture(&Display { mime: mime.to_owned(), ..drawn.clone() }), "{mime}");
        }
        assert!(!is_picture(&Display { data: vec![0; PICTURE_BYTES_MAX + 1], ..drawn }));
    }

    #[test]
    fn what_is_large_is_linked() {
        let large = [&b"\x89PNG\r\n\x1a\n"[..], &vec![0; 1 << 20]].concat();
        let blocks = got("artifacts/a.png", &large[..1 << 20], large.len() as u64);
        let [Content::Text(text), Content::ResourceLink(link)] = blocks.as_slice() else { panic!("{blocks:?}") };
        assert!(text.contains(&link.uri.to_string()), "the text names the address, too: {text}");
        assert_eq!((link.name.as_str(), link.mime.as_str(), link.size), ("a.png", "image/png", large.len() as u64));
    }

    #[test]
    fn text_is_given_up_to_a_budget_with_the_way_to_the_rest() {
        let blocks = got("artifacts/a.csv", "é,1\n".as_bytes(), 5);
        assert_eq!(blocks[0], Content::Text("é,1\n".into()));
        let long = "é".repeat(30_000);
        let blocks = got("artifacts/a.txt", long.as_bytes(), long.len() as u64);
        let Content::Text(text) = &blocks[0] else { panic!("{blocks:?}") };
        assert!(text.ends_with("[20000 bytes follow; fs_read artifacts/a.txt with offset 40000 reads on]"), "{text}");
        let blocks = got_within("artifacts/a.txt", long.as_bytes(), long.len() as u64, 9_500);
        let Content::Text(text) = &blocks[0] else { panic!("{blocks:?}") };
        assert!(text.ends_with("with offset 19000 reads on]") && text.chars().count() < 10_000, "{text}");
        assert_eq!(got("artifacts/empty", b"", 0).len(), 1);
    }
}
