//! A file on its way to a client, piece by piece. Every piece is a read of its own, recorded, of one and the same version.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use codegen_types::event::FileStat;
use codegen_types::{ErrorCode, OperationResult};
use futures::stream;
use serde_json::json;

use super::api::{Api, nothing_given};
use super::asked::Asked;
use super::files::FOREIGN;
use crate::http::error::ApiError;
use crate::policy::Whole;
use crate::tools::Raw;

/// Bytes that are read at once.
const PIECE_BYTES: u64 = 4 << 20;
/// How long the next piece is waited for where the caller's rate is used up just then.
const RATE_PATIENCE: Duration = Duration::from_secs(10);

/// A file to download.
#[derive(Clone)]
pub(super) struct Download {
    pub(super) api: Api,
    pub(super) asked: Asked,
    pub(super) session: String,
    pub(super) path: String,
    /// Leave for all of it, once it was asked for.
    pub(super) leave: Option<Whole>,
}

/// A range of bytes as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// From the first byte to the last one, or to the end.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
}

/// What is wrong between two pieces.
#[derive(Debug, thiserror::Error)]
#[error("the file changed, or could not be read further")]
struct BrokeOff;

impl Download {
    /// The file, or the part that the headers ask for.
    ///
    /// # Errors
    /// Whatever reading it gives; `PRECONDITION_FAILED`; a range that is not there.
    pub(super) async fn answer(mut self, headers: &HeaderMap, head_only: bool) -> Result<Response, ApiError> {
        let range = headers.get(header::RANGE).and_then(|value| parse(value.to_str().ok()?));
        let (begin, limit) = match range {
            Some(Range::From(begin, last)) => (begin, last.map_or(PIECE_BYTES, |last| last - begin + 1)),
            Some(Range::Last(_)) => (0, 1),
            None => (0, PIECE_BYTES),
        };
        let limit = if head_only { 1 } else { limit.min(PIECE_BYTES) };
        self.ask_leave(range).await?;
        let (first, stat) = self.piece(begin, limit).await?;
        if let Some(response) = conditions(headers, &stat)? {
            return Ok(response);
        }
        let range = range.filter(|_| if_range(headers, &stat));
        let Some((from, to)) = within(range, stat.size) else { return Ok(unsatisfiable(&stat)) };
        // What was read already, when it is the beginning of what is wanted.
        let first = if begin == from && !head_only { first } else { Vec::new() };
        let mut response = self.stream(first.into(), from, to, &stat).into_response();
        let answered = response.headers_mut();
        answered.extend(FOREIGN);
        answered.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        answered.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        answered.insert(header::CONTENT_LENGTH, (to - from).into());
        tag(answered, &stat);
        if range.is_some() {
            let part = format!("bytes {from}-{}/{}", to.saturating_sub(1), stat.size);
            answered.extend(HeaderValue::try_from(part).ok().map(|part| (header::CONTENT_RANGE, part)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(response)
    }

    /// The entity tag of the file as it is now.
    ///
    /// # Errors
    /// Whatever reading it gives; `PRECONDITION_FAILED` when there is no such file.
    pub(super) async fn version(&self) -> Result<String, ApiError> {
        let none = || {
            let message = "there is no file whose version could be the one to write over";
            ApiError::new(StatusCode::PRECONDITION_FAILED, ErrorCode::PreconditionFailed, message)
        };
        match self.piece(0, 1).await {
            Ok((_, stat)) => stat.etag.ok_or_else(none),
            Err(error) if error.code() == ErrorCode::NotFound => Err(none()),
            Err(error) => Err(error),
        }
    }

    /// Asks for leave for all pieces together: whoever approves of a download approves of it whole.
    async fn ask_leave(&mut self, range: Option<Range>) -> Result<(), ApiError> {
        let mut args = json!({"session_id": self.session, "path": self.path});
        match range {
            Some(Range::From(begin, last)) => {
                args["offset"] = json!(begin);
                args["limit"] = json!(last.map(|last| last - begin + 1));
            }
            Some(Range::Last(count)) => args["last"] = json!(count),
            None => {}
        }
        self.leave = Some(self.api.leave_for(&self.asked, "fs_read", args).await?);
        Ok(())
    }

    /// One piece, and the file as it was then.
    async fn piece(&self, offset: u64, limit: u64) -> Result<(Vec<u8>, FileStat), ApiError> {
        let args = json!({
            "session_id": self.session, "path": self.path, "offset": offset, "limit": limit, "encoding": "base64",
        });
        let result = self.api.call_part(&self.asked, self.leave.clone(), "fs_read", args).await?;
        let Some(Raw::Outcome(outcome)) = result.raw else { return Err(nothing_given()) };
        match outcome.result.ok().and_then(|completed| completed.result) {
            Some(OperationResult::Read { contents, stat }) => Ok((contents, stat)),
            _ => Err(nothing_given()),
        }
    }

    /// The bytes from one place to another. A file that changes meanwhile breaks the answer off.
    fn stream(self, first: Bytes, from: u64, to: u64, stat: &FileStat) -> Body {
        let first = first.slice(..first.len().min(usize::try_from(to - from).unwrap_or(usize::MAX)));
        let etag = stat.etag.clone();
        Body::from_stream(stream::try_unfold((self, first, from), move |(this, ready, at)| {
            let etag = etag.clone();
            async move {
                if at >= to {
                    return Ok(None);
                }
                let piece =
                    if ready.is_empty() { this.next_piece(at, PIECE_BYTES.min(to - at), etag).await? } else { ready };
                let at = at + piece.len() as u64;
                Ok::<_, BrokeOff>(Some((piece, (this, Bytes::new(), at))))
            }
        }))
    }

    async fn next_piece(&self, offset: u64, limit: u64, etag: Option<String>) -> Result<Bytes, BrokeOff> {
        let deadline = tokio::time::Instant::now() + RATE_PATIENCE;
        loop {
            match self.piece(offset, limit).await {
                Ok((contents, stat)) if stat.etag == etag && !contents.is_empty() => return Ok(contents.into()),
                Err(error) if error.code() == ErrorCode::RateLimited && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(error.retry_after()).await;
                }
                Ok(_) | Err(_) => return Err(BrokeOff),
            }
        }
    }
}

/// Names the version of a file in an answer.
pub(super) fn tag(headers: &mut HeaderMap, stat: &FileStat) {
    let etag = stat.etag.as_ref().and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok());
    headers.extend(etag.map(|etag| (header::ETAG, etag)));
}

/// How entity tags are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag names no version.
    Strong,
    /// A weak tag names what a strong one does.
    Weak,
}

/// Whether a list of entity tags names this version.
fn names(list: &HeaderValue, stat: &FileStat, comparison: Comparison) -> bool {
    let text = list.to_str().unwrap_or_default();
    text.trim() == "*" || text.split(',').any(|tag| is_tag(tag, stat, comparison))
}

/// Whether an entity tag is this version's.
fn is_tag(tag: &str, stat: &FileStat, comparison: Comparison) -> bool {
    let tag = tag.trim();
    let opaque = match tag.strip_prefix("W/") {
        Some(_) if comparison == Comparison::Strong => return false,
        Some(weak) => weak,
        None => tag,
    };
    stat.etag.as_deref().is_some_and(|etag| etag == opaque.trim_matches('"'))
}

/// What conditions say before anything is sent.
fn conditions(headers: &HeaderMap, stat: &FileStat) -> Result<Option<Response>, ApiError> {
    if headers.get(header::IF_MATCH).is_some_and(|list| !names(list, stat, Comparison::Strong)) {
        let message = "the file is another version than If-Match names";
        return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, ErrorCode::PreconditionFailed, message));
    }
    if !headers.get(header::IF_NONE_MATCH).is_some_and(|list| names(list, stat, Comparison::Weak)) {
        return Ok(None);
    }
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    response.headers_mut().extend(FOREIGN.into_iter().filter(|(name, _)| name == header::CACHE_CONTROL));
    tag(response.headers_mut(), stat);
    Ok(Some(response))
}

/// Whether a range is still of use: without a condition, or with one that names this version.
fn if_range(headers: &HeaderMap, stat: &FileStat) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| is_tag(tag.to_str().unwrap_or_default(), stat, Comparison::Strong))
}

fn unsatisfiable(stat: &FileStat) -> Response {
    let message = format!("the file has {} bytes", stat.size);
    let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::InvalidArgument, message);
    let mut response = error.into_response();
    let size = HeaderValue::try_from(format!("bytes */{}", stat.size)).ok();
    response.headers_mut().extend(size.map(|size| (header::CONTENT_RANGE, size)));
    response
}

/// Reads `bytes=1-2`, `bytes=1-` and `bytes=-2`. Anything else, several ranges included, asks for the whole file.
fn parse(text: &str) -> Option<Range> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match (first, last) {
        ("", last) => number(last).map(Range::Last),
        (first, "") => Some(Range::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last && last < u64::MAX).then_some(Range::From(first, Some(last)))
        }
    }
}

/// Where the part that is asked for begins and ends, if the file has it.
fn within(range: Option<Range>, size: u64) -> Option<(u64, u64)> {
    match range {
        None => Some((0, size)),
        Some(Range::From(from, last)) if from < size => Some((from, last.map_or(size, |last| size.min(last + 1)))),
        Some(Range::Last(count)) if count > 0 && size > 0 => Some((size - size.min(count), size)),
        Some(Range::From(..) | Range::Last(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_what_the_file_has_of_it() {
        let of = |text: &str| within(parse(text), 10);
        for (text, part) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=2-5", Some((2, 6))),
            ("bytes=8-99", Some((8, 10))),
            ("bytes=3-", Some((3, 10))),
            ("bytes=-4", Some((6, 10))),
            ("bytes=-99", Some((0, 10))),
            ("bytes=10-", None),
            ("bytes=-0", None),
        ] {
            assert_eq!(of(text), part, "{text}");
        }
        for ignored in ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=", "bytes=+1-2", "bytes=-"] {
            assert!(matches!(parse(ignored), None | Some(Range::Last(0))) || of(ignored) == Some((0, 10)), "{ignored}");
        }
        assert_eq!(within(None, 0), Some((0, 0)));
        assert_eq!(within(parse("bytes=-1"), 0), None);
    }
}
