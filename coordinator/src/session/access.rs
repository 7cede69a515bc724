//! Who may do what in a session, as callers are told.

use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Operation, Principal, SessionId};
use coordinator_core::session::{Access, Need, Writing};

use super::call::{SessionSnapshot, TaskCall};
use super::table::Table;

impl SessionSnapshot {
    /// What a principal is to this session; nothing to a stranger.
    pub fn access(&self, principal: &Principal) -> Option<Access> {
        self.shares.access(&self.principal, principal)
    }
}

impl TaskCall {
    /// What it needs. A call counts as reading only when its operation cannot do more.
    pub(super) const fn need(&self) -> Need {
        match (self.read_only, &self.operation) {
            (true, operation) if reads(operation) => Need::Read,
            _ => Need::Act,
        }
    }
}

const fn reads(operation: &Operation) -> bool {
    use codegen_types::operation::Kernels;
    match operation {
        Operation::Read(_)
        | Operation::List(_)
        | Operation::Stat(_)
        | Operation::Search(_)
        | Operation::Kernels(Kernels::List) => true,
        Operation::Exec(_)
        | Operation::Write(_)
        | Operation::Edit(_)
        | Operation::Move(_)
        | Operation::Remove(_)
        | Operation::Kernels(Kernels::Restart { .. }) => false,
    }
}

/// Lets a principal do what needs this much of a session. A stranger is told what is told of a session that is not there.
///
/// # Errors
/// `SESSION_NOT_FOUND`; `PERMISSION_DENIED` for one with whom the session was shared for less.
pub(super) fn check(access: Option<Access>, need: Need) -> Result<(), Failure> {
    match access {
        Some(access) if access.covers(need) => Ok(()),
        None => Err(unknown()),
        Some(access) => {
            let text = match need {
                Need::Own => "only its owner shares, changes and closes a session",
                Need::Read | Need::Act => "you may only read this session",
            };
            let text = format!("{text}; it was shared with you as {}", access.name());
            Err(Failure::new(ErrorCode::PermissionDenied, text))
        }
    }
}

/// What is said of a session that is not there, and of a stranger's.
pub(super) fn unknown() -> Failure {
    Failure::new(ErrorCode::SessionNotFound, "there is no such session of yours")
}

/// What is said to one who would act while another does.
pub(super) fn busy(writing: &Writing, now_ms: i64) -> Failure {
    let until = match writing.until_ms.map(jiff::Timestamp::from_millisecond) {
        Some(Ok(until)) => format!("until {until}, longer if it goes on"),
        Some(Err(_)) | None => "while its tasks run and a while longer".to_owned(),
    };
    let text = format!(
        "{} writes in this session {until}; one principal acts at a time, and reading goes on. Its owner can take the \
         right to write away with session_share (role observer) or session_unshare",
        writing.by
    );
    let failure = Failure::new(ErrorCode::PreconditionFailed, text);
    match writing.until_ms.and_then(|until_ms| u64::try_from(until_ms - now_ms).ok()) {
        Some(wait_ms) => failure.retry_after(Duration::from_millis(wait_ms)),
        None => failure,
    }
}

impl Table {
    /// Done when a principal may not read a session, or not any more.
    pub(super) async fn revoked(&self, principal: &Principal, session: SessionId) {
        let mut changes = self.access_changes();
        while self.of(principal, session, Need::Read).is_ok() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
