//! Who used how much, added up from the records of the log: there is no other account of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use codegen_audit::{EventKind, Outcome, ReadError, Record, first_record_of_segment_at, records};
use codegen_types::LogSeq;
use jiff::Timestamp;
use serde::Serialize;

use crate::session::Charge;
use crate::tools;

/// The most rows of one report. What belongs to further ones is added to the last, [`OTHERS`].
const ROWS_MAX: usize = 10_000;
/// The row of what has no row of its own.
const OTHERS: &str = "(others)";
/// The row of calls of tools that there are not, under whatever names clients invented.
const UNKNOWN_TOOL: &str = "(unknown)";
/// The most packages that a row names.
const PACKAGES_MAX: usize = 500;

/// What the rows of a report are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Principals.
    User,
    /// Tools.
    Tool,
    /// Days of UTC.
    Day,
}

/// Which calls are counted: those that ended in that time, of that principal.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Of this principal alone.
    pub principal: Option<String>,
}

/// Who used how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the rows are about.
    pub by: By,
    /// One row each, in the order of their names.
    pub rows: Vec<Row>,
    /// The last record of the log that was looked at; nothing came of those after it.
    pub through: LogSeq,
    /// Lines that are no records, and were passed over.
    pub damaged_lines: u64,
}

/// What one principal, tool or day used.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// Calls that ended, refused ones included.
    pub calls: u64,
    /// Those that were carried out and failed, or of which the end is not known.
    pub failures: u64,
    /// Those that were not carried out.
    pub refusals: u64,
    /// Processor time of all programs, in milliseconds.
    pub cpu_ms: u64,
    /// Peak resident memory of the largest process, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of code, input and file contents that came in.
    pub bytes_in: u64,
    /// Bytes of output and file contents that went out.
    pub bytes_out: u64,
    /// Wall time of all calls, in milliseconds.
    pub wall_ms: u64,
    /// Packages that were installed, with their versions.
    pub packages: BTreeSet<String>,
}

/// Adds up the log in `dir`, which may be that of a running server or an archive.
///
/// # Errors
/// A file of the log cannot be read.
pub fn report(dir: &Path, by: By, wanted: &Wanted) -> Result<Report, ReadError> {
    let from = match wanted.since {
        Some(since) => first_record_of_segment_at(dir, since)?,
        None => None,
    };
    let (mut rows, mut through, mut damaged_lines) = (BTreeMap::new(), LogSeq::default(), 0);
    for record in records(dir, from) {
        let record = match record {
            Ok(record) => record,
            Err(ReadError::Bad { .. }) => {
                damaged_lines += 1;
                continue;
            }
            Err(error @ ReadError::Io { .. }) => return Err(error),
        };
        through = record.seq;
        if wanted.has(&record)
            && let Some(charge) = charge_of(&record)
        {
            row(&mut rows, by, &record).add(&record, &charge);
        }
    }
    Ok(Report { by, rows: rows.into_values().collect(), through, damaged_lines })
}

impl Wanted {
    fn has(&self, record: &Record) -> bool {
        let principal = record.principal.as_ref().map(|principal| principal.as_str());
        self.since.is_none_or(|since| record.ts >= since)
            && self.until.is_none_or(|until| record.ts < until)
            && (self.principal.is_none() || self.principal.as_deref() == principal)
    }
}

/// What the record of a call's end says that it used; `None` for every other record.
fn charge_of(record: &Record) -> Option<Charge> {
    match record.kind {
        EventKind::TaskOutcome | EventKind::TaskUnknown | EventKind::TaskResolved => {
            Charge::of(record.outcome, record.detail.as_ref())
        }
        EventKind::CallServed | EventKind::CallRefused => Some(Charge::default()),
        _ => None,
    }
}

fn row<'a>(rows: &'a mut BTreeMap<String, Row>, by: By, record: &Record) -> &'a mut Row {
    let name = match by {
        By::User => record.principal.as_ref().map_or("(nobody)", |principal| principal.as_str()).to_owned(),
        By::Tool => tool_of(record).to_owned(),
        By::Day => record.ts.strftime("%Y-%m-%d").to_string(),
    };
    let name = if rows.len() < ROWS_MAX || rows.contains_key(&name) { name } else { OTHERS.to_owned() };
    rows.entry(name.clone()).or_insert_with(|| Row { name, ..Row::default() })
}

/// The tool, or the protocol's method (`resources/read`). A call that was refused may name anything.
fn tool_of(record: &Record) -> &str {
    let name = record.tool.as_deref().unwrap_or_default();
    let is_named_by_us = record.kind != EventKind::CallRefused || tools::find(name).is_some();
    if is_named_by_us { name } else { UNKNOWN_TOOL }
}

impl Row {
    fn add(&mut self, record: &Record, charge: &Charge) {
        let add = |to: &mut u64, amount: u64| *to = to.saturating_add(amount);
        // Of a flood of refusals some have no record but the number in the next one's.
        let suppressed = record.detail.as_ref().and_then(|detail| detail.get("suppressed")?.as_u64());
        // A late result is of a call that was counted when it was given up.
        let ended = u64::from(record.kind != EventKind::TaskResolved);
        let calls = suppressed.unwrap_or_default().saturating_add(ended);
        add(&mut self.calls, calls);
        match record.outcome {
            Some(Outcome::Refused) => add(&mut self.refusals, calls),
            Some(Outcome::Failed | Outcome::Unknown) => add(&mut self.failures, ended),
            Some(Outcome::Ok) | None => {}
        }
        add(&mut self.cpu_ms, charge.cpu_ms);
        add(&mut self.bytes_in, charge.bytes_in);
        add(&mut self.bytes_out, charge.bytes_out);
        add(&mut self.wall_ms, record.duration_ms.unwrap_or_default());
        self.memory_peak_bytes = self.memory_peak_bytes.max(charge.memory_peak_bytes);
        for package in &charge.packages {
            if self.packages.len() < PACKAGES_MAX {
                self.packages.insert(format!("{} {}", package.name, package.version));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use codegen_audit::{Audit, Entry, Options};
    use codegen_types::Principal;
    use serde_json::json;

    use super::*;

    async fn log(dir: &Path) {
        let (audit, _) = Audit::open(Options::new(dir)).await.unwrap();
        let of = |user: &str, tool: &str, kind| Entry {
            kind,
            principal: Some(Principal::os_user(user)),
            tool: Some(tool.to_owned()),
            ..Entry::default()
        };
        let used = json!({"cpu_ms": 40, "memory_peak_bytes": 7, "bytes_in": 3, "bytes_out": 5, "packages": ["a 1"]});
        let ran = |user| Entry {
            outcome: Some(Outcome::Ok),
            duration_ms: Some(60),
            detail: Some(used.clone()),
            ..of(user, "run_python", EventKind::TaskOutcome)
        };
        let refused = |tool| Entry { outcome: Some(Outcome::Refused), ..of("bob", tool, EventKind::CallRefused) };
        let unplaced = Entry { detail: Some(json!({"not_started": true})), ..ran("ann") };
        let unknown = Entry { outcome: Some(Outcome::Unknown), ..of("bob", "run_shell", EventKind::TaskUnknown) };
        let attempt = of("ann", "run_python", EventKind::TaskAttempt);
        let late = Entry {
            outcome: Some(Outcome::Failed),
            detail: Some(json!({"cpu_ms": 9})),
            ..of("bob", "run_shell", EventKind::TaskResolved)
        };
        for entry in
            [attempt, ran("ann"), unplaced, ran("ann"), refused("fs_read"), refused("evil\u{1b}"), unknown, late]
        {
            audit.append(entry).await.unwrap();
        }
        audit.close().await;
    }

    #[tokio::test]
    async fn each_call_is_counted_once_with_what_it_used_and_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path()).await;
        let report = report(dir.path(), By::User, &Wanted::default()).unwrap();
        let [ann, bob] = report.rows.as_slice() else { panic!("two users: {report:?}") };
        let expected = Row {
            name: "os:ann".to_owned(),
            calls: 2,
            cpu_ms: 80,
            memory_peak_bytes: 7,
            bytes_in: 6,
            bytes_out: 10,
            wall_ms: 120,
            packages: ["a 1".to_owned()].into(),
            ..Row::default()
        };
        assert_eq!(*ann, expected);
        assert_eq!(
            (bob.calls, bob.failures, bob.refusals, bob.cpu_ms),
            (3, 1, 2, 9),
            "a late result is no call of its own"
        );
        assert!(report.through > LogSeq(6) && report.damaged_lines == 0);
    }

    #[tokio::test]
    async fn names_that_a_client_invented_make_no_rows() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path()).await;
        let names = |by, wanted: &Wanted| {
            let report = report(dir.path(), by, wanted).unwrap();
            report.rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
        };
        let of_bob = Wanted { principal: Some("os:bob".to_owned()), ..Wanted::default() };
        assert_eq!(names(By::Tool, &of_bob), ["(unknown)", "fs_read", "run_shell"]);
        assert_eq!(names(By::Day, &Wanted::default()).len(), 1);
        let later = Wanted { since: Some(Timestamp::MAX), ..Wanted::default() };
        assert!(names(By::User, &later).is_empty());
    }
}
