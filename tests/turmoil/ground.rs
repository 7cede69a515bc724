//! What is true, whoever knows it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::Audit;
use codegen_types::{Epoch, ErrorCode, Incarnation, SessionId, TaskId, WorkerId};
use coordinator::store::Memory;
use coordinator::workers::Workers;
use parking_lot::Mutex;
use sandbox::fake::FakeRun;
use worker::simulated::Simulated;

use crate::flaws::Flaw;
use crate::random::Random;

pub const WORKERS: usize = 3;

/// How often the interesting things happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub finished: u64,
    pub unknown: u64,
    pub refused: u64,
    pub repeated: u64,
    pub placed: u64,
    pub coordinator_deaths: u64,
    pub worker_deaths: u64,
    pub cuts: u64,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.finished += other.finished;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.repeated += other.repeated;
        self.placed += other.placed;
        self.coordinator_deaths += other.coordinator_deaths;
        self.worker_deaths += other.worker_deaths;
        self.cuts += other.cuts;
    }
}

/// What a caller was told for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Result(Vec<u8>),
    Failed(ErrorCode),
}

/// A call of one program; repetitions under its key are attempts, too.
#[derive(Debug, Clone)]
pub struct Call {
    pub session: SessionId,
    pub key: Option<String>,
    pub attempts: Vec<(TaskId, Option<Told>)>,
}

/// What the present life of the coordinator consists of.
pub struct Present {
    pub audit: Audit,
    pub workers: Workers,
}

/// One life of a worker.
pub struct Life {
    pub incarnation: Incarnation,
    pub worker: Arc<Simulated>,
}

pub struct Truth {
    pub random: Random,
    pub counts: Counts,
    pub now: Duration,
    pub is_peace: bool,
    /// Set when everything is to be looked at for the last time; what that found is the answer.
    pub must_settle: bool,
    pub settled: Option<Result<(), String>>,
    pub sessions: Vec<SessionId>,
    pub calls: BTreeMap<u64, Call>,
    pub starts: BTreeMap<u64, u32>,
    holders: BTreeMap<(SessionId, Epoch), (WorkerId, Incarnation)>,
    pub present: Option<Present>,
    pub lives: BTreeMap<usize, Life>,
    /// What the coordinator's next life begins with.
    pub log: PathBuf,
    pub store: Arc<Memory>,
    pub broken: Option<String>,
    pub story: Vec<String>,
}

/// Shared by everything in one history, which is all in one thread.
pub struct Ground {
    pub flaw: Option<Flaw>,
    /// How many sessions each worker has at once.
    pub slots: [u32; WORKERS],
    pub dir: tempfile::TempDir,
    /// Tokens of the workers, which outlive every log and store.
    pub tokens: Arc<Memory>,
    truth: Mutex<Truth>,
}

impl Ground {
    pub fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let mut random = Random::of(seed);
        let slots = std::array::from_fn(|_| 1 + u32::try_from(random.below(3)).unwrap());
        // In memory where that is to be had: a disk's time is not that of the simulation.
        let fast = std::path::Path::new("/dev/shm");
        let dir = if fast.is_dir() { tempfile::tempdir_in(fast) } else { tempfile::tempdir() }.unwrap();
        let truth = Truth {
            random,
            counts: Counts::default(),
            now: Duration::ZERO,
            is_peace: false,
            must_settle: false,
            settled: None,
            sessions: Vec::new(),
            calls: BTreeMap::new(),
            starts: BTreeMap::new(),
            holders: BTreeMap::new(),
            present: None,
            lives: BTreeMap::new(),
            log: dir.path().join("log-1"),
            store: Arc::default(),
            broken: None,
            story: Vec::new(),
        };
        Self { flaw, slots, dir, tokens: Arc::default(), truth: Mutex::new(truth) }
    }

    /// Looks at the truth, or changes it. Nothing is awaited meanwhile.
    pub fn with<T>(&self, what: impl FnOnce(&mut Truth) -> T) -> T {
        what(&mut self.truth.lock())
    }

    pub fn tell(&self, line: impl std::fmt::Display) {
        self.with(|truth| truth.tell(line));
    }

    /// The program of this number starts; gives what it does.
    pub fn started(&self, number: u64) -> FakeRun {
        self.with(|truth| {
            let starts = truth.starts.entry(number).or_default();
            *starts += 1;
            if *starts > 1 {
                truth.broken = Some(format!("program {number} was started twice"));
            }
            truth.tell(format_args!("program {number} starts"));
            let mut pause = |below| Duration::from_millis(10 + truth.random.below(below));
            let later = vec![
                (pause(4_000), line("middle", number).into_bytes()),
                (pause(9_000), line("end", number).into_bytes()),
            ];
            FakeRun { stdout: line("begin", number).into_bytes(), later, ..FakeRun::default() }
        })
    }

    /// Looks at who has which sessions at this moment.
    pub fn sample(&self) {
        self.with(|truth| {
            let mut broken = None;
            for (number, life) in &truth.lives {
                let open = life.worker.open_sessions();
                if open.len() > self.slots[*number] as usize {
                    broken = Some(format!("worker {number} has {} sessions", open.len()));
                }
                for lease in open {
                    let holder = (name(*number), life.incarnation);
                    let placed = &mut truth.counts.placed;
                    let first = truth.holders.entry(lease).or_insert_with(|| {
                        *placed += 1;
                        holder.clone()
                    });
                    if *first != holder {
                        let (session, Epoch(epoch)) = lease;
                        broken = Some(format!("{session} is live on two workers under epoch {epoch}"));
                    }
                }
            }
            truth.broken = truth.broken.take().or(broken);
        });
    }

    /// Looks at what the coordinator thinks of its workers at this moment.
    pub fn look_for_overbooking(&self) {
        self.with(|truth| {
            let rows = truth.present.iter().flat_map(|present| present.workers.snapshot());
            let over = rows.into_iter().find(|row| row.slots.used + row.slots.reserved > row.slots.total);
            let over = over.map(|row| format!("the coordinator overbooks {}: {:?}", row.id, row.slots));
            truth.broken = truth.broken.take().or(over);
        });
    }
}

impl Truth {
    pub fn tell(&mut self, line: impl std::fmt::Display) {
        self.story.push(format!("{:7.2} {line}", self.now.as_secs_f64()));
    }
}

pub fn name(worker: usize) -> WorkerId {
    format!("w{worker}").parse().unwrap()
}

fn line(part: &str, number: u64) -> String {
    format!("{part} {number}\n")
}

/// What a program writes when it is not ended before.
pub fn output_of(number: u64) -> Vec<u8> {
    ["begin", "middle", "end"].map(|part| line(part, number)).concat().into_bytes()
}
