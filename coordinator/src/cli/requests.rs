//! `coordinator requests`: what clients asked for and how it went, put together from the audit log.
//!
//! A request that became a task has two records; its client's name and trace stand in the first, its end in the second.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use codegen_audit::{EventKind, Outcome, Record, records};
use codegen_types::{LogSeq, SessionId};
use serde_json::{Value, json};

use super::audit::text::cut;
use super::audit::{Damage, FOLLOW_INTERVAL, complain, keep_newest, parse_time};

/// Which requests to show.
#[derive(Debug, Default, Args)]
pub(super) struct RequestsArgs {
    /// Of this client program, as it names itself
    #[arg(long)]
    client: Option<String>,

    /// Of this principal
    #[arg(long)]
    principal: Option<String>,

    /// Of this tool
    #[arg(long)]
    tool: Option<String>,

    /// In this session
    #[arg(long)]
    session: Option<SessionId>,

    /// That ended so: ok, failed, refused, unknown
    #[arg(long)]
    status: Option<Outcome>,

    /// That took longer, such as 500ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    slower_than: Option<Duration>,

    /// That ended at or after this time: RFC 3339, or how long ago (`2h`, `30m`)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<jiff::Timestamp>,

    /// Show only the newest so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Go on showing requests as they end
    #[arg(short, long)]
    follow: bool,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Carries the command out on the log in `audit_dir`.
pub(super) fn run(args: &RequestsArgs, audit_dir: &Path) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = show(audit_dir, args, &mut out).and_then(|code| out.flush().map(|()| code));
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn show(dir: &Path, args: &RequestsArgs, out: &mut impl Write) -> io::Result<u8> {
    let mut reader = records(dir, None);
    let (mut damage, mut joined, mut newest) = (Damage::default(), Joined::default(), VecDeque::new());
    let mut table = Table { json: args.json, has_heading: false };
    for record in reader.by_ref().filter_map(|read| damage.pass(read)) {
        let Some(request) = joined.ended(record).filter(|request| args.wants(request)) else { continue };
        match args.limit {
            Some(limit) => keep_newest(&mut newest, request, limit),
            None => table.row(&request, out)?,
        }
    }
    newest.iter().try_for_each(|request| table.row(request, out))?;
    if !args.follow {
        return Ok(damage.code());
    }
    loop {
        out.flush()?;
        for record in reader.by_ref().filter_map(|read| damage.pass(read)) {
            if let Some(request) = joined.ended(record).filter(|request| args.wants(request)) {
                table.row(&request, out)?;
            }
        }
        out.flush()?;
        std::thread::park_timeout(FOLLOW_INTERVAL);
    }
}

impl RequestsArgs {
    fn wants(&self, request: &Request) -> bool {
        let Request { record, asked } = request;
        let took = record.duration_ms.map(Duration::from_millis);
        let principal = record.principal.as_ref().map(|principal| principal.as_str());
        let tool = self.tool.as_deref();
        (self.client.is_none() || self.client == asked.client)
            && (self.principal.is_none() || self.principal.as_deref() == principal)
            && (tool.is_none() || tool == record.tool.as_deref() || tool == record.called_as.as_deref())
            && (self.session.is_none() || self.session == record.session)
            && (self.status.is_none() || self.status == record.outcome)
            && self.slower_than.is_none_or(|least| took.is_some_and(|took| took > least))
            && self.since.is_none_or(|since| record.ts >= since)
    }
}

/// A request that has ended.
struct Request {
    /// The record of its end.
    record: Record,
    asked: Asked,
}

/// What only the record of an attempt says.
#[derive(Default)]
struct Asked {
    client: Option<String>,
    trace: Option<String>,
}

impl Asked {
    fn of(record: &Record) -> Self {
        let client = record.detail.as_ref().and_then(|detail| detail.get("client")?.as_str());
        Self { client: client.map(str::to_owned), trace: record.trace.clone() }
    }
}

/// The attempts whose end was not read yet.
#[derive(Default)]
struct Joined {
    attempts: HashMap<LogSeq, Asked>,
}

impl Joined {
    /// The request whose end this record is, if it is one.
    fn ended(&mut self, record: Record) -> Option<Request> {
        match record.kind {
            EventKind::TaskAttempt => {
                self.attempts.insert(record.seq, Asked::of(&record));
                None
            }
            EventKind::TaskOutcome | EventKind::TaskUnknown => {
                let asked = record.cites.and_then(|seq| self.attempts.remove(&seq)).unwrap_or_default();
                Some(Request { record, asked })
            }
            EventKind::LogWithdrawn => {
                record.cites.and_then(|seq| self.attempts.remove(&seq));
                None
            }
            EventKind::CallServed | EventKind::CallRefused => {
                let asked = Asked::of(&record);
                Some(Request { record, asked })
            }
            _ => None,
        }
    }
}

/// Requests as aligned columns under a heading, or as JSON.
struct Table {
    json: bool,
    has_heading: bool,
}

impl Table {
    fn row(&mut self, request: &Request, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            return writeln!(out, "{}", super::json::line(&request.to_json()));
        }
        let Request { record, asked } = request;
        if !self.has_heading {
            self.has_heading = true;
            writeln!(
                out,
                "{:<23}  {:<16}  {:<16}  {:<14}  {:<12}  {:<8}  {:>9}  CODE",
                "ENDED (UTC)", "CLIENT", "PRINCIPAL", "TOOL", "SESSION", "STATUS", "TOOK"
            )?;
        }
        let row = format!(
            "{}  {:<16}  {:<16}  {:<14}  {:<12}  {:<8}  {:>9}  {}",
            record.ts.strftime("%Y-%m-%d %H:%M:%S%.3f"),
            cut(asked.client.as_deref().unwrap_or_default(), 16),
            cut(record.principal.as_ref().map_or("", |principal| principal.as_str()), 16),
            cut(record.tool.as_deref().unwrap_or_default(), 14),
            record.session.map(|id| id.to_string().chars().take(12).collect::<String>()).unwrap_or_default(),
            record.outcome.map_or("", Outcome::as_str),
            record.duration_ms.map(|ms| format!("{ms} ms")).unwrap_or_default(),
            record.code.map_or("", |code| code.as_str()),
        );
        writeln!(out, "{}", row.trim_end())
    }
}

impl Request {
    fn to_json(&self) -> Value {
        let Self { record, asked } = self;
        json!({
            "ended": record.ts,
            "client": asked.client,
            "principal": record.principal,
            "tool": record.tool,
            "session": record.session,
            "task": record.task,
            "status": record.outcome,
            "code": record.code,
            "duration_ms": record.duration_ms,
            "trace": asked.trace,
            "audit_seq": record.seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use codegen_audit::{Audit, Entry, Options};
    use codegen_types::{ErrorCode, TaskId};

    use super::*;

    async fn log(dir: &Path) {
        let (audit, _) = Audit::open(Options::new(dir)).await.unwrap();
        let task = Some(TaskId::mint());
        let tool = |name: &str| Some(name.to_owned());
        let client = |name: &str| Some(json!({"client": name}));
        let attempt = Entry { kind: EventKind::TaskAttempt, task, tool: tool("run_python"), ..Entry::default() };
        let attempt = Entry { trace: Some("00-a-b-01".to_owned()), detail: client("slow\u{1b}[2J"), ..attempt };
        let cites = Some(audit.append(attempt).await.unwrap());
        let refused = Entry { kind: EventKind::CallRefused, tool: tool("fs_read"), ..Entry::default() };
        let refused = Entry { outcome: Some(Outcome::Refused), code: Some(ErrorCode::PathViolation), ..refused };
        audit.append(Entry { duration_ms: Some(1), detail: client("quick"), ..refused }).await.unwrap();
        let ended = Entry { kind: EventKind::TaskOutcome, task, cites, tool: tool("run_python"), ..Entry::default() };
        let ended = Entry { outcome: Some(Outcome::Ok), duration_ms: Some(900), ..ended };
        audit.append(ended).await.unwrap();
        audit.close().await;
    }

    fn shown(dir: &Path, args: &RequestsArgs) -> String {
        let mut out = Vec::new();
        assert_eq!(show(dir, args, &mut out).unwrap(), 0);
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn a_task_is_one_request_with_the_client_of_its_attempt_and_its_own_end() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path()).await;
        let text = shown(dir.path(), &RequestsArgs { json: true, ..RequestsArgs::default() });
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert_eq!((&rows[0]["client"], &rows[0]["code"]), (&json!("quick"), &json!("PATH_VIOLATION")));
        assert_eq!((&rows[1]["status"], &rows[1]["duration_ms"]), (&json!("ok"), &json!(900)));
        assert_eq!((&rows[1]["client"], &rows[1]["trace"]), (&json!("slow\u{1b}[2J"), &json!("00-a-b-01")));
        let table = shown(dir.path(), &RequestsArgs::default());
        assert!(table.lines().count() == 3 && !table.contains('\u{1b}'), "{table}");
    }

    #[tokio::test]
    async fn requests_are_chosen_by_everything_that_is_given() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path()).await;
        let text = |text: &str| Some(text.to_owned());
        let none = RequestsArgs { json: true, ..RequestsArgs::default() };
        for (args, tool) in [
            (RequestsArgs { client: text("quick"), json: true, ..RequestsArgs::default() }, Some("fs_read")),
            (RequestsArgs { tool: text("run_python"), json: true, ..RequestsArgs::default() }, Some("run_python")),
            (RequestsArgs { status: Some(Outcome::Refused), json: true, ..RequestsArgs::default() }, Some("fs_read")),
            (RequestsArgs { slower_than: Some(Duration::from_millis(500)), ..none }, Some("run_python")),
            (RequestsArgs { limit: Some(1), json: true, ..RequestsArgs::default() }, Some("run_python")),
            (RequestsArgs { session: Some(SessionId::mint()), json: true, ..RequestsArgs::default() }, None),
            (RequestsArgs { client: text("quick"), tool: text("run_python"), ..RequestsArgs::default() }, None),
        ] {
            let found = shown(dir.path(), &args);
            let tools: Vec<Value> =
                found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["tool"].clone()).collect();
            assert_eq!(tools, tool.map(Value::from).into_iter().collect::<Vec<_>>(), "{args:?}");
        }
    }
}
