//! `coordinator audit`: reading, verifying and repairing the log, also without a server.

pub(super) mod text;

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use codegen_audit::{
    EventKind, Outcome, Query, ReadError, Record, Verdict, VerifyOptions, for_terminal, json_for_terminal,
    last_segment_start, latest_note, records, repair, verify_with,
};
use codegen_types::{LogSeq, SessionId, TaskId};

use self::text::{Form, Table, describe};
use super::json;

/// Something failed that is no verdict.
const FAILED: u8 = 1;
/// A record or checkpoint is not what was written.
const TAMPERED: u8 = 10;
/// Records that a checkpoint covers are missing.
const CUT: u8 = 11;
/// An unfinished record at the end.
const TORN: u8 = 12;
/// The log, a key or a checkpoint cannot be read.
const UNREADABLE: u8 = 13;
/// How often a followed log is looked at.
pub(super) const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// Read, verify and repair the audit log.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Show the last records.
    Tail {
        /// Go on showing records as they are written.
        #[arg(short, long)]
        follow: bool,
        /// How many records to begin with.
        #[arg(short = 'n', long = "lines", default_value_t = 20, value_name = "N")]
        count: usize,
        /// Print the raw records, one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show the records that fit everything given, oldest first.
    Query(QueryArgs),
    /// Show one record, field by field.
    Show {
        /// Its number.
        seq: u64,
        /// Print the raw record.
        #[arg(long)]
        json: bool,
    },
    /// Verify every record, link and checkpoint, offline.
    #[command(
        after_help = "Exit codes: 0 whole, 10 tampered, 11 cut after the checkpoint, 12 torn tail, 13 unreadable, 2 usage."
    )]
    Verify {
        /// A checkpoint that was stored elsewhere (see `audit checkpoint`).
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The public key, if not the one beside the log.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print the verdict as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the latest signed checkpoint, to be stored elsewhere.
    Checkpoint,
    /// Set what is damaged aside, so that the server starts again. Deletes nothing.
    Repair {
        /// Print what was done as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which records to show.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// Written at or after this time: RFC 3339, or how long ago (`2h`, `30m`).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<jiff::Timestamp>,
    /// Written before this time: RFC 3339, or how long ago.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<jiff::Timestamp>,
    /// Asked for by this principal.
    #[arg(long)]
    principal: Option<String>,
    /// Of this session.
    #[arg(long)]
    session: Option<SessionId>,
    /// Of this task.
    #[arg(long)]
    task: Option<TaskId>,
    /// Of this tool.
    #[arg(long)]
    tool: Option<String>,
    /// That ended so: ok, failed, refused, unknown.
    #[arg(long)]
    outcome: Option<Outcome>,
    /// Of this type, such as `task.attempt`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<EventKind>,
    /// About this path or something below it.
    #[arg(long)]
    path: Option<String>,
    /// Show only the newest so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print the raw records, one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Carries a command out on the log in `audit_dir`.
pub fn run(command: &AuditCommand, audit_dir: &Path) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        AuditCommand::Tail { follow, count, json } => tail(audit_dir, *follow, *count, Form::of(*json), &mut out),
        AuditCommand::Query(args) => query(audit_dir, args, &mut out),
        AuditCommand::Show { seq, json } => show(audit_dir, LogSeq(*seq), Form::of(*json), &mut out),
        AuditCommand::Verify { checkpoint, key, json } => {
            let options = VerifyOptions { checkpoint: checkpoint.clone(), key: key.clone() };
            verify(audit_dir, &options, Form::of(*json), &mut out)
        }
        AuditCommand::Checkpoint => checkpoint(audit_dir, &mut out),
        AuditCommand::Repair { json } => run_repair(audit_dir, Form::of(*json), &mut out),
    };
    let done = done.and_then(|code| out.flush().map(|()| code));
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn tail(dir: &Path, follow: bool, count: usize, form: Form, out: &mut impl Write) -> io::Result<u8> {
    let last_segment = last_segment_start(dir).map_err(io::Error::other)?;
    // A segment may hold fewer records than are wanted, so reading begins that many records before it.
    let from = last_segment.map(|first| LogSeq(first.0.saturating_sub(count as u64)));
    let mut reader = records(dir, from);
    let mut damage = Damage::default();
    let mut last = VecDeque::with_capacity(count.min(4_096));
    for record in reader.by_ref().filter_map(|read| damage.pass(read)) {
        keep_newest(&mut last, record, count);
    }
    let mut table = Table::new(form);
    last.iter().try_for_each(|record| table.row(record, out))?;
    if !follow {
        return Ok(damage.code());
    }
    loop {
        out.flush()?;
        for record in reader.by_ref().filter_map(|read| damage.pass(read)) {
            table.row(&record, out)?;
        }
        out.flush()?;
        std::thread::park_timeout(FOLLOW_INTERVAL);
    }
}

fn query(dir: &Path, args: &QueryArgs, out: &mut impl Write) -> io::Result<u8> {
    let query = Query {
        since: args.since,
        until: args.until,
        principal: args.principal.clone(),
        session: args.session,
        task: args.task,
        tool: args.tool.clone(),
        outcome: args.outcome,
        kind: args.kind,
        path: args.path.clone(),
    };
    let mut table = Table::new(Form::of(args.json));
    let mut damage = Damage::default();
    let mut newest = VecDeque::new();
    for record in records(dir, None).filter_map(|read| damage.pass(read)).filter(|record| query.matches(record)) {
        match args.limit {
            Some(limit) => keep_newest(&mut newest, record, limit),
            None => table.row(&record, out)?,
        }
    }
    newest.iter().try_for_each(|record| table.row(record, out))?;
    Ok(damage.code())
}

pub(super) fn keep_newest<T>(newest: &mut VecDeque<T>, one: T, count: usize) {
    newest.push_back(one);
    if newest.len() > count {
        newest.pop_front();
    }
}

fn show(dir: &Path, seq: LogSeq, form: Form, out: &mut impl Write) -> io::Result<u8> {
    let mut damage = Damage::default();
    let found = records(dir, Some(seq)).filter_map(|read| damage.pass(read)).next();
    let Some(record) = found.filter(|record| record.seq == seq) else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no record {seq} in `{}`", dir.display()),
        ));
    };
    if form == Form::Json {
        writeln!(out, "{}", json_for_terminal(&record.line))?;
        return Ok(damage.code());
    }
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&record.line)?;
    for (name, value) in &fields {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Object(_) | serde_json::Value::Array(_) => serde_json::to_string_pretty(value)?,
            other => other.to_string(),
        };
        let mut lines = text.lines();
        writeln!(out, "{name:<12} {}", for_terminal(lines.next().unwrap_or_default()))?;
        for line in lines {
            writeln!(out, "{:<12} {}", "", for_terminal(line))?;
        }
    }
    Ok(damage.code())
}

fn verify(dir: &Path, options: &VerifyOptions, form: Form, out: &mut impl Write) -> io::Result<u8> {
    let found = verify_with(dir, options);
    if form == Form::Json {
        writeln!(out, "{}", json::line(&found))?;
    } else {
        describe(&found, out)?;
    }
    Ok(match found.verdict {
        Verdict::Whole => 0,
        Verdict::Tampered { .. } => TAMPERED,
        Verdict::CutAfterCheckpoint { .. } => CUT,
        Verdict::TornTail { .. } => TORN,
        Verdict::Unreadable { .. } => UNREADABLE,
    })
}

fn checkpoint(dir: &Path, out: &mut impl Write) -> io::Result<u8> {
    match latest_note(dir)? {
        Some(note) => out.write_all(note.as_bytes()).map(|()| 0),
        None => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no checkpoint yet in `{}`", dir.display())))
        }
    }
}

fn run_repair(dir: &Path, form: Form, out: &mut impl Write) -> io::Result<u8> {
    let done = repair(dir).map_err(io::Error::other)?;
    if form == Form::Json {
        writeln!(out, "{}", json::line(&done))?;
        return Ok(0);
    }
    if !done.changed_anything() {
        writeln!(out, "Nothing to repair: the log is good through record {}.", done.kept_through)?;
        return Ok(0);
    }
    if let Some((at, fault)) = &done.damage {
        writeln!(
            out,
            "Damaged at record {} ({}, line {}, byte {}): {}",
            at.seq,
            for_terminal(&at.file),
            at.line,
            at.offset,
            for_terminal(fault)
        )?;
    }
    for path in &done.set_aside {
        writeln!(out, "Set aside: {}", for_terminal(&dir.join(path).display().to_string()))?;
    }
    if done.new_key {
        writeln!(out, "The signing key was lost; a new one was made. Store its public half elsewhere.")?;
    }
    writeln!(out, "The log goes on behind record {}; its next record will say what was done.", done.kept_through)?;
    Ok(0)
}

/// Tells of records that cannot be read, and remembers that there were some.
#[derive(Default)]
pub(super) struct Damage {
    seen: bool,
}

impl Damage {
    pub(super) fn pass(&mut self, read: Result<Record, ReadError>) -> Option<Record> {
        read.inspect_err(|error| {
            self.seen = true;
            complain(error);
        })
        .ok()
    }

    pub(super) const fn code(&self) -> u8 {
        if self.seen { UNREADABLE } else { 0 }
    }
}

pub(super) fn complain(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    // There is nowhere left to say that standard error cannot be written.
    let _ = writeln!(io::stderr(), "coordinator audit: {}", for_terminal(&text));
    ExitCode::from(FAILED)
}

pub(super) fn parse_time(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "expected a time like 2026-01-31T12:00:00Z, or how long ago, like 2h or 30m".to_owned())?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use codegen_audit::{Audit, Entry, Options};

    use super::*;

    async fn log_of(dir: &Path, entries: Vec<Entry>) {
        let (audit, _) = Audit::open(Options::new(dir)).await.unwrap();
        for entry in entries {
            audit.append(entry).await.unwrap();
        }
        audit.close().await;
    }

    fn served(tool: &str) -> Entry {
        Entry {
            kind: EventKind::CallServed,
            tool: Some(tool.to_owned()),
            outcome: Some(Outcome::Ok),
            ..Entry::default()
        }
    }

    #[tokio::test]
    async fn text_has_one_harmless_aligned_line_for_each_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = "a\n\u{1b}[2Jb\u{202e}c";
        log_of(dir.path(), vec![Entry { path: Some(path.into()), ..served("echo") }, served("session_list")]).await;
        let mut out = Vec::new();
        assert_eq!(tail(dir.path(), false, 3, Form::Text, &mut out).unwrap(), 0);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.contains("\\u{1b}[2J"), "{text}");
        let columns: Vec<_> = text.lines().map(|line| line.chars().nth(9)).collect();
        assert_eq!(columns, [Some('T'), Some('2'), Some('2'), Some('2')]);
    }

    #[tokio::test]
    async fn a_query_shows_what_fits_and_the_newest_under_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), vec![served("echo"), served("session_list"), served("echo")]).await;
        let args = QueryArgs {
            since: Some(parse_time("1h").unwrap()),
            until: None,
            principal: None,
            session: None,
            task: None,
            tool: Some("echo".to_owned()),
            outcome: Some(Outcome::Ok),
            kind: None,
            path: None,
            limit: Some(1),
            json: true,
        };
        let mut out = Vec::new();
        query(dir.path(), &args, &mut out).unwrap();
        let shown = Record::parse(String::from_utf8(out).unwrap().trim_end()).unwrap();
        assert_eq!(shown.seq, LogSeq(4));
    }

    #[tokio::test]
    async fn verdicts_have_exit_codes_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let check = |checkpoint: Option<PathBuf>| {
            verify(dir.path(), &VerifyOptions { checkpoint, key: None }, Form::Text, &mut Vec::new()).unwrap()
        };
        assert_eq!(check(None), UNREADABLE);
        log_of(dir.path(), vec![served("echo")]).await;
        assert_eq!(check(None), 0);
        let stored = tempfile::NamedTempFile::new().unwrap();
        checkpoint(dir.path(), &mut stored.as_file()).unwrap();
        let segment = dir.path().join("segment-00000000000000000001.jsonl");
        let whole = std::fs::read(&segment).unwrap();
        std::fs::write(&segment, [&whole[..], b"{\"v\":1"].concat()).unwrap();
        assert_eq!(check(None), TORN);
        let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        std::fs::write(&segment, &whole[..last_line]).unwrap();
        std::fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();
        assert_eq!(check(None), 0, "what no checkpoint covers can be cut off unseen");
        assert_eq!(check(Some(stored.path().to_owned())), CUT);
        let mut changed = whole.clone();
        changed[30] ^= 1;
        std::fs::write(&segment, changed).unwrap();
        assert_eq!(check(None), TAMPERED);
    }

    #[tokio::test]
    async fn one_record_is_shown_field_by_field() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), vec![served("echo")]).await;
        let mut out = Vec::new();
        show(dir.path(), LogSeq(2), Form::Text, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("\ntool         echo\n"));
        assert!(show(dir.path(), LogSeq(99), Form::Text, &mut Vec::new()).is_err());
    }
}
