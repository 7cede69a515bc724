//! One history: a coordinator, workers, clients, and everything that goes wrong.

use std::collections::BTreeMap;

use codegen_types::{Epoch, Incarnation, Lease, SessionId, TaskId, WorkerId};
use coordinator_core::session::{CloseReason, Session, SessionState};
use coordinator_core::task::TaskState;
use uuid::Uuid;

use crate::coordinator::{Coordinator, TIMING};
use crate::network::{Letter, Message, Network, To};
use crate::random::Random;
use crate::worker::{Worker, result_of};

const WORKERS: usize = 3;
/// How long things go wrong, in seconds.
const TROUBLE: u64 = 240;
/// How long it then takes at most until everything is settled: the longest patience, and what follows from a result that
/// comes at its end.
const PEACE: u64 = 170;

/// A mistake that is built in, to show that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A worker starts every task that it is sent.
    WorkerForgetsIds,
    /// A task whose outcome is lost is sent once more.
    RunsAgain,
    /// A task whose outcome is lost is said not to have been run.
    CallsUnknownNotRun,
    /// A session that is opened again keeps its epoch.
    UsesAnEpochTwice,
    /// Placement does not count what is promised.
    ForgetsReservations,
    /// A result is told before it is on disk.
    AnswersBeforeTheLog,
    /// A worker that comes back is not asked to end what is at rest here.
    LeavesProcesses,
    /// A worker that comes back is not told of what was closed meanwhile.
    ForgetsTheClosed,
}

impl Flaw {
    pub const ALL: [Self; 8] = [
        Self::WorkerForgetsIds,
        Self::RunsAgain,
        Self::CallsUnknownNotRun,
        Self::UsesAnEpochTwice,
        Self::ForgetsReservations,
        Self::AnswersBeforeTheLog,
        Self::LeavesProcesses,
        Self::ForgetsTheClosed,
    ];
}

/// How often the interesting things happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub finished: u64,
    pub unknown: u64,
    pub resolved: u64,
    pub recovered: u64,
    pub lost_sessions: u64,
    pub reopened: u64,
    pub stale: u64,
    pub duplicates: u64,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.finished += other.finished;
        self.unknown += other.unknown;
        self.resolved += other.resolved;
        self.recovered += other.recovered;
        self.lost_sessions += other.lost_sessions;
        self.reopened += other.reopened;
        self.stale += other.stale;
        self.duplicates += other.duplicates;
    }
}

/// What is true, whoever knows it.
pub struct Ground {
    pub random: Random,
    pub flaw: Option<Flaw>,
    pub counts: Counts,
    /// What clients were told, for good.
    pub acknowledged: BTreeMap<TaskId, u64>,
    starts: BTreeMap<TaskId, u32>,
    holders: BTreeMap<(SessionId, Epoch), (WorkerId, Incarnation)>,
    broken: Option<String>,
    story: Option<Vec<String>>,
}

impl Ground {
    pub fn started(&mut self, task: TaskId) {
        let starts = self.starts.entry(task).or_default();
        *starts += 1;
        if *starts > 1 {
            self.broken = Some(format!("{task} was started twice"));
        }
    }

    pub fn opened(&mut self, session: SessionId, lease: &Lease) {
        let holder = (lease.worker.clone(), lease.incarnation);
        let first = self.holders.entry((session, lease.epoch)).or_insert_with(|| holder.clone());
        if *first != holder {
            self.broken = Some(format!("{session} is live on two workers under epoch {}", lease.epoch.0));
        }
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }
}

pub struct World {
    ground: Ground,
    coordinator: Coordinator,
    workers: Vec<Worker>,
    network: Network,
    lives: u128,
    ids: u128,
    now: u64,
    is_down_until: u64,
}

impl World {
    pub fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let mut random = Random::of(seed);
        let slots: Vec<u32> = (0..WORKERS).map(|_| 1 + u32::try_from(random.below(3)).unwrap()).collect();
        let workers = slots.iter().enumerate().map(|(number, slots)| Worker::new(number, 1, *slots)).collect();
        let (counts, acknowledged, starts, holders) = Default::default();
        let ground = Ground { random, flaw, counts, acknowledged, starts, holders, broken: None, story: None };
        let (coordinator, network) = (Coordinator::new(slots), Network::new(WORKERS));
        Self { ground, coordinator, workers, network, lives: 1, ids: 0, now: 0, is_down_until: 0 }
    }

    /// Keeps what happens.
    pub fn telling(mut self) -> Self {
        self.ground.story = Some(Vec::new());
        self
    }

    pub fn story(&self) -> String {
        self.ground.story.as_deref().unwrap_or_default().join("\n")
    }

    pub fn counts(&self) -> Counts {
        Counts { duplicates: self.network.duplicates, ..self.ground.counts }
    }

    pub fn run(&mut self) -> Result<(), String> {
        for now in 1..=TROUBLE + PEACE {
            self.now = now;
            if now <= TROUBLE {
                self.trouble();
                self.clients();
            }
            self.tick();
            if let Some(worker) = self.coordinator.overbooked() {
                return Err(format!("at {now}: worker {worker} has more sessions than slots"));
            }
            if let Some(broken) = self.ground.broken.take() {
                return Err(format!("at {now}: {broken}"));
            }
        }
        self.settled()
    }

    fn trouble(&mut self) {
        let now = self.now;
        if self.ground.random.one_in(90) {
            self.is_down_until = now + self.ground.random.below(40);
            self.network.forget(None);
            self.workers.iter_mut().for_each(|worker| worker.linked = false);
            self.ground.tell(|| format!("{now}: the coordinator dies"));
            self.coordinator.restart(now, &mut self.ground);
        }
        let worker = usize::try_from(self.ground.random.below(WORKERS as u64)).unwrap();
        if self.ground.random.one_in(80) {
            self.lives += 1;
            self.network.forget(Some(worker));
            let keeps_disk = self.ground.random.one_in(2);
            self.workers[worker].restart(self.lives, keeps_disk);
            self.coordinator.link_down(worker, now);
            self.ground.tell(|| format!("{now}: worker {worker} dies, its disk is kept: {keeps_disk}"));
        }
        if self.ground.random.one_in(40) {
            let at_most = if self.ground.random.one_in(3) { 90 } else { 12 };
            let long = 1 + self.ground.random.below(at_most);
            self.network.cut(worker, now + long);
            self.ground.tell(|| format!("{now}: worker {worker} is cut off for {long} s"));
        }
    }

    fn clients(&mut self) {
        if self.is_down() {
            return;
        }
        self.ids += 2;
        let (session, task) = (Uuid::from_u128(self.ids), Uuid::from_u128(self.ids + 1));
        let known = self.coordinator.sessions.keys().copied().collect::<Vec<SessionId>>();
        let one =
            (!known.is_empty()).then(|| known[usize::try_from(self.ground.random.below(known.len() as u64)).unwrap()]);
        let (now, ground) = (self.now, &mut self.ground);
        match (ground.random.below(20), one) {
            (0..3, _) if known.len() < 9 => self.coordinator.create(SessionId::from_uuid(session), now, ground),
            (3..10, Some(one)) => self.coordinator.run(TaskId::from_uuid(task), one, now, ground),
            (10, Some(one)) if ground.random.one_in(5) => self.coordinator.close(one, now, ground),
            (11, Some(one)) => self.coordinator.idle(one, now, ground),
            _ => {}
        }
    }

    fn is_down(&self) -> bool {
        self.now < self.is_down_until
    }

    fn tick(&mut self) {
        let now = self.now;
        for letter in self.network.arriving(now) {
            self.deliver(letter);
        }
        self.join();
        for number in 0..WORKERS {
            for message in self.workers[number].tick(now) {
                self.answer(number, message);
            }
            if now.is_multiple_of(5)
                && self.workers[number].linked
                && !self.network.is_cut(number, now)
                && !self.is_down()
            {
                self.coordinator.heartbeat(number, now);
            }
        }
        if !self.is_down() {
            self.coordinator.tick(now, &mut self.ground);
            // What its worker could not delete, it is asked to delete again.
            if now.is_multiple_of(20) {
                let closing = |state: &SessionState| matches!(state, SessionState::Closing { .. });
                let again = self.coordinator.sessions.iter().filter(|(_, session)| closing(&session.state));
                for session in again.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.coordinator.idle(session, now, &mut self.ground);
                }
            }
        }
        self.send();
        self.break_links();
    }

    fn join(&mut self) {
        for number in 0..WORKERS {
            let is_apart = self.network.is_cut(number, self.now) || self.is_down();
            if self.workers[number].linked || is_apart || !self.ground.random.one_in(3) {
                continue;
            }
            let message = self.workers[number].register();
            let letter = Letter { worker: number, link: self.workers[number].link, to: To::Coordinator, message };
            self.network.send(&mut self.ground.random, self.now, letter);
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { worker, link, to, message } = letter;
        let now = self.now;
        self.ground.tell(|| format!("{now}: {to:?} {worker} by link {link} gets {message:?}"));
        match (to, message) {
            (To::Coordinator, _) if self.is_down() => {}
            (To::Coordinator, Message::Register { incarnation, held }) => {
                if self.coordinator.register(worker, link, (incarnation, held), now, &mut self.ground) {
                    self.coordinator.outbox.insert(0, (worker, link, Message::Registered));
                }
            }
            (To::Coordinator, message) if self.coordinator.link_of(worker) == Some(link) => {
                self.coordinator.take(worker, message, now, &mut self.ground);
            }
            (To::Worker, _) if self.workers[worker].link != link => {}
            (To::Worker, Message::Registered) => self.workers[worker].linked = true,
            (To::Worker, message) => {
                if let Some(answer) = self.workers[worker].take(message, now, &mut self.ground) {
                    self.answer(worker, answer);
                }
            }
            (To::Coordinator, _) => {}
        }
    }

    fn answer(&mut self, worker: usize, message: Message) {
        let letter = Letter { worker, link: self.workers[worker].link, to: To::Coordinator, message };
        self.network.send(&mut self.ground.random, self.now, letter);
    }

    fn send(&mut self) {
        for (worker, link, message) in std::mem::take(&mut self.coordinator.outbox) {
            let letter = Letter { worker, link, to: To::Worker, message };
            self.network.send(&mut self.ground.random, self.now, letter);
        }
    }

    /// A link that lost something is a broken one; one that is silent for as long as two pings is, too.
    fn break_links(&mut self) {
        let silent = (0..WORKERS).filter(|worker| self.network.is_cut(*worker, self.now));
        let noticed = silent.filter(|_| self.now.is_multiple_of(TIMING.keep_alive.as_secs())).collect::<Vec<_>>();
        for worker in self.network.broken.drain(..).chain(noticed) {
            self.coordinator.link_down(worker, self.now);
            self.workers[worker].unlink();
        }
    }

    /// What must be so in the end.
    fn settled(&self) -> Result<(), String> {
        let ground = &self.ground;
        for (task, row) in &self.coordinator.tasks {
            let starts = ground.starts.get(task).copied().unwrap_or_default();
            if !row.state.is_over() {
                return Err(format!("{task} is still {}", row.state.name()));
            }
            if row.not_run && starts > 0 {
                return Err(format!("{task} was run and is said not to have been"));
            }
            if row.state == TaskState::Finished && (starts != 1 || row.result != Some(result_of(*task))) {
                return Err(format!("{task} has a result that is not its own"));
            }
        }
        for (task, told) in &ground.acknowledged {
            if self.coordinator.tasks.get(task).and_then(|row| row.result) != Some(*told) {
                return Err(format!("the result of {task} was told and is lost"));
            }
        }
        self.nothing_goes_on_unasked()
    }

    /// No worker that is there has processes of a session that does not know of them, or files of one that is over.
    fn nothing_goes_on_unasked(&self) -> Result<(), String> {
        for worker in self.workers.iter().filter(|worker| worker.linked) {
            let knows = |session: &SessionId, epoch: Epoch| {
                let state = self.coordinator.sessions.get(session).map(|session| &session.state);
                matches!(state, Some(SessionState::Ready { lease } | SessionState::Opening { lease, .. })
                    if (lease.incarnation, lease.epoch) == (worker.incarnation, epoch))
            };
            if let Some((session, _)) = worker.open_sessions().find(|(session, epoch)| !knows(session, *epoch)) {
                return Err(format!("{session} goes on on worker {} unasked", worker.number));
            }
            // One that never was ready has nothing in it.
            let is_over = |session: &Session| {
                matches!(session.state, SessionState::Closed { reason: CloseReason::Requested, .. })
            };
            let over = self.coordinator.sessions.iter().filter(|(_, session)| is_over(session));
            if let Some((session, _)) = over.into_iter().find(|(session, _)| worker.has_files(**session)) {
                return Err(format!("{session} is closed, and worker {} has its files", worker.number));
            }
        }
        Ok(())
    }
}
