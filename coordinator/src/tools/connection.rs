//! One client connection as the tools see it: who calls, with what limits, and its default session.

use std::collections::VecDeque;
use std::sync::Arc;

use codegen_audit::Audit;
use codegen_types::{ErrorCode, Failure, IndexUrl, Limits, Principal, SessionId};

use parking_lot::Mutex;

use super::calls::SessionCalls;
use super::session_keys::SessionKeys;
use crate::admission::{Admission, Door};
use crate::session::{ChangesFollower, CreateSession};

/// Sessions of one connection whose files are listed and whose changes are told unasked.
const NAMED_MAX: usize = 16;

/// Whether calls must name their session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Handles {
    /// A call that names none means the connection's default session.
    #[default]
    Optional,
    /// A call that names none is refused: over HTTP some clients make a new connection for each call.
    Required,
}

/// One client connection. Closing it leaves its sessions alone: they end by their own idle time.
pub struct Connection {
    pub(super) sessions: Arc<dyn SessionCalls>,
    pub(super) audit: Audit,
    pub(super) limits: Limits,
    pub(super) principal: Principal,
    pub(super) session_keys: Arc<SessionKeys>,
    /// Package indexes that calls may name, the default first.
    pub(super) package_indexes: Arc<[IndexUrl]>,
    /// What every call passes before anything is done.
    pub(super) admission: Admission,
    handles: Handles,
    /// Held while the session is made, so that calls that arrive together share one.
    default_session: tokio::sync::Mutex<Option<SessionId>>,
    /// Sessions that calls named or made, the latest last; not all of them need be the principal's.
    named: Mutex<VecDeque<SessionId>>,
}

impl Connection {
    /// A connection that has no default session yet.
    pub fn new(
        sessions: Arc<dyn SessionCalls>,
        audit: Audit,
        limits: Limits,
        principal: Principal,
        session_keys: Arc<SessionKeys>,
    ) -> Self {
        let (package_indexes, admission, handles, default_session, named) = Default::default();
        Self {
            sessions,
            audit,
            limits,
            principal,
            session_keys,
            package_indexes,
            admission,
            handles,
            default_session,
            named,
        }
    }

    /// The same, with calls that pass this admission.
    #[must_use]
    pub fn admitted_by(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Whether calls must name their session.
    pub const fn handles(&self) -> Handles {
        self.handles
    }

    /// By which way the calls of this connection come in.
    pub(super) fn door(&self) -> Door {
        match self.handles {
            Handles::Optional => Door::Stdio,
            Handles::Required => Door::Http,
        }
    }

    /// The same, permitting these package indexes.
    #[must_use]
    pub fn permitting(self, package_indexes: Arc<[IndexUrl]>) -> Self {
        Self { package_indexes, ..self }
    }

    /// The same, with calls that must or need not name their session.
    #[must_use]
    pub fn with_handles(self, handles: Handles) -> Self {
        Self { handles, ..self }
    }

    /// The session that a call means: the one it names, else the connection's default session, made on first need.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND` when the text is no handle; `INVALID_ARGUMENT` when there must be one; whatever making the default session gives.
    pub(super) async fn session(&self, named: Option<&str>) -> Result<SessionId, Failure> {
        let session = match named {
            Some(text) => text.parse().map_err(|_| not_a_handle(text))?,
            None if self.handles == Handles::Required => return Err(handle_required()),
            None => self.default_session().await?,
        };
        self.note(session);
        Ok(session)
    }

    /// Finds out that this client's principal may see the session that it names.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub(crate) async fn find(&self, named: &str) -> Result<(), Failure> {
        let session = self.session(Some(named)).await?;
        self.sessions.get(&self.principal, session).map(drop)
    }

    /// Remembers that this connection uses a session.
    pub(super) fn note(&self, session: SessionId) {
        let mut named = self.named.lock();
        if named.back() == Some(&session) {
            return;
        }
        named.retain(|other| *other != session);
        if named.len() == NAMED_MAX {
            named.pop_front();
        }
        named.push_back(session);
    }

    /// The principal's open sessions that this connection used last, at most sixteen.
    pub fn sessions_in_use(&self) -> Vec<SessionId> {
        let named: Vec<SessionId> = self.named.lock().iter().copied().collect();
        named.into_iter().filter(|session| self.is_open(*session)).collect()
    }

    /// Whether this connection uses a session, and it is the principal's and open.
    pub fn uses(&self, session: SessionId) -> bool {
        self.named.lock().contains(&session) && self.is_open(session)
    }

    fn is_open(&self, session: SessionId) -> bool {
        let snapshot = self.sessions.get(&self.principal, session);
        snapshot.is_ok_and(|snapshot| matches!(snapshot.state, "opening" | "ready" | "suspended"))
    }

    /// Follows what changes in workspaces from now on, in everybody's.
    pub fn changes(&self) -> ChangesFollower {
        self.sessions.changes()
    }

    /// The default session, if there is one by now.
    pub(super) async fn default_session_made(&self) -> Option<SessionId> {
        *self.default_session.lock().await
    }

    /// Whether this is the default session, if there is one by now.
    pub(super) async fn is_default(&self, session: SessionId) -> bool {
        *self.default_session.lock().await == Some(session)
    }

    async fn default_session(&self) -> Result<SessionId, Failure> {
        let mut default = self.default_session.lock().await;
        if let Some(session) = *default {
            match self.sessions.get(&self.principal, session).map(|snapshot| snapshot.state) {
                Ok("closing" | "closed") | Err(_) => {}
                Ok("lost") => {
                    *default = None;
                    let message = "the default session's worker is gone, and its files with it; \
                                   the next call without session_id starts a new, empty default session";
                    return Err(Failure::new(ErrorCode::SessionLost, message));
                }
                Ok(_) => return Ok(session),
            }
        }
        let create = CreateSession { name: Some("default".to_owned()), ..CreateSession::default() };
        let made = self.sessions.create(self.principal.clone(), create).await?;
        *default = Some(made.id);
        Ok(made.id)
    }
}

fn handle_required() -> Failure {
    let message = "session_id is required over HTTP; call session_create, and pass the session_id that it gives";
    Failure::new(ErrorCode::InvalidArgument, message)
}

fn not_a_handle(text: &str) -> Failure {
    let shown: String = text.chars().take(64).collect();
    let message = format!("{shown:?} is no session handle; handles begin with `ses_` and come from session_create");
    Failure::new(ErrorCode::SessionNotFound, message)
}
