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
use crate::byte_room::ByteRoom;
use crate::mcp::calls::Calls;

/// How long a session may be idle. Its client then begins anew; the sandboxes that it used are not touched.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of one principal. One more ends the one that has been idle longest.
    of_one: usize,
    /// Of everybody. One more ends the one that has been idle longest, of whoever has most.
    of_all: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { of_one: 1_024, of_all: 8_192 }
    }
}

type Sessions = HashMap<SessionId, Arc<ProtocolSession>>;

/// Every session.
#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    sessions: Mutex<Sessions>,
    kept: Arc<Kept>,
    unread: ByteRoom,
}

impl Table {
    pub(super) fn new(bounds: Bounds, unread: ByteRoom) -> Self {
        Self { bounds, sessions: Mutex::default(), kept: Arc::default(), unread }
    }

    /// Makes a session.
    pub(super) fn create(&self, principal: &Principal, calls: Calls) -> Result<(SessionId, SessionTransport), Refused> {
        let mut sessions = self.sessions.lock();
        let of_one = sessions.values().filter(|session| session.principal == *principal).count();
        if of_one >= self.bounds.of_one {
            end_idlest(&mut sessions, principal).ok_or(Refused::TooManySessions)?;
        }
        if sessions.len() >= self.bounds.of_all {
            let most = who_has_most(&sessions).ok_or(Refused::NoRoom)?;
            end_idlest(&mut sessions, &most).ok_or(Refused::NoRoom)?;
        }
        // 122 random bits: whoever does not have it does not guess it.
        let id: SessionId = uuid::Uuid::new_v4().to_string().into();
        let (kept, unread) = (Arc::clone(&self.kept), self.unread.of(principal));
        let (session, transport) = ProtocolSession::new(principal.clone(), kept, unread, calls);
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

/// Ends the session of a principal that has been idle longest, if one is idle.
fn end_idlest(sessions: &mut Sessions, principal: &Principal) -> Option<()> {
    let own = sessions.iter().filter(|(_, session)| session.principal == *principal);
    let idle = own.filter_map(|(id, session)| Some((session.idle_since()?, Arc::clone(id))));
    let (_, id) = idle.min()?;
    sessions.remove(&id)?.retire();
    Some(())
}

fn who_has_most(sessions: &Sessions) -> Option<Principal> {
    let mut counts: HashMap<&Principal, usize> = HashMap::new();
    for session in sessions.values() {
        *counts.entry(&session.principal).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(principal, _)| principal.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(of_one: usize, of_all: usize) -> Table {
        Table::new(Bounds { of_one, of_all }, crate::mcp::unread::room())
    }

    fn user(name: &str) -> Principal {
        Principal::os_user(name)
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_that_was_idle_longest_makes_room_and_one_that_is_used_does_not() {
        let (table, ann) = (table(2, 8), user("ann"));
        let mut made = Vec::new();
        for _ in 0..2 {
            made.push(table.create(&ann, Calls::default()).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        table.get(&ann, &made[0].0).unwrap().touch();
        made.push(table.create(&ann, Calls::default()).unwrap());
        let is_there = |at: usize| table.get(&ann, &made[at].0).is_ok();
        assert_eq!([is_there(0), is_there(1), is_there(2)], [true, false, true]);
        let _reading = [0, 2].map(|at: usize| table.get(&ann, &made[at].0).unwrap().standalone().unwrap());
        assert!(matches!(table.create(&ann, Calls::default()).err(), Some(Refused::TooManySessions)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_most_makes_room_for_others() {
        let (table, many, few, new) = (table(3, 4), user("many"), user("few"), user("new"));
        let (first, _first) = table.create(&few, Calls::default()).unwrap();
        let held: Vec<_> = (0..3).map(|_| table.create(&many, Calls::default()).unwrap()).collect();
        let (second, _second) = table.create(&new, Calls::default()).unwrap();
        assert!(table.get(&few, &first).is_ok() && table.get(&new, &second).is_ok());
        assert_eq!(held.iter().filter(|(id, _)| table.get(&many, id).is_ok()).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_an_idle_hour() {
        let (table, ann) = (table(8, 8), user("ann"));
        let (idle, _idle) = table.create(&ann, Calls::default()).unwrap();
        let (used, _used) = table.create(&ann, Calls::default()).unwrap();
        tokio::time::advance(IDLE_MAX - Duration::from_secs(1)).await;
        table.get(&ann, &used).unwrap().touch();
        table.sweep(Instant::now());
        assert!(table.get(&ann, &idle).is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        table.sweep(Instant::now());
        assert!(table.get(&ann, &idle).is_err() && table.get(&ann, &used).is_ok());
    }
}
