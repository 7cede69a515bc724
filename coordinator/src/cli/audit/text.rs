//! Records and verdicts as text for people, harmless on any terminal.

use std::io::{self, Write};

use codegen_audit::{Outcome, Record, Verdict, Verification, for_terminal, json_for_terminal};
use codegen_types::LogSeq;

/// How records are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

impl Form {
    pub(super) const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Records as aligned columns under a heading, or as they are.
pub(super) struct Table {
    form: Form,
    has_heading: bool,
}

impl Table {
    pub(super) const fn new(form: Form) -> Self {
        Self { form, has_heading: false }
    }

    pub(super) fn row(&mut self, record: &Record, out: &mut impl Write) -> io::Result<()> {
        if self.form == Form::Json {
            return writeln!(out, "{}", json_for_terminal(&record.line));
        }
        if !self.has_heading {
            self.has_heading = true;
            writeln!(
                out,
                "{:>7}  {:<23}  {:<17}  {:<12}  {:<14}  {:<8}  {:>9}  ABOUT",
                "SEQ", "TIME (UTC)", "TYPE", "SESSION", "TOOL", "OUTCOME", "TOOK"
            )?;
        }
        let time = record.ts.strftime("%Y-%m-%d %H:%M:%S%.3f");
        let session = record.session.map(|id| id.to_string().chars().take(12).collect::<String>()).unwrap_or_default();
        let tool = cut(record.tool.as_deref().unwrap_or_default(), 14);
        let outcome = record.outcome.map_or("", Outcome::as_str);
        let took = record.duration_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
        let row = format!(
            "{:>7}  {time:<23}  {:<17}  {session:<12}  {tool:<14}  {outcome:<8}  {took:>9}  {}",
            record.seq,
            record.kind.as_str(),
            about(record)
        );
        writeln!(out, "{}", row.trim_end())
    }
}

/// What a record is about, in a few words.
fn about(record: &Record) -> String {
    let mut words = Vec::new();
    words.extend(record.code.map(|code| code.as_str().to_owned()));
    words.extend(record.path.as_deref().map(|path| cut(path, 80)));
    words.extend(record.cites.map(|seq| format!("of {seq}")));
    words.extend(record.principal.as_ref().map(|principal| format!("by {}", cut(principal.as_str(), 40))));
    words.join(" ")
}

/// Text for one column: shortened, and harmless on a terminal.
pub(in crate::cli) fn cut(text: &str, width: usize) -> String {
    let harmless = for_terminal(text);
    if harmless.chars().count() <= width {
        return harmless;
    }
    harmless.chars().take(width - 1).chain(['…']).collect()
}

/// A verdict, for people.
pub(super) fn describe(found: &Verification, out: &mut impl Write) -> io::Result<()> {
    let live = if found.live { " (live: a server is writing it)" } else { "" };
    match &found.verdict {
        Verdict::Whole => writeln!(out, "OK: the log is whole{live}")?,
        Verdict::Tampered { at, fault } => {
            writeln!(out, "TAMPERED: record {} is not what was written", at.seq)?;
            writeln!(
                out,
                "  in {}, line {}, byte {}: {}",
                for_terminal(&at.file),
                at.line,
                at.offset,
                for_terminal(fault)
            )?;
        }
        Verdict::CutAfterCheckpoint { last, covered } => {
            writeln!(out, "CUT: the log ends at record {last}, and a signed checkpoint covers {covered} records")?;
        }
        Verdict::TornTail { at, torn_bytes } => {
            writeln!(
                out,
                "TORN TAIL: all {} records are whole; behind them the last writer was interrupted",
                found.last
            )?;
            let file = for_terminal(&at.file);
            writeln!(
                out,
                "  in {file}, line {}, byte {}: {torn_bytes} bytes of an unfinished record, cut at the next start",
                at.line, at.offset
            )?;
        }
        Verdict::Unreadable { why } => return writeln!(out, "UNREADABLE: {}", for_terminal(why)),
    }
    if let Some(log_id) = &found.log_id {
        writeln!(out, "log          {log_id}")?;
    }
    writeln!(out, "records      {} to {}", found.first, found.last)?;
    if found.first > LogSeq(1) {
        writeln!(
            out,
            "             those before {} are archived elsewhere; a signed checkpoint covers them",
            found.first
        )?;
    }
    writeln!(out, "checkpoints  {} verified, through record {}", found.checkpoints, found.covered)?;
    if found.last > found.covered {
        writeln!(
            out,
            "             {} records came later: nothing signed covers them yet",
            found.last.0 - found.covered.0
        )?;
    }
    Ok(())
}
