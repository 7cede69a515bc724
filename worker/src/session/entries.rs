//! Which sessions are open on this worker and which were closed, the fence of epochs, and whose turn it is with each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use codegen_types::{Contact, Epoch, ErrorCode, Failure, SessionId};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::Session;
use crate::egress::{Contacts, Egress};

/// Closed sessions whose epoch is remembered. Beyond it the oldest is forgotten; the coordinator persists epochs before
/// it uses them, so that a stale message that old would have to come from a connection that ended long ago.
const CLOSED_MAX: usize = 65_536;
/// Sessions that are over here whose contacts are still to be told. Beyond it those of the oldest are lost.
const UNTOLD_MAX: usize = 256;

/// Every session that this worker knows of.
#[derive(Default)]
pub(super) struct Entries {
    open: HashMap<SessionId, Arc<Session>>,
    closed: HashMap<SessionId, Epoch>,
    /// Oldest first.
    closed_order: VecDeque<SessionId>,
    /// Whom sessions asked to reach that are not open any more, until an answer tells of it. Oldest first.
    untold: VecDeque<(SessionId, Arc<Contacts>)>,
}

impl Entries {
    /// The open session, if the epoch is neither below its own nor that of one that was closed.
    pub fn fence(&self, session: SessionId, epoch: Epoch) -> Result<Option<Arc<Session>>, Failure> {
        if self.closed.get(&session).is_some_and(|closed| epoch <= *closed) {
            return Err(stale());
        }
        self.fence_open(session, epoch)
    }

    /// Like [`fence`](Self::fence), but what was closed may be closed again.
    pub fn fence_close(&self, session: SessionId, epoch: Epoch) -> Result<Option<Arc<Session>>, Failure> {
        if self.closed.get(&session).is_some_and(|closed| epoch < *closed) {
            return Err(stale());
        }
        self.fence_open(session, epoch)
    }

    fn fence_open(&self, session: SessionId, epoch: Epoch) -> Result<Option<Arc<Session>>, Failure> {
        match self.open.get(&session) {
            Some(open) if epoch < open.epoch => Err(stale()),
            open => Ok(open.cloned()),
        }
    }

    /// Fails for an epoch that another one has superseded.
    pub fn check(&self, session: SessionId, epoch: Epoch) -> Result<(), Failure> {
        if self.epoch(session).is_some_and(|newest| epoch < newest) { Err(stale()) } else { Ok(()) }
    }

    /// The highest epoch that the session had here.
    pub fn epoch(&self, session: SessionId) -> Option<Epoch> {
        self.open.get(&session).map(|open| open.epoch).max(self.closed.get(&session).copied())
    }

    /// Refuses the session under this epoch, and those below it, from now on.
    pub fn note_closed(&mut self, session: SessionId, epoch: Epoch) {
        if self.closed.insert(session, epoch).is_none() {
            self.closed_order.push_back(session);
        }
        if self.closed.len() > CLOSED_MAX
            && let Some(oldest) = self.closed_order.pop_front()
        {
            self.closed.remove(&oldest);
        }
    }

    /// The session, if it is open.
    pub fn get(&self, session: SessionId) -> Option<&Arc<Session>> {
        self.open.get(&session)
    }

    /// All that are open.
    pub fn open(&self) -> impl ExactSizeIterator<Item = &Arc<Session>> {
        self.open.values()
    }

    /// How many are open beside this one, whose place is its own.
    pub fn others(&self, session: SessionId) -> usize {
        self.open.len() - usize::from(self.open.contains_key(&session))
    }

    /// Opens a session, in the place of an earlier life of it.
    pub fn insert(&mut self, session: Arc<Session>) {
        let id = session.id;
        if let Some(earlier) = self.open.insert(id, Arc::clone(&session)) {
            self.keep_contacts(&earlier);
        }
        if session.egress().is_some() {
            // It has them by now, and its programs tell of them.
            self.untold.retain(|(untold, _)| *untold != id);
        }
    }

    /// Takes a session out, unless another life has its place by now.
    pub fn remove(&mut self, session: &Arc<Session>) {
        if self.open.get(&session.id).is_some_and(|open| Arc::ptr_eq(open, session)) {
            self.open.remove(&session.id);
            self.keep_contacts(session);
        }
    }

    /// What is still to be told of earlier lives of a session, to be told of the next one.
    pub fn contacts(&self, session: SessionId) -> Arc<Contacts> {
        let open = self.open.get(&session).and_then(|open| open.egress()).map(Egress::contacts);
        let untold = || self.untold.iter().find(|(untold, _)| *untold == session).map(|(_, kept)| Arc::clone(kept));
        open.or_else(untold).unwrap_or_default()
    }

    /// Whom a session asked to reach that is not open any more, once.
    pub fn take_contacts(&mut self, session: SessionId) -> Vec<Contact> {
        let at = self.untold.iter().position(|(untold, _)| *untold == session);
        at.and_then(|at| self.untold.remove(at)).map(|(_, contacts)| contacts.take()).unwrap_or_default()
    }

    fn keep_contacts(&mut self, session: &Session) {
        let Some(contacts) = session.egress().map(Egress::contacts).filter(|contacts| !contacts.is_empty()) else {
            return;
        };
        self.untold.retain(|(untold, _)| *untold != session.id);
        self.untold.push_back((session.id, contacts));
        if self.untold.len() > UNTOLD_MAX {
            self.untold.pop_front();
        }
    }
}

fn stale() -> Failure {
    Failure::new(ErrorCode::PermissionDenied, "The lease is stale: the session was assigned again since.")
}

/// Sessions that are being opened or closed: each by one request at a time, so that none has two lives. As many as requests
/// are under way, which the link bounds.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<SessionId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for whoever opens or closes this session, and for nobody else.
    pub async fn of(&self, session: SessionId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(session).or_default())
        };
        turn.lock_owned().await
    }
}
