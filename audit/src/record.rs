//! A record: one line of the log, as it is written and as it is read.

use std::io::Write as _;

use codegen_types::{ErrorCode, IsolationLevel, Lease, LogSeq, Principal, SessionId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entry::{Entry, EventKind, Outcome};
use crate::escape;
use crate::hash::Hash;
use crate::redact::{self, Redactor};

/// The version of the format, the field `v`.
pub const FORMAT_VERSION: u32 = 1;
/// The longest line, without its newline, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// What is left for the event itself, beside place, time and chain.
const EVENT_BYTES_MAX: usize = RECORD_BYTES_MAX - 1_024;

/// A record read back.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Record {
    /// The version of the format.
    pub v: u32,
    /// Which log this is.
    pub log_id: String,
    /// Its place, counted from 1.
    pub seq: LogSeq,
    /// When it was written, by the wall clock.
    pub ts: jiff::Timestamp,
    /// When it was written, in nanoseconds since the machine booted (`CLOCK_BOOTTIME`).
    pub mono_ns: u64,
    /// Which boot that was.
    pub boot_id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Who asked.
    pub principal: Option<Principal>,
    /// In which session.
    pub session: Option<SessionId>,
    /// Which task.
    pub task: Option<TaskId>,
    /// Who held the session.
    pub lease: Option<Lease>,
    /// How well the session was isolated.
    pub level: Option<IsolationLevel>,
    /// The tool's listed name.
    pub tool: Option<String>,
    /// The name by which the client called it, when it was another one.
    pub called_as: Option<String>,
    /// The call's arguments, long and secret values shortened.
    pub args: Option<Value>,
    /// The path it was about.
    pub path: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    pub code: Option<ErrorCode>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// How many bytes it read or wrote.
    pub bytes: Option<u64>,
    /// The client's trace id.
    pub trace: Option<String>,
    /// The earlier record that this one is about.
    pub cites: Option<LogSeq>,
    /// What else there is to say.
    pub detail: Option<Value>,
    /// The hash of the record before.
    pub prev: Hash,
    /// The hash of this record.
    pub hash: Hash,
    /// The line itself, without its newline.
    #[serde(skip)]
    pub line: String,
}

/// The event's part of a line, in the order of the format.
#[derive(Serialize)]
struct EventFields<'a> {
    #[serde(rename = "type")]
    kind: EventKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<&'a Lease>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<IsolationLevel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    called_as: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cites: Option<LogSeq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
}

/// An event in its final bytes (`{"type":…}`), bounded, made by the caller so that the writer has little left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedEvent {
    json: String,
    /// It is about the record right before it, whose number only the writer knows.
    cites_preceding: bool,
}

impl EncodedEvent {
    pub(crate) fn new(entry: &Entry, redactor: &Redactor) -> Self {
        let short = |text: &Option<String>| text.as_deref().map(|text| redact::clip(text, redact::TEXT_BYTES_MAX));
        let mut fields = EventFields {
            kind: entry.kind,
            principal: entry.principal.as_ref().map(redact::clip_principal),
            session: entry.session,
            task: entry.task,
            lease: entry.lease.as_ref(),
            level: entry.level,
            tool: short(&entry.tool),
            called_as: short(&entry.called_as),
            args: entry.args.as_ref().map(|args| redactor.value(args)),
            path: entry.path.as_deref().map(|path| redact::clip(path, redact::PATH_BYTES_MAX)),
            outcome: entry.outcome,
            code: entry.code,
            duration_ms: entry.duration_ms,
            bytes: entry.bytes,
            trace: short(&entry.trace),
            cites: entry.cites,
            detail: entry.detail.as_ref().map(|detail| redactor.value(detail)),
        };
        let mut json = escape::to_json(&fields);
        if json.len() > EVENT_BYTES_MAX {
            fields.args = fields.args.as_ref().map(|args| redact::digest_of(&escape::to_json(args)));
            json = escape::to_json(&fields);
        }
        if json.len() > EVENT_BYTES_MAX {
            fields.detail = fields.detail.as_ref().map(|detail| redact::digest_of(&escape::to_json(detail)));
            json = escape::to_json(&fields);
        }
        debug_assert!(json.len() <= EVENT_BYTES_MAX, "every other field is clipped");
        Self { json, cites_preceding: false }
    }

    /// The same event, said to be about the record right before it.
    pub(crate) fn citing_preceding(self) -> Self {
        Self { cites_preceding: true, ..self }
    }

    pub(crate) const fn len(&self) -> usize {
        self.json.len()
    }
}

/// Where and when a record stands: what the writer adds to an event.
pub(crate) struct Place<'a> {
    pub(crate) log_id: &'a str,
    pub(crate) seq: LogSeq,
    pub(crate) boot_id: &'a str,
    pub(crate) ts: jiff::Timestamp,
    pub(crate) mono_ns: u64,
}

/// Adds the record's line to `out`, without its newline, and gives its hash.
pub(crate) fn write_line(out: &mut Vec<u8>, place: &Place<'_>, event: &EncodedEvent, prev: &Hash) -> Hash {
    let start = out.len();
    let fields = &event.json[1..event.json.len() - 1];
    let Place { log_id, seq, boot_id, ts, mono_ns } = place;
    let mut write = |part: std::fmt::Arguments<'_>| out.write_fmt(part).expect("a vector takes all");
    write(format_args!(
        r#"{{"v":{FORMAT_VERSION},"log_id":"{log_id}","seq":{seq},"ts":"{ts:.6}","mono_ns":{mono_ns},"boot_id":"{boot_id}",{fields}"#
    ));
    if event.cites_preceding {
        write(format_args!(r#","cites":{}"#, seq.0 - 1));
    }
    write(format_args!(r#","prev":"{prev}""#));
    let hash = Hash::of_record(prev, &out[start..]);
    out.write_fmt(format_args!(r#","hash":"{hash}"}}"#)).expect("a vector takes all");
    hash
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It is longer than any record.
    #[error("the line is longer than {RECORD_BYTES_MAX} bytes")]
    TooLong,
    /// It holds a NUL byte, or ends without a newline, where whole records should be.
    #[error("the line is not whole")]
    NotWhole,
    /// It is no record.
    #[error("the line is no record: {0}")]
    NotARecord(String),
    /// It does not end in a hash as the format has it.
    #[error("the line does not end in its hash")]
    NoHash,
    /// It is of a format that this version does not know.
    #[error("the record is of format {0}, this program reads format {FORMAT_VERSION}")]
    Version(u32),
    /// It belongs to another log.
    #[error("the record belongs to another log")]
    OtherLog,
    /// Its number is not the next one.
    #[error("record {expected} should be here, and this is record {found}")]
    Seq {
        /// The number that should be here.
        expected: LogSeq,
        /// The number that is here.
        found: LogSeq,
    },
    /// It does not follow the record before it.
    #[error("the record does not follow the one before it: `prev` is another record's hash")]
    Prev,
    /// Its bytes are not those that were hashed.
    #[error("the record's bytes do not match its hash")]
    Hash,
}

/// The fields by which a line is checked; the others are only parsed.
#[derive(Deserialize)]
struct Links<'a> {
    v: u32,
    #[serde(borrow)]
    log_id: std::borrow::Cow<'a, str>,
    seq: LogSeq,
    prev: Hash,
    hash: Hash,
}

/// Checks one line (without its newline) against the place where it stands, and gives its hash.
pub(crate) fn check_line(line: &[u8], log_id: Option<&str>, seq: LogSeq, prev: &Hash) -> Result<Hash, BadLine> {
    if line.len() > RECORD_BYTES_MAX {
        return Err(BadLine::TooLong);
    }
    let links: Links<'_> = serde_json::from_slice(line).map_err(|error| BadLine::NotARecord(error.to_string()))?;
    if links.v != FORMAT_VERSION {
        return Err(BadLine::Version(links.v));
    }
    if log_id.is_some_and(|log_id| log_id != links.log_id) {
        return Err(BadLine::OtherLog);
    }
    if links.seq != seq {
        return Err(BadLine::Seq { expected: seq, found: links.seq });
    }
    if links.prev != *prev {
        return Err(BadLine::Prev);
    }
    let suffix = format!(r#","hash":"{}"}}"#, links.hash);
    let before_hash = line.strip_suffix(suffix.as_bytes()).ok_or(BadLine::NoHash)?;
    if Hash::of_record(prev, before_hash) != links.hash {
        return Err(BadLine::Hash);
    }
    Ok(links.hash)
}

impl Record {
    /// Reads a line, without its newline, and without checking its place in the chain.
    ///
    /// # Errors
    ///
    /// [`BadLine::NotARecord`] with what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, BadLine> {
        let mut record: Self = serde_json::from_str(line).map_err(|error| BadLine::NotARecord(error.to_string()))?;
        line.clone_into(&mut record.line);
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line_of(entry: &Entry) -> String {
        let event = EncodedEvent::new(entry, &Redactor::new([1; 32]));
        let place =
            Place { log_id: "log_1", seq: LogSeq(1), boot_id: "b", ts: jiff::Timestamp::UNIX_EPOCH, mono_ns: 5 };
        let mut out = Vec::new();
        write_line(&mut out, &place, &event, &Hash::GENESIS);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_fields_stand_in_the_order_of_the_format() {
        let entry = Entry {
            kind: EventKind::TaskOutcome,
            principal: Some(Principal::os_user("ann")),
            session: Some(SessionId::mint()),
            task: Some(TaskId::mint()),
            lease: Some(Lease {
                worker: "embedded".parse().unwrap(),
                incarnation: codegen_types::Incarnation::mint(),
                epoch: codegen_types::Epoch(3),
            }),
            level: Some(IsolationLevel::Full),
            tool: Some("run_python".into()),
            called_as: Some("run.python".into()),
            args: Some(json!({"code": "1"})),
            path: Some("a/b".into()),
            outcome: Some(Outcome::Failed),
            code: Some(ErrorCode::TaskTimeout),
            duration_ms: Some(7),
            bytes: Some(8),
            trace: Some("t".into()),
            cites: Some(LogSeq(9)),
            detail: Some(json!({"a": 1})),
        };
        let line = line_of(&entry);
        let fields: serde_json::Map<String, Value> = serde_json::from_str(&line).unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let expected = "v log_id seq ts mono_ns boot_id type principal session task lease level tool called_as args path \
                        outcome code duration_ms bytes trace cites detail prev hash";
        assert_eq!(names.join(" "), expected);
        let record = Record::parse(&line).unwrap();
        assert_eq!((record.kind, record.cites, record.lease), (entry.kind, entry.cites, entry.lease));
        assert_eq!(check_line(line.as_bytes(), Some("log_1"), LogSeq(1), &Hash::GENESIS), Ok(record.hash));
    }

    #[test]
    fn no_value_can_forge_a_line_or_outgrow_the_bound() {
        let nasty = "\n{\"v\":1},\"hash\":\"\u{202e}\u{0}".repeat(3000);
        let entry = Entry {
            args: Some(json!(
                (0..3000).map(|n| (format!("{n}\n"), json!("\u{1}".repeat(256)))).collect::<serde_json::Map<_, _>>()
            )),
            detail: Some(json!(vec!["\u{1}".repeat(256); 3000])),
            tool: Some(nasty.clone()),
            called_as: Some(nasty.clone()),
            trace: Some(nasty.clone()),
            path: Some(nasty),
            ..Entry::default()
        };
        let line = line_of(&entry);
        assert!(line.len() <= RECORD_BYTES_MAX, "{}", line.len());
        assert!(!line.contains(['\n', '\0', '\u{202e}']));
        assert!(check_line(line.as_bytes(), None, LogSeq(1), &Hash::GENESIS).is_ok());
    }
}
