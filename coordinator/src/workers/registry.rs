//! What the coordinator knows of its workers: a plain table behind one lock, without any waiting. `placing` is how it is
//! looked at, for placement and by people.

mod placing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::{Heartbeat, RegisterWorker, Secret};
use codegen_types::{Capabilities, HostUse, Incarnation, WorkerId};
use coordinator_core::placement::{self, Slots};
use coordinator_core::worker::{Admittance, GoneWhy, Timing, WorkerInput, WorkerState, WorkerStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::awaited::Awaited;
use super::dialling::Target;
use super::joining::Credential;
use super::link::{Link, LinkState};
use super::pace::{Joins, Pace};
use super::said::{Change, Heard, Issued, WorkerRefused};
use super::secrets::Fingerprint;
use super::slots::SlotBook;
use crate::config::SecretsWorkers;

/// The workers that have joined and are not gone, one life of each.
pub(crate) struct Registry {
    workers: BTreeMap<WorkerId, Entry>,
    pub(super) awaited: Awaited,
    /// Names of which an operator said something, whether or not such a worker is there.
    admittances: BTreeMap<WorkerId, Admittance>,
    joins: Joins,
    /// Whose worker session it is that has this fingerprint.
    sessions: HashMap<Fingerprint, WorkerId>,
    timing: Timing,
    /// How often a worker shall say that it lives.
    heartbeat_interval: Duration,
    workers_max: usize,
    sessions_per_worker_max: u32,
    /// Which workers are told the operator's secrets.
    secrets: SecretsWorkers,
}

/// One life of a worker.
struct Entry {
    incarnation: Incarnation,
    state: WorkerState,
    heard: Duration,
    capabilities: Capabilities,
    /// Of these, what placement asks for.
    placing: placement::Capabilities,
    version: String,
    session: Fingerprint,
    /// How often it speaks.
    pace: Mutex<Pace>,
    credential: Credential,
    /// Where it is dialled, if it asked for that.
    target: Option<Target>,
    /// What of its host is in use, as it said last.
    used: HostUse,
    ticket: Option<Ticket>,
    link: watch::Sender<LinkState>,
    slots: SlotBook,
}

/// A link ticket that was not used yet.
struct Ticket {
    fingerprint: Fingerprint,
    until: Duration,
    /// Cancelled when it is used or replaced, and when the life is over that it is for.
    void: CancellationToken,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.void.cancel();
    }
}

impl Registry {
    pub(crate) fn new(
        timing: Timing,
        heartbeat_interval: Duration,
        workers_max: usize,
        sessions_per_worker_max: u32,
        secrets: SecretsWorkers,
    ) -> Self {
        Self {
            workers: BTreeMap::new(),
            awaited: Awaited::default(),
            admittances: BTreeMap::new(),
            // Those that are known, and as many that just left.
            joins: Joins::new(workers_max.saturating_mul(2)),
            sessions: HashMap::new(),
            timing,
            heartbeat_interval,
            workers_max,
            sessions_per_worker_max,
            secrets,
        }
    }

    /// Lets a life of a worker in. The same incarnation resumes where it was; another one supersedes, when it proves to
    /// be that worker: by a token or certificate of its own, or by the name of the life before it. Who only shares a
    /// token with others takes over from a worker that shared it, too, and was away for as long as it may come back as
    /// if nothing had happened.
    pub(crate) fn register(
        &mut self,
        request: RegisterWorker,
        issued: &Issued,
        now: Duration,
    ) -> Result<Vec<Change>, WorkerRefused> {
        let RegisterWorker {
            worker, incarnation, capabilities, held, held_is_partial, version, draining, follows, ..
        } = request;
        let mut changes = Vec::new();
        let known = self.workers.get(&worker);
        match known {
            _ if !self.admits(&worker, [Some(incarnation), follows], &issued.credential, now) => {
                return Err(WorkerRefused::NameTaken);
            }
            None if !self.has_room(&issued.credential) => return Err(WorkerRefused::TooMany),
            Some(_) | None => {}
        }
        let other_life = known.filter(|entry| entry.incarnation != incarnation);
        let (supersedes, takes_over) = (other_life.is_some(), other_life.is_some_and(Entry::is_linked));
        self.joins.count(&worker, issued.credential.shared_by(), takes_over, now)?;
        if supersedes {
            changes.extend(self.end(&worker, WorkerInput::Supersede, now));
        }
        if let Some(earlier) = self.awaited.came(&worker, incarnation) {
            let why = GoneWhy::Superseded;
            changes.push(Change::Gone { worker: worker.clone(), incarnation: earlier, why });
        }
        let trust = issued.credential.trust(&worker, self.secrets);
        let entry = self.workers.entry(worker.clone()).or_insert_with(|| Entry {
            incarnation,
            state: WorkerState::joined(now),
            heard: now,
            placing: placing::of(&capabilities, trust),
            capabilities: capabilities.clone(),
            version: String::new(),
            session: Fingerprint::of(&issued.session),
            pace: Mutex::default(),
            credential: issued.credential.clone(),
            target: None,
            used: HostUse::default(),
            ticket: None,
            link: watch::Sender::new(LinkState::Down),
            slots: SlotBook::default(),
        });
        entry.slots.seed(capabilities.sessions_max.min(self.sessions_per_worker_max), &held);
        entry.placing = placing::of(&capabilities, trust);
        entry.capabilities = capabilities;
        entry.version = version;
        self.sessions.remove(&entry.session);
        entry.session = Fingerprint::of(&issued.session);
        self.sessions.insert(entry.session, worker.clone());
        entry.credential = issued.credential.clone();
        entry.target.clone_from(&issued.target);
        entry.expect_link(&issued.ticket, issued.ticket_until);
        entry.hear(now, &self.timing);
        if draining {
            entry.state = entry.state.step(WorkerInput::Drain, now, &self.timing);
        }
        changes.push(Change::Joined { worker, incarnation, held, held_is_partial });
        Ok(changes)
    }

    /// Whether one more worker may be known. Those that share a token leave half of the places to others, so that whoever
    /// has it fills not all of them with names that it invents.
    fn has_room(&self, credential: &Credential) -> bool {
        let shared_by = |entry: &Entry| entry.credential.shared_by() == credential.shared_by();
        let shares = credential.shared_by().is_some();
        self.workers.len() < self.workers_max
            && !(shares
                && self.workers.values().filter(|entry| shared_by(entry)).count() >= self.workers_max.div_ceil(2))
    }

    /// Whether somebody who has joined shows this worker session, and does not call too often.
    pub(crate) fn hear(&self, session: &str, now: Duration) -> Result<(), WorkerRefused> {
        /// Calls in a row: a worker whose link flaps asks for tickets.
        const BURST: u32 = 10;
        /// So much more often than it shall, a worker may speak.
        const OFTEN: u32 = 30;
        let worker = self.sessions.get(&Fingerprint::of_text(session)).ok_or(WorkerRefused::NotRegistered)?;
        let entry = self.workers.get(worker).ok_or(WorkerRefused::NotRegistered)?;
        let may = entry.pace.lock().take(BURST, self.heartbeat_interval / OFTEN, now);
        if may { Ok(()) } else { Err(WorkerRefused::TooOften) }
    }

    /// Notes that a worker lives. Answers whether its link is up.
    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat, session: &str, now: Duration) -> Result<Heard, WorkerRefused> {
        let timing = self.timing;
        let entry = self.authenticated(&beat.worker, beat.incarnation, session)?;
        if entry.credential.is_over() {
            return Err(WorkerRefused::CredentialOver);
        }
        entry.slots.settle(&beat.held);
        entry.used = beat.used;
        entry.hear(now, &timing);
        if beat.draining {
            entry.state = entry.state.step(WorkerInput::Drain, now, &timing);
        }
        Ok(if entry.is_linked() { Heard::Linked } else { Heard::LinkDown { target: entry.target.clone() } })
    }

    /// The ticket with which the worker may open its link again; an earlier one is void.
    pub(crate) fn issue_ticket(
        &mut self,
        worker: &WorkerId,
        incarnation: Incarnation,
        ticket: &Secret,
        until: Duration,
    ) {
        if let Some(entry) = self.life(worker, incarnation) {
            entry.expect_link(ticket, until);
        }
    }

    /// A worker says goodbye.
    pub(crate) fn leave(
        &mut self,
        worker: &WorkerId,
        incarnation: Incarnation,
        session: &str,
        now: Duration,
    ) -> Result<Option<Change>, WorkerRefused> {
        self.authenticated(worker, incarnation, session)?;
        Ok(self.end(worker, WorkerInput::Leave, now))
    }

    /// The coordinator knows by itself that this life is over.
    pub(crate) fn ended(&mut self, worker: &WorkerId, incarnation: Incarnation, now: Duration) -> Option<Change> {
        self.life(worker, incarnation)?;
        self.end(worker, WorkerInput::Leave, now)
    }

    /// Uses up a ticket: it is void after any attempt that named its incarnation and knew it.
    pub(crate) fn redeem_ticket(
        &mut self,
        incarnation: Incarnation,
        ticket: &str,
        now: Duration,
    ) -> Result<WorkerId, WorkerRefused> {
        // By the ticket, too: nothing keeps a worker from naming another's incarnation as its own.
        let expects =
            |entry: &Entry| entry.ticket.as_ref().is_some_and(|expected| expected.fingerprint.matches(ticket));
        let found = self.workers.iter_mut().find(|(_, entry)| entry.incarnation == incarnation && expects(entry));
        let (worker, entry) = found.ok_or(WorkerRefused::Ticket)?;
        let in_time = entry.ticket.take().is_some_and(|expected| now <= expected.until);
        if in_time { Ok(worker.clone()) } else { Err(WorkerRefused::Ticket) }
    }

    /// What placement looks at in a worker, to see whether anything of it changed.
    pub(crate) fn room(&self, worker: &WorkerId) -> Option<(WorkerStatus, Slots)> {
        self.workers.get(worker).map(|entry| (entry.state.status(), entry.slots.view()))
    }

    /// Cancelled when the present ticket of a life can be used no more.
    pub(crate) fn ticket_void(&self, worker: &WorkerId, incarnation: Incarnation) -> Option<CancellationToken> {
        let entry = self.workers.get(worker).filter(|entry| entry.incarnation == incarnation)?;
        entry.ticket.as_ref().map(|ticket| ticket.void.clone())
    }

    /// A link is up; one that was there before is cut.
    pub(crate) fn attach_link(&mut self, worker: &WorkerId, incarnation: Incarnation, link: Link, now: Duration) {
        let timing = self.timing;
        match self.life(worker, incarnation) {
            // A socket that broke at once has announced its end already and must not be announced as up.
            Some(_) if link.is_over() => {}
            Some(entry) => {
                entry.cut_link(LinkState::Up(Arc::new(link)));
                entry.state = entry.state.step(WorkerInput::LinkUp, now, &timing);
            }
            None => link.cut(),
        }
    }

    /// The link with this number broke. Of an older link it is no news.
    pub(crate) fn link_gone(&mut self, worker: &WorkerId, incarnation: Incarnation, number: u64, now: Duration) {
        let timing = self.timing;
        let Some(entry) = self.life(worker, incarnation) else { return };
        let current = matches!(&*entry.link.borrow(), LinkState::Up(link) if link.number() == number);
        if current {
            entry.link.send_replace(LinkState::Down);
            entry.state = entry.state.step(WorkerInput::LinkDown, now, &timing);
        }
    }

    /// Where the link of this life stands, as it changes; `None` when that life is over.
    pub(crate) fn link(&self, worker: &WorkerId, incarnation: Incarnation) -> Option<watch::Receiver<LinkState>> {
        let entry = self.workers.get(worker).filter(|entry| entry.incarnation == incarnation)?;
        Some(entry.link.subscribe())
    }

    /// The workers known.
    pub(crate) fn names(&self) -> Vec<WorkerId> {
        self.workers.keys().cloned().collect()
    }

    /// Time has passed for one worker.
    pub(crate) fn tick(&mut self, worker: &WorkerId, now: Duration) -> Option<Change> {
        let over = self.workers.get(worker).is_some_and(|entry| entry.credential.is_over());
        self.end(worker, if over { WorkerInput::Dismiss } else { WorkerInput::Tick }, now)
    }

    /// Cuts every link and forgets every worker.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
        for entry in std::mem::take(&mut self.workers).into_values() {
            entry.cut_link(LinkState::Over);
        }
    }

    /// Whether a registration may go on in this worker's name, which is of one of these lives, or follows it.
    fn admits(
        &self,
        worker: &WorkerId,
        lives: [Option<Incarnation>; 2],
        credential: &Credential,
        now: Duration,
    ) -> bool {
        let mut named = lives.into_iter().flatten();
        credential.names_its_worker()
            || match self.workers.get(worker) {
                Some(entry) => entry.yields_to(lives, now, &self.timing),
                None => !named.all(|life| self.awaited.is_kept_from(worker, life, now)),
            }
    }

    fn life(&mut self, worker: &WorkerId, incarnation: Incarnation) -> Option<&mut Entry> {
        self.workers.get_mut(worker).filter(|entry| entry.incarnation == incarnation)
    }

    fn authenticated(
        &mut self,
        worker: &WorkerId,
        incarnation: Incarnation,
        session: &str,
    ) -> Result<&mut Entry, WorkerRefused> {
        let entry = self.life(worker, incarnation).ok_or(WorkerRefused::NotRegistered)?;
        if entry.session.matches(session) { Ok(entry) } else { Err(WorkerRefused::NotRegistered) }
    }

    /// Applies an input that may end a life; when it does, the life leaves the table and its link is cut.
    fn end(&mut self, worker: &WorkerId, input: WorkerInput, now: Duration) -> Option<Change> {
        let timing = self.timing;
        let entry = self.workers.get_mut(worker)?;
        entry.state = entry.state.step(input, now, &timing);
        let WorkerState::Gone { why, .. } = entry.state else { return None };
        let entry = self.workers.remove(worker)?;
        self.sessions.remove(&entry.session);
        entry.cut_link(LinkState::Over);
        Some(Change::Gone { worker: worker.clone(), incarnation: entry.incarnation, why })
    }
}

impl Entry {
    /// Whether it gives way to who does not prove to be this worker, but says to be one of these lives, or to follow it.
    fn yields_to(&self, lives: [Option<Incarnation>; 2], now: Duration, timing: &Timing) -> bool {
        let is_away = || now.saturating_sub(self.last_seen(now)) > timing.reconnect_grace;
        !self.credential.names_its_worker() && (lives.contains(&Some(self.incarnation)) || is_away())
    }

    /// Since when there is no link; now, while there is one.
    fn last_seen(&self, now: Duration) -> Duration {
        match self.state {
            _ if self.is_linked() => now,
            WorkerState::Suspect { since, .. } => since,
            WorkerState::Joining { .. } | WorkerState::Healthy { .. } | WorkerState::Draining { .. } => self.heard,
            WorkerState::Gone { at, .. } => at,
        }
    }

    fn is_linked(&self) -> bool {
        matches!(&*self.link.borrow(), LinkState::Up(_))
    }

    fn cut_link(&self, next: LinkState) {
        if let LinkState::Up(link) = self.link.send_replace(next) {
            link.cut();
        }
    }

    fn expect_link(&mut self, ticket: &Secret, until: Duration) {
        self.ticket = Some(Ticket { fingerprint: Fingerprint::of(ticket), until, void: CancellationToken::new() });
    }

    fn hear(&mut self, now: Duration, timing: &Timing) {
        self.heard = now;
        self.state = self.state.step(WorkerInput::Heartbeat, now, timing);
        // Late heartbeats made it suspect although its link held; only a link makes a worker healthy, and it has one.
        if matches!(self.state, WorkerState::Suspect { .. }) && self.is_linked() {
            self.state = self.state.step(WorkerInput::LinkUp, now, timing);
        }
    }
}
