//! How the end of a dispatch is understood: what the caller gets, what the store keeps, what the record says.

use std::collections::BTreeMap;

use codegen_audit::{Entry, EventKind, Outcome as Verdict};
use codegen_types::event::Edited;
use codegen_types::{Contact, ContactOutcome, ErrorCode, EventBody, Failure, OperationResult};
use coordinator_core::task::TaskInput;
use serde_json::{Map, Value, json};

use super::call::Completed;
use crate::store::StoredOutcome;
use crate::workers::DispatchEnd;

/// The most packages, and hosts, that a record names.
const NAMES_MAX: usize = 100;
/// The most bytes of contacts that a record names: a record that is too long would name none.
const CONTACTS_BYTES_MAX: usize = 40 << 10;
/// The longest name of either, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What a dispatch came to, and what that means for the task.
pub(super) fn outcome_of(end: DispatchEnd, transcriptd: Completed) -> (StoredOutcome, TaskInput) {
    match end {
        DispatchEnd::Answered(EventBody::Finished(result)) => {
            let completed = Completed { result: Some(result), ..transcriptd };
            (StoredOutcome { result: Ok(completed), partial: None }, TaskInput::Finished)
        }
        DispatchEnd::Answered(EventBody::Failed { failure, exit }) => {
            let input = TaskInput::Failed { code: failure.code };
            let partial = Completed { result: exit.map(OperationResult::Exec), ..transcriptd };
            (StoredOutcome { result: Err(failure), partial: Some(partial) }, input)
        }
        DispatchEnd::NotStarted(failure) => {
            let input = TaskInput::Failed { code: failure.code };
            (StoredOutcome { result: Err(failure), partial: None }, input)
        }
        DispatchEnd::Unknown(failure) => {
            let failure = Failure::new(ErrorCode::TaskOutcomeUnknown, failure.message);
            (StoredOutcome { result: Err(failure), partial: Some(transcriptd) }, TaskInput::OutcomeLost)
        }
        DispatchEnd::Answered(other) => {
            tracing::error!(?other, "a dispatch ended with an event that is not the last");
            let failure = Failure::new(ErrorCode::TaskOutcomeUnknown, "the worker's last word was not understood");
            (StoredOutcome { result: Err(failure), partial: Some(transcriptd) }, TaskInput::OutcomeLost)
        }
    }
}

/// Says in the record how it ended.
pub(super) fn describe(
    entry: &mut Entry,
    outcome: &StoredOutcome,
    input: &TaskInput,
    Traffic { bytes_in, written }: Traffic,
) {
    let unknown = matches!(input, TaskInput::OutcomeLost);
    entry.kind = if unknown { EventKind::TaskUnknown } else { EventKind::TaskOutcome };
    entry.code = outcome.result.as_ref().err().map(|failure| failure.code);
    let result = match (&outcome.result, &outcome.partial) {
        (Ok(completed), _) | (Err(_), Some(completed)) => completed.result.as_ref(),
        (Err(_), None) => None,
    };
    entry.outcome = Some(match (&outcome.result, result) {
        _ if unknown => Verdict::Unknown,
        (Err(_), _) => Verdict::Failed,
        (Ok(_), Some(OperationResult::Exec(exit))) if exit.code != Some(0) => Verdict::Failed,
        (Ok(_), _) => Verdict::Ok,
    });
    entry.bytes = bytes_of(result).or((written > 0).then_some(written));
    let bytes_out = match result {
        Some(OperationResult::Read { contents, .. }) => contents.len() as u64,
        _ => written,
    };
    let mut detail = result.map(detail_of).unwrap_or_default();
    for (name, bytes) in [("bytes_in", bytes_in), ("bytes_out", bytes_out)] {
        if bytes > 0 {
            detail.insert(name.to_owned(), json!(bytes));
        }
    }
    entry.detail = (!detail.is_empty()).then_some(Value::Object(detail));
}

/// Bytes that a task took in with its arguments, and wrote.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) bytes_in: u64,
    pub(super) written: u64,
}

const fn bytes_of(result: Option<&OperationResult>) -> Option<u64> {
    match result {
        Some(OperationResult::Read { contents, .. }) => Some(contents.len() as u64),
        Some(OperationResult::Write { stat, .. } | OperationResult::Edit(Edited { stat, .. })) => Some(stat.size),
        Some(
            OperationResult::Exec(_)
            | OperationResult::List { .. }
            | OperationResult::Stat { .. }
            | OperationResult::Move { .. }
            | OperationResult::Remove { .. }
            | OperationResult::Search(_)
            | OperationResult::Kernels { .. },
        )
        | None => None,
    }
}

/// What a record says of a result, beside its verdict.
pub(super) fn detail_of(result: &OperationResult) -> Map<String, Value> {
    let OperationResult::Exec(exit) = result else { return Map::new() };
    let mut detail = Map::new();
    let mut say = |name: &str, value: Value| drop(detail.insert(name.to_owned(), value));
    say("exit_code", json!(exit.code));
    say("signal", json!(exit.signal));
    say("cpu_ms", json!(exit.used.cpu_ms));
    say("memory_peak_bytes", json!(exit.used.memory_peak_bytes));
    say("files_changed", json!(exit.files_changed.len()));
    say("leftovers_killed", json!(exit.leftovers_killed));
    let packages = exit.packages.iter().take(NAMES_MAX);
    let packages = packages.map(|package| format!("{} {}", cut(&package.name), cut(&package.version)));
    let hosts: Vec<String> = exit.hosts.iter().take(NAMES_MAX).map(|host| cut(host)).collect();
    if !exit.packages.is_empty() {
        say("packages", packages.collect());
    }
    if !hosts.is_empty() {
        say("hosts", json!(hosts));
    }
    if !exit.contacts.is_empty() {
        say("contacts", contacts_of(&exit.contacts));
    }
    detail
}

/// As many contacts as a record has room for, those first that were reached, and the rest as one of each outcome.
pub(super) fn contacts_of(contacts: &[Contact]) -> Value {
    let mut ordered: Vec<&Contact> = contacts.iter().collect();
    ordered.sort_by_key(|contact| contact.outcome);
    let (mut room, mut told, mut rest) = (CONTACTS_BYTES_MAX, Vec::new(), BTreeMap::new());
    for contact in ordered {
        let one = json!(Contact { host: cut(&contact.host), ..contact.clone() });
        match room.checked_sub(one.to_string().len()) {
            Some(left) if rest.is_empty() => {
                room = left;
                told.push(one);
            }
            Some(_) | None => add(&mut rest, contact),
        }
    }
    told.extend(rest.into_values().map(|rest| json!(rest)));
    told.into()
}

fn add(rest: &mut BTreeMap<ContactOutcome, Contact>, contact: &Contact) {
    // No host is called so: each has its port.
    let none =
        || Contact { host: "others".to_owned(), connections: 0, sent_bytes: 0, received_bytes: 0, ..contact.clone() };
    let sum = rest.entry(contact.outcome).or_insert_with(none);
    sum.connections = sum.connections.saturating_add(contact.connections);
    sum.sent_bytes = sum.sent_bytes.saturating_add(contact.sent_bytes);
    sum.received_bytes = sum.received_bytes.saturating_add(contact.received_bytes);
}

/// A worker's word, as far as a record repeats it.
fn cut(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}
