//! How a task ended of which the log alone tells: all that its record says, without what it wrote.

use codegen_audit::{Outcome as Verdict, Record};
use codegen_types::{ErrorCode, Exit, Failure, LogSeq, OperationResult, Package, ResourceUse, TaskId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::session::call::{Captured, Completed};
use crate::store::StoredOutcome;

/// The outcome of a task whose result was lost with the server, by the record of its end: that of a program is known by
/// it, but for its output. The answer of any other operation was all of its result, and is unknown.
pub(super) fn told_by(task: TaskId, record: Option<&Record>) -> StoredOutcome {
    let Some(record) = record.filter(|record| record.code != Some(ErrorCode::TaskOutcomeUnknown)) else {
        let text = format!("the server ended before the result of {task} was kept; it is not run again");
        return failed(ErrorCode::TaskOutcomeUnknown, text);
    };
    match (record.code, exit_of(record)) {
        (Some(code), _) => failed(code, format!("{task} ended so, as record {} says; {LOST}", record.seq.0)),
        (None, Some(exit)) => {
            let written = Captured { omitted: record.bytes.unwrap_or_default(), ..Captured::default() };
            let completed =
                Completed { result: Some(OperationResult::Exec(exit)), stdout: written, ..Completed::default() };
            StoredOutcome { result: Ok(completed), partial: None }
        }
        (None, None) => {
            let how = if record.outcome == Some(Verdict::Ok) { "was carried out" } else { "failed" };
            let text = format!("{task} {how}, as record {} says; {LOST}", record.seq.0);
            failed(ErrorCode::TaskOutcomeUnknown, text)
        }
    }
}

const LOST: &str = "the server ended before its result was kept, and it is not run again";

fn failed(code: ErrorCode, text: String) -> StoredOutcome {
    StoredOutcome { result: Err(Failure::new(code, text)), partial: None }
}

/// How a program ended, if the record is of one.
fn exit_of(record: &Record) -> Option<Exit> {
    exit_by(record.detail.as_ref()?.as_object()?, record.seq, record.duration_ms.unwrap_or_default())
}

/// The same by the detail of the record at `seq`, of a program that ran `wall_ms`.
fn exit_by(detail: &Map<String, Value>, seq: LogSeq, wall_ms: u64) -> Option<Exit> {
    // Either may be null, and then the other is not.
    let (code, signal) = (number(detail, "exit_code"), number(detail, "signal"));
    (code.is_some() || signal.is_some()).then(|| Exit {
        code,
        signal,
        used: ResourceUse {
            wall_ms,
            cpu_ms: detail.get("cpu_ms").and_then(Value::as_u64).unwrap_or_default(),
            memory_peak_bytes: detail.get("memory_peak_bytes").and_then(Value::as_u64).unwrap_or_default(),
        },
        // The record has their number, and not their names.
        files_changed_truncated: number(detail, "files_changed").is_some_and(|count| count > 0),
        leftovers_killed: told(detail, "leftovers_killed"),
        packages: told::<Vec<String>>(detail, "packages").iter().filter_map(|text| package(text)).collect(),
        hosts: told(detail, "hosts"),
        contacts: told(detail, "contacts"),
        notes: vec![format!(
            "How it ended is told by record {} of the log: the server ended before the result was kept. Its output is \
             lost; its files are in the workspace. Nothing ran again.",
            seq.0
        )],
        ..Exit::default()
    })
}

/// What a record says under a name; nothing where it says nothing.
fn told<T: DeserializeOwned + Default>(detail: &Map<String, Value>, name: &str) -> T {
    detail.get(name).and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
}

/// A package as a record names it: name, space, version.
fn package(text: &str) -> Option<Package> {
    let (name, version) = text.split_once(' ')?;
    Some(Package { name: name.to_owned(), version: version.to_owned() })
}

fn number(detail: &Map<String, Value>, name: &str) -> Option<i32> {
    detail.get(name)?.as_i64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use codegen_types::event::{ChangeKind, FileChange};
    use codegen_types::{Contact, ContactOutcome, WorkspacePath};

    use super::*;
    use crate::session::outcome::detail_of;

    #[test]
    fn all_that_a_record_says_of_a_program_is_told_and_files_without_a_name_are_not_denied() {
        let contact = Contact {
            host: "example.org:443".to_owned(),
            outcome: ContactOutcome::Reached,
            connections: 1,
            sent_bytes: 2,
            received_bytes: 3,
        };
        let path = WorkspacePath::parse("made.txt").unwrap();
        let exit = Exit {
            code: Some(0),
            used: ResourceUse { wall_ms: 5, cpu_ms: 4, memory_peak_bytes: 3 },
            files_changed: vec![FileChange { path, change: ChangeKind::Created, size: 1 }],
            leftovers_killed: 2,
            hosts: vec!["pypi.org:443".to_owned()],
            packages: vec![Package { name: "six".to_owned(), version: "1.17.0".to_owned() }],
            contacts: vec![contact],
            ..Exit::default()
        };
        let told = exit_by(&detail_of(&OperationResult::Exec(exit.clone())), LogSeq(7), 5).unwrap();
        assert!(told.notes[0].contains("record 7") && told.notes[0].contains("output is lost"), "{:?}", told.notes);
        let expected =
            Exit { files_changed: Vec::new(), files_changed_truncated: true, notes: told.notes.clone(), ..exit };
        assert_eq!(told, expected);
        let unchanged = detail_of(&OperationResult::Exec(Exit { code: Some(0), ..Exit::default() }));
        assert!(!exit_by(&unchanged, LogSeq(7), 5).unwrap().files_changed_truncated);
    }
}
