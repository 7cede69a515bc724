//! `artifact_list`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::List;
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, SessionId, WorkspacePath};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::tools::call::{Answer, Call, Reply};
use crate::tools::result::ToolResult;
use crate::tools::{WorkspaceUri, args, media, words};

/// Artifacts that one call lists.
const PAGE: usize = 100;
/// Files and directories that are looked through.
const LOOKED_AT_MAX: u32 = 20_000;
/// The longest cursor, in bytes: a path in base64.
const CURSOR_BYTES_MAX: usize = 8_192;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct ArtifactListInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// Where to go on, as an earlier listing said.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct ArtifactListOutput {
    /// The artifacts, sorted by path.
    artifacts: Vec<ArtifactView>,
    /// Lists what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ArtifactView {
    path: String,
    uri: String,
    media_type: String,
    size: u64,
    modified_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

pub(in crate::tools) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: ArtifactListInput = call.input()?;
        let after = input.cursor.as_deref().map(read_cursor).transpose()?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let all = List { path: super::directory(), recursive: true, pattern: None, entries_max: LOOKED_AT_MAX };
        let outcome = call.act(session, Operation::List(all).into()).await?;
        let result = match &outcome.result {
            Ok(completed) => match &completed.result {
                Some(OperationResult::List { entries, truncated }) => {
                    page(session, entries, *truncated, after.as_deref())
                }
                _ => {
                    let message = "the worker answered with the result of another operation";
                    ToolResult::failure(&Failure::new(ErrorCode::Internal, message))
                }
            },
            // Nobody has made the directory yet.
            Err(failure) if failure.code == ErrorCode::NotFound => page(session, &[], false, None),
            Err(failure) => ToolResult::failure(failure),
        };
        Ok(Reply::Recorded(result.of_task(outcome.task).recorded_at(outcome.audit_seq)))
    }
    .boxed()
}

/// A cursor is the last path listed, so that it stays good when files come and go.
fn read_cursor(cursor: &str) -> Result<String, Failure> {
    args::bounded("cursor", cursor, CURSOR_BYTES_MAX)?;
    let path = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    path.ok_or_else(|| args::invalid("cursor", "it is none that artifact_list gave"))
}

fn page(session: SessionId, entries: &[FileStat], truncated: bool, after: Option<&str>) -> ToolResult {
    let mut files = entries
        .iter()
        .filter(|entry| entry.kind == FileKind::File && after.is_none_or(|after| entry.path.as_str() > after));
    let artifacts: Vec<ArtifactView> = files.by_ref().take(PAGE).filter_map(|file| view(session, file)).collect();
    let more = files.count();
    let next_cursor = artifacts.last().filter(|_| more > 0).map(|last| URL_SAFE_NO_PAD.encode(last.path.as_bytes()));
    let mut lines = vec![match artifacts.len() {
        0 if after.is_none() => format!("no artifacts; files below {}/ are listed here", super::DIRECTORY),
        0 => "no further artifacts".to_owned(),
        1 => "1 artifact".to_owned(),
        count => format!("{count} artifacts"),
    }];
    lines.extend(artifacts.iter().map(|artifact| {
        let ArtifactView { path, media_type, size, modified_at, uri, .. } = artifact;
        format!("{path} ({media_type}, {}, {modified_at}) {uri}", words::bytes(*size))
    }));
    if let Some(cursor) = &next_cursor {
        lines.push(format!("[{more} more; go on with cursor {cursor}]"));
    } else if truncated {
        lines.push("[there are more than can be listed; fs_list lists directories one by one]".to_owned());
    }
    ToolResult::structured(lines.join("\n"), json!(ArtifactListOutput { artifacts, next_cursor }))
}

fn view(session: SessionId, file: &FileStat) -> Option<ArtifactView> {
    let path = WorkspacePath::parse(&file.path).ok()?;
    Some(ArtifactView {
        uri: WorkspaceUri { session, path }.to_string(),
        path: file.path.clone(),
        media_type: media::of_name(&file.path).to_owned(),
        size: file.size,
        modified_at: words::time(file.modified_ms),
        etag: file.etag.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: String) -> FileStat {
        FileStat {
            path,
            kind: FileKind::File,
            size: 3,
            modified_ms: 0,
            etag: Some("v".into()),
            mode: 0o644,
            target: None,
        }
    }

    #[test]
    fn pages_together_are_the_whole_list() {
        let session = SessionId::mint();
        let entries: Vec<FileStat> = (0..250).map(|n| file(format!("artifacts/{n:03}.png"))).collect();
        let (mut seen, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let output = page(session, &entries, false, after.as_deref()).structured.expect("it has structure");
            let paths = output["artifacts"].as_array().expect("artifacts").iter();
            seen.extend(paths.map(|artifact| artifact["path"].as_str().expect("a path").to_owned()));
            let Some(cursor) = output.get("next_cursor") else { break };
            after = Some(read_cursor(cursor.as_str().expect("text")).expect("our own cursor"));
        }
        assert_eq!(seen, entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>());
    }

    #[test]
    fn a_cursor_that_nobody_gave_is_refused_and_directories_are_no_artifacts() {
        for bad in ["?", "a b", "gICA", &"a".repeat(10_000)] {
            assert_eq!(read_cursor(bad).expect_err(bad).code, ErrorCode::InvalidArgument);
        }
        let directory = FileStat { kind: FileKind::Directory, ..file("artifacts/x".into()) };
        let output = page(SessionId::mint(), &[directory], false, None).structured.expect("it has structure");
        assert_eq!(output, json!({"artifacts": []}));
    }
}
