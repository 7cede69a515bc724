//! Everybody's sessions as operators see them, and their end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use codegen_types::{ErrorCode, Failure, IsolationReport, SessionId, TaskId, WorkerId};
use coordinator_core::session::SessionState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{About, Actor, Operators, one_of, page_size, time};
use crate::session::{Receipt, SessionSnapshot};

/// Which sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionsFilter {
    /// Of this principal.
    pub principal: Option<String>,
    /// In this state; when absent, all but closed ones.
    pub state: Option<String>,
    /// On this worker, or with their files there.
    pub worker: Option<WorkerId>,
    /// At most so many.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// A page of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// The sessions, the newest first.
    pub sessions: Vec<SessionLine>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One session in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLine {
    /// Its handle.
    pub session_id: SessionId,
    /// Whose it is.
    pub principal: String,
    /// `opening`, `ready`, `suspended`, `lost`, `closing` or `closed`.
    pub state: String,
    /// Who holds it, or has its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Its name, in its owner's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tasks that run in it.
    pub tasks_running: usize,
    /// Tasks that were ever started in it.
    pub tasks: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub last_used: Timestamp,
}

/// One session with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// What the list has of it, too.
    #[serde(flatten)]
    pub line: SessionLine,
    /// The epoch of its lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What its sandbox has, or had last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationReport>,
    /// With whom it is shared, and as what.
    pub shares: Value,
    /// Its owner's notes.
    pub metadata: BTreeMap<String, Value>,
    /// Idle seconds after which its processes are ended.
    pub ttl_seconds: u64,
    /// When its files are deleted at the latest if nobody uses it.
    pub retained_until: Timestamp,
    /// Bytes of its workspace when its processes were last ended, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_bytes: Option<u64>,
    /// Tasks that run in it.
    pub running: Vec<TaskId>,
    /// What its tasks used.
    pub used: Receipt,
}

impl Operators {
    /// A page of everybody's sessions.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn sessions(&self, filter: &SessionsFilter) -> Result<SessionPage, Failure> {
        let SessionsFilter { principal, state, worker, limit, after } = filter;
        one_of("state", state.as_deref(), &SessionState::NAMES)?;
        let (limit, after) = (page_size(*limit)?, after.as_deref().map(position).transpose()?);
        let mut sessions = self.lines(|line| {
            principal.as_deref().is_none_or(|wanted| line.principal == wanted)
                && state.as_deref().map_or(line.state != "closed", |wanted| line.state == wanted)
                && worker.as_ref().is_none_or(|wanted| line.worker.as_ref() == Some(wanted))
                && after.is_none_or(|after| line.position() < after)
        });
        let has_more = sessions.len() > limit;
        sessions.truncate(limit);
        let next =
            sessions.last().filter(|_| has_more).map(|last| format!("{}.{}", last.position().0, last.session_id));
        Ok(SessionPage { sessions, next })
    }

    /// One session.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub fn session(&self, session: SessionId) -> Result<SessionDetail, Failure> {
        self.0.sessions.anybodys(session).map(|snapshot| SessionDetail::of(&snapshot))
    }

    /// Ends a session for good. That is in the log before it begins, where that can be written.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `SESSION_CLOSED`.
    pub async fn close_session(&self, session: SessionId, actor: &Actor) -> Result<SessionDetail, Failure> {
        let owner = self.0.sessions.anybodys(session)?.principal.clone();
        let about = About { session: Some(session), task: None };
        self.0.record_end(actor, "sessions/close", about, json!({"of": owner})).await;
        self.0.sessions.close_anybodys(session).await.map(|snapshot| SessionDetail::of(&snapshot))
    }

    /// Those sessions of everybody that are `wanted`, the newest first.
    pub(super) fn lines(&self, wanted: impl Fn(&SessionLine) -> bool) -> Vec<SessionLine> {
        let all = self.0.sessions.of_everybody();
        let mut lines: Vec<SessionLine> = all.iter().map(|snapshot| SessionLine::of(snapshot)).filter(wanted).collect();
        lines.sort_by_key(|line| Reverse(line.position()));
        lines
    }
}

/// Where a page ends, as `next` says it.
fn position(text: &str) -> Result<(i64, SessionId), Failure> {
    let parsed = text.split_once('.').and_then(|(ms, id)| Some((ms.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(|| Failure::new(ErrorCode::InvalidArgument, "`after`: must be `next` of a page before"))
}

impl SessionLine {
    fn of(snapshot: &SessionSnapshot) -> Self {
        Self {
            session_id: snapshot.id,
            principal: snapshot.principal.to_string(),
            state: snapshot.state.to_owned(),
            worker: snapshot.lease.as_ref().map(|lease| lease.worker.clone()),
            name: snapshot.name.clone(),
            tasks_running: snapshot.running.len(),
            tasks: snapshot.tasks,
            created: time(snapshot.created_ms),
            last_used: time(snapshot.last_used_ms),
        }
    }

    fn position(&self) -> (i64, SessionId) {
        (self.created.as_millisecond(), self.session_id)
    }
}

impl SessionDetail {
    fn of(snapshot: &SessionSnapshot) -> Self {
        Self {
            line: SessionLine::of(snapshot),
            epoch: snapshot.lease.as_ref().map(|lease| lease.epoch.0),
            isolation: snapshot.isolation.clone(),
            shares: json!(snapshot.shares),
            metadata: snapshot.metadata.clone(),
            ttl_seconds: snapshot.ttl_ms / 1_000,
            retained_until: time(snapshot.retained_until_ms),
            workspace_bytes: snapshot.workspace_bytes,
            running: snapshot.running.clone(),
            used: (*snapshot.receipt).clone(),
        }
    }
}
