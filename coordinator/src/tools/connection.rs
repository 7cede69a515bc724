//! One client connection as the tools see it: who calls, with what limits, and its default session.

use std::sync::Arc;

use codegen_audit::Audit;
use codegen_types::{ErrorCode, Failure, IndexUrl, Limits, Principal, SessionId};

use super::calls::SessionCalls;
use super::session_keys::SessionKeys;
use crate::session::CreateSession;

/// One client connection. Closing it leaves its sessions alone: they end by their own idle time.
pub struct Connection {
    pub(super) sessions: Arc<dyn SessionCalls>,
    pub(super) audit: Audit,
    pub(super) limits: Limits,
    pub(super) principal: Principal,
    pub(super) session_keys: Arc<SessionKeys>,
    /// Package indexes that calls may name, the default first.
    pub(super) package_indexes: Arc<[IndexUrl]>,
    /// Held while the session is made, so that calls that arrive together share one.
    default_session: tokio::sync::Mutex<Option<SessionId>>,
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
        let (package_indexes, default_session) = Default::default();
        Self { sessions, audit, limits, principal, session_keys, package_indexes, default_session }
    }

    /// The same, permitting these package indexes.
    #[must_use]
    pub fn permitting(self, package_indexes: Arc<[IndexUrl]>) -> Self {
        Self { package_indexes, ..self }
    }

    /// The session that a call means: the one it names, else the connection's default session, made on first need.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND` when the text is no handle; whatever making the default session gives.
    pub(super) async fn session(&self, named: Option<&str>) -> Result<SessionId, Failure> {
        match named {
            Some(text) => text.parse().map_err(|_| not_a_handle(text)),
            None => self.default_session().await,
        }
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

fn not_a_handle(text: &str) -> Failure {
    let shown: String = text.chars().take(64).collect();
    let message = format!("{shown:?} is no session handle; handles begin with `ses_` and come from session_create");
    Failure::new(ErrorCode::SessionNotFound, message)
}
