//! A network that delays, reorders and duplicates, and is cut for a while. Everything that is lost breaks the link that
//! it was lost on, as a connection does.

use codegen_types::{Epoch, Incarnation, Lease, SessionId, TaskId};

use crate::random::Random;

/// What goes from one side to the other.
#[derive(Debug, Clone)]
pub enum Message {
    /// By which link from now on, and what the worker has.
    Register {
        incarnation: Incarnation,
        held: Vec<Held>,
    },
    Registered,
    Open {
        session: SessionId,
        lease: Lease,
    },
    Opened {
        session: SessionId,
        lease: Lease,
        created: bool,
    },
    NotOpened {
        session: SessionId,
        lease: Lease,
    },
    Close {
        session: SessionId,
        lease: Lease,
        delete: bool,
    },
    Deleted {
        session: SessionId,
        lease: Lease,
    },
    Execute {
        task: TaskId,
        /// Answers say which call they answer.
        call: u64,
        session: SessionId,
        lease: Lease,
    },
    /// It was not started by this message, and was not before.
    NotStarted {
        task: TaskId,
        /// Answers say which call they answer.
        call: u64,
        lease: Lease,
    },
    Attach {
        task: TaskId,
        /// Answers say which call they answer.
        call: u64,
        session: SessionId,
        lease: Lease,
    },
    /// What became of it is not told.
    NotTold {
        task: TaskId,
        /// Answers say which call they answer.
        call: u64,
    },
    Ended {
        task: TaskId,
        lease: Lease,
        result: u64,
    },
}

/// A session whose files a worker has.
#[derive(Debug, Clone)]
pub struct Held {
    pub session: SessionId,
    pub epoch: Epoch,
    /// Whether it has processes.
    pub open: bool,
    pub tasks: Vec<TaskId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Coordinator,
    Worker,
}

/// A message on the link of one worker.
#[derive(Debug, Clone)]
pub struct Letter {
    pub worker: usize,
    pub link: u64,
    pub to: To,
    pub message: Message,
}

pub struct Network {
    flying: Vec<(u64, u64, Letter)>,
    sent: u64,
    cut_until: Vec<u64>,
    /// Workers whose links lost a message.
    pub broken: Vec<usize>,
    pub duplicates: u64,
}

impl Network {
    pub fn new(workers: usize) -> Self {
        Self { flying: Vec::new(), sent: 0, cut_until: vec![0; workers], broken: Vec::new(), duplicates: 0 }
    }

    pub fn cut(&mut self, worker: usize, until: u64) {
        self.cut_until[worker] = until;
    }

    pub fn is_cut(&self, worker: usize, now: u64) -> bool {
        now < self.cut_until[worker]
    }

    /// What was on its way to or from a process that is gone is gone, too.
    pub fn forget(&mut self, worker: Option<usize>) {
        self.flying.retain(|(_, _, letter)| worker.is_some_and(|worker| letter.worker != worker));
    }

    pub fn send(&mut self, random: &mut Random, now: u64, letter: Letter) {
        if random.one_in(60) {
            return self.broken.push(letter.worker);
        }
        let copies = if random.one_in(10) { 2 } else { 1 };
        self.duplicates += copies - 1;
        for _ in 0..copies {
            let delay = if random.one_in(12) { random.below(40) } else { random.below(3) };
            self.sent += 1;
            self.flying.push((now + 1 + delay, self.sent, letter.clone()));
        }
    }

    /// What arrives now. What meets a cut is lost.
    pub fn arriving(&mut self, now: u64) -> Vec<Letter> {
        if self.flying.iter().all(|(at, _, _)| *at > now) {
            return Vec::new();
        }
        let (mut due, rest): (Vec<_>, Vec<_>) = self.flying.drain(..).partition(|(at, _, _)| *at <= now);
        self.flying = rest;
        due.sort_by_key(|(at, order, _)| (*at, *order));
        let (lost, came): (Vec<_>, Vec<_>) =
            due.into_iter().map(|(_, _, letter)| letter).partition(|letter| now < self.cut_until[letter.worker]);
        self.broken.extend(lost.into_iter().map(|letter| letter.worker));
        came
    }
}
