//! One history: the hosts, and everything that goes wrong between them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use codegen_audit::Audit;
use codegen_types::Principal;
use coordinator::identity::{NewToken, Scope, Scopes, Tokens};
use turmoil::Sim;
use worker::simulated::Interpreters;

use crate::flaws::Flaw;
use crate::ground::{Counts, Ground, WORKERS, name};
use crate::hosts;
use crate::network::COORDINATOR;

/// How much time passes at once.
const TICK: Duration = Duration::from_millis(50);
const TICKS_IN_A_SECOND: u64 = 20;
/// How long things go wrong, in seconds.
const TROUBLE: u64 = 70;
/// How long it then takes at most until everything is settled: the longest patience, and some.
const PEACE: u64 = 70;
/// How long looking at everything may take.
const SETTLING: u64 = 30;
/// How long the log's disk may take, in the time of the machine.
const DISK_PATIENCE: Duration = Duration::from_secs(60);

/// What is between a worker and the coordinator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// What is sent is lost.
    Cut,
    /// What is sent arrives later.
    Held,
}

pub struct World {
    sim: Sim<'static>,
    ground: Arc<Ground>,
    between: [(Between, u64); WORKERS],
    /// Which hosts are down, and until when.
    down: BTreeMap<String, u64>,
    copies: u32,
    second: u64,
}

/// What programs are run with, and a runtime of real time to find it.
fn interpreters() -> Interpreters {
    static FOUND: OnceLock<Interpreters> = OnceLock::new();
    FOUND.get_or_init(|| on_the_clock(Interpreters::find())).clone()
}

fn on_the_clock<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

async fn token(tokens: &Tokens, worker: usize) -> String {
    let principal = format!("worker:{}", name(worker));
    let scopes = Scopes::from_iter([Scope::Worker]);
    let new = NewToken { principal, scopes, lifetime_seconds: None, note: None };
    let (_, text) = tokens.create(new, &Principal::os_user("op")).await.unwrap();
    text.expose().to_owned()
}

impl World {
    pub fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let ground = Arc::new(Ground::new(seed, flaw));
        let slowest = ground.with(|truth| 20 + truth.random.below(400));
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(slowest))
            .simulation_duration(Duration::from_secs(2 * (TROUBLE + PEACE + SETTLING)))
            .tcp_capacity(4_096)
            .enable_tokio_io()
            .enable_random_order()
            .build();
        let given = on_the_clock(async {
            let tokens = Tokens::load(ground.tokens.clone(), Audit::in_memory()).await.unwrap();
            let mut given = Vec::new();
            for worker in 0..WORKERS {
                given.push(token(&tokens, worker).await);
            }
            given
        });
        let shared = Arc::clone(&ground);
        sim.host(COORDINATOR, move || hosts::coordinator(Arc::clone(&shared)));
        for (worker, token) in given.into_iter().enumerate() {
            let shared = Arc::clone(&ground);
            let found = interpreters();
            sim.host(name(worker).as_str(), move || {
                hosts::worker(Arc::clone(&shared), worker, token.clone(), found.clone())
            });
        }
        let between = [(Between::Nothing, 0); WORKERS];
        Self { sim, ground, between, down: BTreeMap::new(), copies: 1, second: 0 }
    }

    pub fn story(&self) -> String {
        self.ground.with(|truth| truth.story.join("\n"))
    }

    pub fn run(&mut self) -> Result<Counts, String> {
        while self.second < TROUBLE {
            self.trouble();
            self.pass(1)?;
        }
        self.make_peace();
        self.pass(PEACE)?;
        self.ground.with(|truth| truth.must_settle = true);
        let until = self.second + SETTLING;
        while self.ground.with(|truth| truth.settled.is_none()) {
            if self.second == until {
                return Err("not everything can be looked at in the end".to_owned());
            }
            self.pass(1)?;
        }
        self.ground.with(|truth| truth.settled.take().unwrap().map(|()| truth.counts))
    }

    /// Lets seconds pass.
    fn pass(&mut self, seconds: u64) -> Result<(), String> {
        for tick in 0..seconds * TICKS_IN_A_SECOND {
            self.wait_for_the_disk();
            self.ground.with(|truth| truth.now += TICK);
            self.sim.step().map_err(|error| format!("a host failed: {error}"))?;
            self.ground.sample();
            // That takes longer to look at, and stays for longer.
            if tick.is_multiple_of(2) {
                self.ground.look_for_overbooking();
            }
            if let Some(broken) = self.ground.with(|truth| truth.broken.take()) {
                return Err(format!("at {} s: {broken}", self.second));
            }
        }
        self.second += seconds;
        Ok(())
    }

    /// The log's writer has a thread and a disk of the machine's time: none passes here before it is through.
    fn wait_for_the_disk(&self) {
        let audit = self.ground.with(|truth| truth.present.as_ref().map(|present| present.audit.clone()));
        let Some(audit) = audit else { return };
        let until = Instant::now() + DISK_PATIENCE;
        while !audit.is_settled() {
            assert!(Instant::now() < until, "the log's disk answers in time");
            std::thread::park_timeout(Duration::from_micros(20));
        }
    }

    fn one_in(&self, n: u64) -> bool {
        self.ground.with(|truth| truth.random.one_in(n))
    }

    fn below(&self, bound: u64) -> u64 {
        self.ground.with(|truth| truth.random.below(bound))
    }

    fn trouble(&mut self) {
        self.come_back(self.second);
        if self.ground.flaw == Some(Flaw::ForgetsWhatItTold) && self.second.is_multiple_of(20) {
            self.keep_log();
        }
        if self.one_in(40) {
            self.kill_coordinator();
        }
        let worker = usize::try_from(self.below(WORKERS as u64)).unwrap();
        if self.one_in(30) {
            self.kill_worker(worker);
        }
        if self.one_in(8) && self.between[worker].0 == Between::Nothing {
            self.part(worker);
        }
    }

    /// Ends what was to last until now.
    fn come_back(&mut self, now: u64) {
        for worker in 0..WORKERS {
            let (between, until) = self.between[worker];
            if until <= now && between != Between::Nothing {
                match between {
                    Between::Held => self.sim.release(COORDINATOR, name(worker).as_str()),
                    Between::Cut | Between::Nothing => self.sim.repair(COORDINATOR, name(worker).as_str()),
                }
                self.between[worker] = (Between::Nothing, 0);
                self.ground.tell(format_args!("worker {worker} can be reached again"));
            }
        }
        let due: Vec<String> =
            self.down.iter().filter(|(_, until)| **until <= now).map(|(host, _)| host.clone()).collect();
        for host in due {
            self.down.remove(&host);
            self.sim.bounce(host.as_str());
        }
    }

    fn make_peace(&mut self) {
        self.come_back(u64::MAX);
        self.ground.with(|truth| truth.is_peace = true);
        self.ground.tell("peace");
    }

    /// Loses or holds back what is sent between a worker and the coordinator, both ways or one.
    fn part(&mut self, worker: usize) {
        let at_most = if self.one_in(4) { 80 } else { 10 };
        let until = self.second + 1 + self.below(at_most);
        let (here, there) = (COORDINATOR, name(worker));
        let (between, how) = match self.below(4) {
            0 => (Between::Held, "is held back"),
            1 => (Between::Cut, "does not hear the coordinator"),
            2 => (Between::Cut, "is not heard by the coordinator"),
            _ => (Between::Cut, "is cut off"),
        };
        match how {
            "is held back" => self.sim.hold(here, there.as_str()),
            "does not hear the coordinator" => self.sim.partition_oneway(here, there.as_str()),
            "is not heard by the coordinator" => self.sim.partition_oneway(there.as_str(), here),
            _ => self.sim.partition(here, there.as_str()),
        }
        self.between[worker] = (between, until);
        self.ground.with(|truth| truth.counts.cuts += 1);
        self.ground.tell(format_args!("worker {worker} {how} until {until}"));
    }

    fn kill_worker(&mut self, worker: usize) {
        let host = name(worker).as_str().to_owned();
        if self.down.contains_key(&host) {
            return;
        }
        let until = self.second + self.below(15);
        let keeps_disk = self.one_in(2);
        let life = self.ground.with(|truth| truth.lives.remove(&worker));
        self.sim.crash(host.as_str());
        drop(life);
        if !keeps_disk {
            fs::remove_dir_all(self.ground.dir.path().join(&host)).ok();
        }
        self.down.insert(host, until);
        self.ground.with(|truth| truth.counts.worker_deaths += 1);
        self.ground.tell(format_args!("worker {worker} dies until {until}, its disk is kept: {keeps_disk}"));
    }

    fn kill_coordinator(&mut self) {
        if self.down.contains_key(COORDINATOR) {
            return;
        }
        let until = self.second + self.below(15);
        self.wait_for_the_disk();
        if self.ground.flaw == Some(Flaw::ForgetsWhatItTold) {
            self.ground.with(|truth| truth.store = Arc::default());
        } else {
            self.keep_log();
        }
        // A copy is what a machine finds after a kill: the writer that is left behind closes the other one in good order.
        let present = self.ground.with(|truth| truth.present.take());
        self.sim.crash(COORDINATOR);
        drop(present);
        self.down.insert(COORDINATOR.to_owned(), until);
        self.ground.with(|truth| truth.counts.coordinator_deaths += 1);
        self.ground.tell(format_args!("the coordinator dies until {until}"));
    }

    /// Copies the log as it is now, for the coordinator's next life.
    fn keep_log(&mut self) {
        self.wait_for_the_disk();
        let Some(present) = self.ground.with(|truth| truth.present.is_some().then(|| truth.log.clone())) else {
            return;
        };
        self.copies += 1;
        let copy = self.ground.dir.path().join(format!("log-{}", self.copies));
        copy_all(&present, &copy);
        self.ground.with(|truth| truth.log = copy);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A worker holds its programs, these the ground, and that the worker: nothing of it would go by itself.
        let held = self.ground.with(|truth| (truth.present.take(), std::mem::take(&mut truth.lives)));
        drop(held);
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
