//! Choosing records, and the one question that a starting server has: which attempts were never answered.

use std::collections::BTreeMap;
use std::path::Path;

use codegen_types::{LogSeq, SessionId, TaskId};
use serde_json::Value;

use crate::entry::{EventKind, Outcome};
use crate::reader::{ReadError, records};
use crate::record::Record;

/// Which records are wanted: those that fit everything that is given.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Query {
    /// Written at this time or later.
    pub since: Option<jiff::Timestamp>,
    /// Written before this time.
    pub until: Option<jiff::Timestamp>,
    /// Asked for by this principal.
    pub principal: Option<String>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this task.
    pub task: Option<TaskId>,
    /// Of this tool, by its listed name or the name it was called by.
    pub tool: Option<String>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// Of this type.
    pub kind: Option<EventKind>,
    /// About this path or something below it.
    pub path: Option<String>,
}

impl Query {
    /// Whether a record is wanted.
    pub fn matches(&self, record: &Record) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        self.since.is_none_or(|since| record.ts >= since)
            && self.until.is_none_or(|until| record.ts < until)
            && self
                .principal
                .as_deref()
                .is_none_or(|name| record.principal.as_ref().is_some_and(|p| p.as_str() == name))
            && fits(self.session.as_ref(), record.session.as_ref())
            && fits(self.task.as_ref(), record.task.as_ref())
            && (self.tool.is_none() || self.tool == record.tool || self.tool == record.called_as)
            && fits(self.outcome.as_ref(), record.outcome.as_ref())
            && fits(self.kind.as_ref(), Some(&record.kind))
            && self
                .path
                .as_deref()
                .is_none_or(|path| record.path.as_deref().is_some_and(|found| is_at_or_below(found, path)))
    }
}

fn is_at_or_below(found: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path.is_empty() || found.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The `task.attempt` records from `from` on that no later record of the same task closes: no outcome, no `unknown`, no
/// `log.withdrawn` cites them. Oldest first; memory grows with their number only.
///
/// # Errors
///
/// [`ReadError`] at the first record that cannot be read.
pub fn open_attempts(dir: &Path, from: Option<LogSeq>) -> Result<Vec<Record>, ReadError> {
    open_among(records(dir, from))
}

/// The `approval.requested` records from `from` on that nobody decided, the oldest first: those that no later record
/// decides, and those that the end of the server did, by a decision whose detail has a member of the name `by_end`.
///
/// # Errors
///
/// [`ReadError`] at the first record that cannot be read.
pub fn open_approvals(dir: &Path, from: Option<LogSeq>, by_end: &str) -> Result<(Vec<Record>, Vec<Record>), ReadError> {
    undecided_among(records(dir, from), by_end)
}

fn undecided_among(
    records: impl Iterator<Item = Result<Record, ReadError>>,
    by_end: &str,
) -> Result<(Vec<Record>, Vec<Record>), ReadError> {
    let mut open = BTreeMap::<LogSeq, Record>::new();
    let mut ended = Vec::new();
    for record in records {
        let record = record?;
        match (record.kind, record.cites) {
            (EventKind::ApprovalRequested, _) => drop(open.insert(record.seq, record)),
            (EventKind::ApprovalDecided | EventKind::LogWithdrawn, Some(requested)) => {
                let request = open.remove(&requested);
                let is_by_end = record.detail.as_ref().is_some_and(|detail| detail[by_end] == Value::Bool(true));
                ended.extend(request.filter(|_| is_by_end));
            }
            _ => {}
        }
    }
    Ok((open.into_values().collect(), ended))
}

fn open_among(records: impl Iterator<Item = Result<Record, ReadError>>) -> Result<Vec<Record>, ReadError> {
    let mut open = BTreeMap::<LogSeq, Record>::new();
    for record in records {
        let record = record?;
        match record.kind {
            EventKind::TaskAttempt => drop(open.insert(record.seq, record)),
            EventKind::TaskOutcome | EventKind::TaskUnknown | EventKind::LogWithdrawn => {
                // Only a record whose attempt was not known to be written cites none.
                let attempt = match record.cites {
                    Some(cited) => open.get(&cited).filter(|attempt| attempt.task == record.task),
                    None => open.values().rfind(|attempt| attempt.task.is_some() && attempt.task == record.task),
                };
                if let Some(seq) = attempt.map(|attempt| attempt.seq) {
                    open.remove(&seq);
                }
            }
            _ => {}
        }
    }
    Ok(open.into_values().collect())
}

#[cfg(test)]
mod tests {
    use codegen_types::Principal;

    use super::*;
    use crate::{Audit, Entry};

    #[tokio::test]
    async fn an_attempt_is_open_until_a_record_of_its_own_task_cites_it() {
        let audit = Audit::in_memory();
        let (first, second) = (TaskId::mint(), TaskId::mint());
        let entry = |kind, task, cites| Entry { kind, task: Some(task), cites, ..Entry::default() };
        let one = audit.append(entry(EventKind::TaskAttempt, first, None)).await.unwrap();
        let two = audit.append(entry(EventKind::TaskAttempt, second, None)).await.unwrap();
        audit.append(entry(EventKind::TaskOutcome, second, Some(one))).await.unwrap();
        let open = |audit: &Audit| -> Vec<LogSeq> {
            open_among(audit.memory_records().into_iter().map(Ok)).unwrap().iter().map(|record| record.seq).collect()
        };
        assert_eq!(open(&audit), [one, two]);
        audit.append(entry(EventKind::TaskOutcome, first, Some(one))).await.unwrap();
        assert_eq!(open(&audit), [two]);
        audit.append(entry(EventKind::TaskUnknown, second, Some(two))).await.unwrap();
        assert_eq!(open(&audit), []);
        audit.append(entry(EventKind::TaskAttempt, first, None)).await.unwrap();
        audit.append(entry(EventKind::TaskOutcome, first, None)).await.unwrap();
        assert_eq!(open(&audit), [], "a record that cites nothing closes the last attempt of its task");
    }

    #[tokio::test]
    async fn a_request_for_approval_is_open_until_it_is_decided() {
        let audit = Audit::in_memory();
        let entry = |kind, cites| Entry { kind, cites, ..Entry::default() };
        let one = audit.append(entry(EventKind::ApprovalRequested, None)).await.unwrap();
        let two = audit.append(entry(EventKind::ApprovalRequested, None)).await.unwrap();
        audit.append(entry(EventKind::TaskOutcome, Some(two))).await.unwrap();
        audit.append(entry(EventKind::ApprovalDecided, Some(one))).await.unwrap();
        let three = audit.append(entry(EventKind::ApprovalRequested, None)).await.unwrap();
        let detail = Some(serde_json::json!({"by_end": true}));
        audit.append(Entry { detail, ..entry(EventKind::ApprovalDecided, Some(three)) }).await.unwrap();
        let (open, ended) = undecided_among(audit.memory_records().into_iter().map(Ok), "by_end").unwrap();
        let seqs = |records: &[Record]| records.iter().map(|record| record.seq).collect::<Vec<_>>();
        assert_eq!((seqs(&open), seqs(&ended)), (vec![two], vec![three]));
    }

    #[tokio::test]
    async fn a_query_takes_what_fits_everything_given() {
        let audit = Audit::in_memory();
        let session = SessionId::mint();
        audit
            .append(Entry {
                kind: EventKind::TaskOutcome,
                session: Some(session),
                principal: Some(Principal::os_user("ann")),
                tool: Some("fs_read".into()),
                called_as: Some("fs.read".into()),
                path: Some("src/main.py".into()),
                outcome: Some(Outcome::Failed),
                ..Entry::default()
            })
            .await
            .unwrap();
        let record = &audit.memory_records()[0];
        let text = |text: &str| Some(text.to_owned());
        let fitting = [
            Query::default(),
            Query { principal: text("os:ann"), session: Some(session), ..Query::default() },
            Query { tool: text("fs.read"), outcome: Some(Outcome::Failed), ..Query::default() },
            Query { path: text("src/"), kind: Some(EventKind::TaskOutcome), ..Query::default() },
            Query { path: text("src/main.py"), since: Some(record.ts), ..Query::default() },
        ];
        assert!(fitting.iter().all(|query| query.matches(record)));
        let others = [
            Query { principal: text("os:an"), ..Query::default() },
            Query { session: Some(SessionId::mint()), ..Query::default() },
            Query { task: Some(TaskId::mint()), ..Query::default() },
            Query { path: text("sr"), ..Query::default() },
            Query { until: Some(record.ts), ..Query::default() },
            Query { outcome: Some(Outcome::Ok), ..Query::default() },
            Query { kind: Some(EventKind::TaskAttempt), ..Query::default() },
        ];
        assert!(others.iter().all(|query| !query.matches(record)));
    }
}
