//! `task_logs`: what a task wrote, from a cursor on, whole or only the lines that match.
//!
//! Head and tail of the output are in the coordinator; what lies between them is read from the file in which the worker
//! keeps all of it. Positions are bytes of both streams together, in the order of arrival.

use codegen_types::operation::{Pictures, Read};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, TaskId, WorkspacePath};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::grep::Grep;
use crate::session::{Captured, TaskPhase, TaskSeen};
use crate::tools::args;
use crate::tools::call::{Answer, Call, Refusal, Reply};
use crate::tools::result::{LogPart, Raw, ToolResult};

/// Characters of output when the call names none.
const CHARS: usize = 20_000;
const CHARS_ALLOWED: std::ops::RangeInclusive<u64> = 200..=100_000;
/// Bytes that are read at once when lines are looked for.
const CHUNK_BYTES: u64 = 1 << 20;
/// Bytes that one call looks through; a cursor goes on from there.
const SCANNED_BYTES_MAX: u64 = 32 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct TaskLogsInput {
    /// The task.
    task_id: String,
    /// Where to go on: next_cursor of an earlier answer. Left out: the beginning.
    cursor: Option<String>,
    /// Only lines that match this regular expression.
    grep: Option<String>,
    /// Characters shown, 200 to 100000. Default 20000.
    max_chars: Option<u64>,
}

pub(in crate::tools) fn logs<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TaskLogsInput = call.input()?;
        let task = super::handle(&input.task_id)?;
        let from = input.cursor.as_deref().map_or(Ok(0), position)?;
        let chars = match input.max_chars {
            None => CHARS.min(call.request.output_chars),
            Some(chars) if CHARS_ALLOWED.contains(&chars) => usize::try_from(chars).unwrap_or(CHARS),
            Some(_) => return Err(args::invalid("max_chars", "must be from 200 to 100000").into()),
        };
        let seen = call.seen(task).await?;
        let log = Log::new(call, &seen);
        let from = from.min(log.end());
        let shown = match input.grep.as_deref() {
            None => log.text(from, chars).await?,
            Some(pattern) => log.lines(from, Grep::new(pattern, from, chars)?).await?,
        };
        Ok(Reply::Unrecorded(answer(&seen, from, &shown, input.grep.is_some()), Some(seen.info.session)))
    }
    .boxed()
}

fn answer(seen: &TaskSeen, from: u64, shown: &Shown, grep: bool) -> ToolResult {
    let (task, phase, end) = (seen.info.task, seen.info.phase, seen.log.written());
    let runs = phase == TaskPhase::Running;
    let state = if runs { "still running" } else { phase.name() };
    let what = if grep { "matching lines in bytes" } else { "bytes" };
    let mut text = format!("{task} {state}, {what} {from} to {} of {end}", shown.until);
    if shown.text.is_empty() {
        text.push_str(if grep { "\n\n(no line matches)" } else { "\n\n(no output)" });
    } else {
        // Whole, so that the parts of several answers make the output.
        text.push_str("\n\n");
        text.push_str(&shown.text);
    }
    let more = runs || shown.until < end;
    let cursor = cursor_at(shown.until);
    if more {
        text.push_str(&format!("\n\nnext_cursor: {cursor}"));
    }
    let part = LogPart { text: shown.text.clone(), cursor: cursor.clone(), more };
    let result = ToolResult { raw: Some(Raw::Log(part)), ..ToolResult::text(text) };
    let result = result.of_task(task).with_meta("codegen/state", json!(phase.name()));
    if more { result.with_meta("codegen/next_cursor", json!(cursor)) } else { result }
}

fn cursor_at(position: u64) -> String {
    format!("c{position:x}")
}

fn position(cursor: &str) -> Result<u64, Failure> {
    let digits = cursor.strip_prefix('c').filter(|digits| digits.len() <= 16);
    let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let position = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    position.ok_or_else(|| args::invalid("cursor", "must be the next_cursor of an earlier answer"))
}

/// A part of the output as it is shown.
struct Shown {
    text: String,
    /// Where it ends.
    until: u64,
}

/// What a task wrote.
struct Log<'a> {
    call: &'a Call<'a>,
    seen: &'a TaskSeen,
    file: WorkspacePath,
}

/// What is at a position.
enum Piece {
    /// These bytes; none at the end.
    Bytes(Vec<u8>),
    /// Nothing that could be read, as far as this.
    Lost { until: u64, why: String },
}

impl<'a> Log<'a> {
    fn new(call: &'a Call<'a>, seen: &'a TaskSeen) -> Self {
        Self { call, seen, file: file_of(seen.info.task) }
    }

    fn captured(&self) -> &Captured {
        &self.seen.log
    }

    fn end(&self) -> u64 {
        self.captured().written()
    }

    /// What is at `from`, at most so many bytes.
    async fn piece(&self, from: u64, bytes_max: u64) -> Result<Piece, Refusal> {
        let Captured { head, tail, .. } = self.captured();
        let tail_from = self.end() - tail.len() as u64;
        if from < head.len() as u64 {
            return Ok(Piece::Bytes(part(head, from, bytes_max)));
        }
        if from >= tail_from {
            return Ok(Piece::Bytes(part(tail, from - tail_from, bytes_max)));
        }
        let lost = |why: String| Ok(Piece::Lost { until: tail_from, why });
        let limit = Some(bytes_max.min(tail_from - from));
        let read = Read { path: self.file.clone(), offset: from, limit, pictures: Pictures::AsBytes };
        let outcome = match self.call.act(self.seen.info.session, Operation::Read(read).into()).await {
            Ok(outcome) => outcome.result,
            // Without a log there is no answer; whatever else is wrong only costs this part.
            Err(refusal) if refusal.failure.code == ErrorCode::AuditUnavailable => return Err(refusal),
            Err(refusal) => Err(refusal.failure),
        };
        match outcome.map(|completed| completed.result) {
            Ok(Some(OperationResult::Read { contents, .. })) if !contents.is_empty() => Ok(Piece::Bytes(contents)),
            Ok(_) => lost(format!("{} does not hold it", self.file)),
            Err(failure) => lost(failure.message),
        }
    }

    /// The output from a position on, at most so many bytes, which are at most so many characters.
    async fn text(&self, from: u64, chars: usize) -> Result<Shown, Refusal> {
        let (mut bytes, mut at) = (Vec::new(), from);
        while bytes.len() < chars && at < self.end() {
            match self.piece(at, (chars - bytes.len()) as u64).await? {
                Piece::Bytes(piece) if piece.is_empty() => break,
                Piece::Bytes(piece) => {
                    at += piece.len() as u64;
                    bytes.extend(piece);
                }
                Piece::Lost { until, why } => {
                    bytes.extend(gap(until - at, &why).into_bytes());
                    at = until;
                }
            }
        }
        // The beginning of a character whose rest comes next is left for the next call.
        let cut = if bytes.len() < 8 { 0 } else { unfinished(&bytes) };
        bytes.truncate(bytes.len() - cut);
        Ok(Shown { text: String::from_utf8_lossy(&bytes).into_owned(), until: at - cut as u64 })
    }

    /// The matching lines from a position on, until the client wants them no more.
    async fn lines(&self, from: u64, mut grep: Grep) -> Result<Shown, Refusal> {
        let cancelled = || Failure::new(ErrorCode::TaskCancelled, "It was cancelled.").into();
        tokio::select! {
            biased;
            () = self.call.request.cancel.cancelled() => return Err(cancelled()),
            looked = self.look(from, &mut grep) => looked?,
        }
        let (text, until) = grep.into_shown()?;
        Ok(Shown { text, until })
    }

    async fn look(&self, from: u64, grep: &mut Grep) -> Result<(), Refusal> {
        let mut at = from;
        while grep.wants_more() && at < self.end() && at - from < SCANNED_BYTES_MAX {
            match self.piece(at, CHUNK_BYTES).await? {
                Piece::Bytes(piece) if piece.is_empty() => break,
                Piece::Bytes(piece) => {
                    at += piece.len() as u64;
                    grep.take(piece).await?;
                }
                Piece::Lost { until, why } => {
                    grep.skip_to(until, gap(until - at, &why)).await?;
                    at = until;
                }
            }
        }
        if at >= self.end() && self.seen.info.phase != TaskPhase::Running {
            grep.finish().await?;
        }
        Ok(())
    }
}

/// The file in which the worker keeps a task's whole output.
fn file_of(task: TaskId) -> WorkspacePath {
    WorkspacePath::parse(&format!(".codegen/output/{task}.log")).expect("an id is a name")
}

fn part(bytes: &[u8], from: u64, bytes_max: u64) -> Vec<u8> {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let len = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(bytes.len() - from);
    bytes[from..from + len].to_vec()
}

fn gap(bytes: u64, why: &str) -> String {
    format!("\n[… {bytes} bytes are not kept: {why} …]\n")
}

/// How many bytes at the end begin a character and need more to be one.
fn unfinished(bytes: &[u8]) -> usize {
    let begins = |count: &usize| {
        let end = &bytes[bytes.len() - count..];
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3.min(bytes.len())).find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        for at in [0, 1, 20_000, u64::MAX] {
            assert_eq!(position(&cursor_at(at)), Ok(at));
        }
        for wrong in ["", "c", "0", "cx", "c-1", "c00000000000000000", "C1", "c+1"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_character_is_not_cut() {
        assert_eq!(["a", "é", "漢"].map(|text| unfinished(text.as_bytes())), [0; 3]);
        assert_eq!(unfinished(&"漢".as_bytes()[..2]), 2);
        assert_eq!(unfinished(b"\xff\xff\xff"), 0);
    }
}
