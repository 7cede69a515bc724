//! Every session of the protocol: whose it is, how many there may be, and when one has been idle for too long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::Principal;
use parking_lot::Mutex;
use rmcp::transport::streamable_http_server::SessionId;
use tokio::time::Instant;

use super::kept::Kept;
use super::session::{ProtocolSession, Refused, SessionTransport};
use crate::mcp::calls::Calls;

/// How long a session may be idle. Its client then begins anew; the sandboxes that it used are not touched.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Sessions of one principal. One more ends the one that has been idle longest.
const OF_ONE_MAX: usize = 2_048;
/// Sessions of everybody. One more is refused.
const OF_ALL_MAX: usize = 8_192;

/// Every session.
#[derive(Debug, Default)]
pub(super) struct Table {
    sessions: Mutex<HashMap<SessionId, Arc<ProtocolSession>>>,
    kept: Arc<Kept>,
}

impl Table {
    /// Makes a session.
    pub(super) fn create(&self, principal: &Principal, calls: Calls) -> Result<(SessionId, SessionTransport), Refused> {
        let mut sessions = self.sessions.lock();
        let of_one = sessions.values().filter(|session| session.principal == *principal).count();
        if of_one >= OF_ONE_MAX {
            let own = sessions.iter().filter(|(_, session)| session.principal == *principal);
            let idle = own.filter_map(|(id, session)| Some((session.idle_since()?, id.clone())));
            let (_, id) = idle.min().ok_or(Refused::NoRoom)?;
            sessions.remove(&id).into_iter().for_each(|session| session.retire());
        }
        if sessions.len() >= OF_ALL_MAX {
            return Err(Refused::NoRoom);
        }
        // 122 random bits: whoever does not have it does not guess it.
        let id: SessionId = uuid::Uuid::new_v4().to_string().into();
        let (session, transport) = ProtocolSession::new(principal.clone(), Arc::clone(&self.kept), calls);
        sessions.insert(Arc::clone(&id), session);
        Ok((id, transport))
    }

    /// A session of this principal. That of somebody else is as unknown as one that never was.
    pub(super) fn get(&self, principal: &Principal, id: &SessionId) -> Result<Arc<ProtocolSession>, Refused> {
        let session = self.sessions.lock().get(id).cloned().filter(|session| session.principal == *principal);
        session.ok_or(Refused::Unknown)
    }

    /// Ends a session of this principal.
    pub(super) fn close(&self, principal: &Principal, id: &SessionId) -> Result<(), Refused> {
        let session = self.get(principal, id)?;
        self.sessions.lock().remove(id);
        session.retire();
        Ok(())
    }

    /// Ends what has been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.kept.sweep();
        let mut gone = Vec::new();
        self.sessions.lock().retain(|_, session| {
            let is_idle = session.idle_since().is_some_and(|since| now.duration_since(since) >= IDLE_MAX);
            if is_idle {
                gone.push(Arc::clone(session));
            }
            !is_idle
        });
        gone.into_iter().for_each(|session| session.retire());
    }

    /// Ends every session.
    pub(super) fn end(&self) {
        let all: Vec<_> = self.sessions.lock().drain().collect();
        all.into_iter().for_each(|(_, session)| session.retire());
    }
}
