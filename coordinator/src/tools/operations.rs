//! What clients ask for that is no tool, by the way of every call: credentials, rates, record.
//!
//! The policy is about tools; this is guarded by scopes alone, so that no rule stands between operators and the calls that
//! wait for their approval.

use std::time::Instant;

use codegen_types::{Failure, Principal, SessionId, WorkspacePath};
use serde_json::Value;

use super::connection::Connection;
use super::resources::Asked;
use super::serve::Record;
use crate::identity::{self, Scopes};
use crate::session::SessionFollower;

impl Connection {
    /// Does something that needs these scopes. That it was asked for, with these arguments, is in the log before it is
    /// answered; what it changes is recorded where it is done, before.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `RATE_LIMITED`, `AUDIT_UNAVAILABLE`, and whatever doing it gives.
    pub(crate) async fn operate<T>(
        &self,
        asked: &Asked,
        args: Value,
        needed: Scopes,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let mut request = asked.with_args(args);
        let mut span = request.begin(asked.method, None);
        let done = async {
            identity::permit(asked.scopes, needed)?;
            self.admission.count_only(&self.principal, self.door(), asked.method)?;
            work.await
        };
        match done.await {
            Ok(done) => {
                self.record(None, &request, Record::served(request.session()), begun).await?;
                Ok(done)
            }
            Err(failure) => {
                span.fail(failure.code);
                Err(self.refused(&request, failure, begun).await)
            }
        }
    }

    /// Whether this is a client of that principal.
    pub(crate) fn is_of(&self, principal: &Principal) -> bool {
        self.principal == *principal
    }

    /// Follows what runs in a session, for as long as this client's principal may read it.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`; `SESSION_CLOSED`.
    pub(crate) fn follow_session(&self, session: SessionId) -> Result<SessionFollower, Failure> {
        self.sessions.follow_session(&self.principal, session)
    }

    /// Whether the policy lets this client read a file.
    pub(crate) fn reads(&self, path: &WorkspacePath) -> bool {
        self.may_read(path).is_ok()
    }

    /// Whether this client's principal may see a session.
    pub(crate) fn sees(&self, session: SessionId) -> bool {
        self.sessions.get(&self.principal, session).is_ok()
    }
}
