//! The worker's side of the protocol: it starts no id twice and listens to no lease that another one has superseded.

use std::collections::{BTreeMap, BTreeSet};

use codegen_types::{Epoch, Incarnation, Lease, SessionId, TaskId};
use uuid::Uuid;

use crate::network::{Held, Message};
use crate::world::{Flaw, Ground};

pub struct Worker {
    pub number: usize,
    pub incarnation: Incarnation,
    pub slots: u32,
    pub link: u64,
    pub linked: bool,
    disk: BTreeSet<SessionId>,
    open: BTreeMap<SessionId, (Epoch, bool)>,
    closed: BTreeMap<SessionId, Epoch>,
    tasks: BTreeMap<TaskId, Task>,
}

struct Task {
    session: SessionId,
    lease: Lease,
    ends_at: u64,
    told: bool,
}

/// What a task gives follows from its id.
pub fn result_of(task: TaskId) -> u64 {
    task.to_string().bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

impl Worker {
    pub fn new(number: usize, life: u128, slots: u32) -> Self {
        let (disk, open, closed, tasks) = Default::default();
        Self {
            number,
            incarnation: incarnation(number, life),
            slots,
            link: 0,
            linked: false,
            disk,
            open,
            closed,
            tasks,
        }
    }

    /// A new life; its disk may have been taken with the old one.
    pub fn restart(&mut self, life: u128, keeps_disk: bool) {
        let disk = if keeps_disk { std::mem::take(&mut self.disk) } else { BTreeSet::new() };
        *self = Self { disk, link: self.link, ..Self::new(self.number, life, self.slots) };
    }

    /// Its link is broken: what still comes by it is not heard.
    pub fn unlink(&mut self) {
        self.linked = false;
        self.link += 1;
    }

    pub fn register(&mut self) -> Message {
        self.link += 1;
        let tasks =
            |of: SessionId| self.tasks.iter().filter(move |(_, t)| t.session == of).map(|(id, _)| *id).collect();
        let held = |session: &SessionId| Held {
            session: *session,
            epoch: self.newest(*session).unwrap_or_default(),
            open: self.open.contains_key(session),
            tasks: tasks(*session),
        };
        Message::Register { incarnation: self.incarnation, held: self.disk.iter().map(held).collect() }
    }

    /// The sessions that have processes here, and by which lease.
    pub fn open_sessions(&self) -> impl Iterator<Item = (SessionId, Epoch)> {
        self.open.iter().map(|(session, (epoch, _))| (*session, *epoch))
    }

    pub fn has_files(&self, session: SessionId) -> bool {
        self.disk.contains(&session)
    }

    /// Time has passed: gives what is to be told.
    pub fn tick(&mut self, now: u64) -> Vec<Message> {
        if !self.linked {
            return Vec::new();
        }
        let ended = self.tasks.iter_mut().filter(|(_, task)| !task.told && task.ends_at <= now);
        ended
            .map(|(id, task)| {
                task.told = true;
                Message::Ended { task: *id, lease: task.lease.clone(), result: result_of(*id) }
            })
            .collect()
    }

    fn newest(&self, session: SessionId) -> Option<Epoch> {
        self.open.get(&session).map(|(epoch, _)| *epoch).max(self.closed.get(&session).copied())
    }

    fn is_stale(&self, session: SessionId, lease: &Lease) -> bool {
        lease.incarnation != self.incarnation || self.newest(session).is_some_and(|newest| lease.epoch < newest)
    }

    pub fn take(&mut self, message: Message, now: u64, ground: &mut Ground) -> Option<Message> {
        match message {
            Message::Open { session, lease } => Some(self.open(session, lease, now, ground)),
            Message::Close { session, lease, delete } => self.close(session, lease, delete, ground),
            Message::Execute { task, call, session, lease } => self.execute((task, call), session, lease, now, ground),
            Message::Attach { task, call, session, lease } => self.attach((task, call), session, lease, now, ground),
            _ => None,
        }
    }

    fn open(&mut self, session: SessionId, lease: Lease, now: u64, ground: &mut Ground) -> Message {
        if self.is_stale(session, &lease) {
            ground.counts.stale += 1;
            return Message::NotOpened { session, lease };
        }
        if let Some((epoch, created)) = self.open.get(&session)
            && *epoch == lease.epoch
        {
            return Message::Opened { session, created: *created, lease };
        }
        let is_closed = self.closed.get(&session).is_some_and(|closed| *closed >= lease.epoch);
        let is_full = !self.open.contains_key(&session) && self.open.len() >= self.slots as usize;
        if is_closed || is_full {
            return Message::NotOpened { session, lease };
        }
        let earlier = self.tasks.values_mut().filter(|task| task.session == session);
        earlier.for_each(|task| task.ends_at = task.ends_at.min(now));
        let created = self.disk.insert(session);
        self.open.insert(session, (lease.epoch, created));
        ground.opened(session, &lease);
        Message::Opened { session, lease, created }
    }

    fn close(&mut self, session: SessionId, lease: Lease, delete: bool, ground: &mut Ground) -> Option<Message> {
        if self.is_stale(session, &lease) {
            ground.counts.stale += 1;
            return None;
        }
        self.open.remove(&session);
        self.closed.insert(session, lease.epoch);
        if !delete {
            return None;
        }
        self.disk.remove(&session);
        Some(Message::Deleted { session, lease })
    }

    fn execute(
        &mut self,
        (task, call): (TaskId, u64),
        session: SessionId,
        lease: Lease,
        now: u64,
        ground: &mut Ground,
    ) -> Option<Message> {
        let is_known = self.tasks.contains_key(&task) && ground.flaw != Some(Flaw::WorkerForgetsIds);
        if is_known && !self.is_stale(session, &lease) {
            return self.told(task, now);
        }
        let is_open = self.open.get(&session).is_some_and(|(epoch, _)| *epoch == lease.epoch);
        if lease.incarnation != self.incarnation || !is_open {
            ground.counts.stale += 1;
            return if is_known {
                Some(Message::NotTold { task, call })
            } else {
                Some(Message::NotStarted { task, call, lease })
            };
        }
        ground.started(task);
        let ends_at = now + ground.random.below(30);
        self.tasks.insert(task, Task { session, lease, ends_at, told: false });
        None
    }

    fn attach(
        &mut self,
        (task, call): (TaskId, u64),
        session: SessionId,
        lease: Lease,
        now: u64,
        ground: &mut Ground,
    ) -> Option<Message> {
        if self.is_stale(session, &lease) {
            ground.counts.stale += 1;
            return Some(Message::NotTold { task, call });
        }
        if self.tasks.contains_key(&task) {
            self.told(task, now)
        } else {
            Some(Message::NotStarted { task, call, lease })
        }
    }

    /// Its end again; one that has not ended is told of when it does.
    fn told(&mut self, id: TaskId, now: u64) -> Option<Message> {
        let task = self.tasks.get_mut(&id)?;
        task.told = task.ends_at <= now;
        task.told.then(|| Message::Ended { task: id, lease: task.lease.clone(), result: result_of(id) })
    }
}

pub fn incarnation(number: usize, life: u128) -> Incarnation {
    Incarnation::from_uuid(Uuid::from_u128(life * 100 + number as u128 + 1))
}
