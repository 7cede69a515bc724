//! A hundred histories of the real code on both sides of a link, over a network and a time that are simulated: sessions,
//! log, dispatch, registry and acceptor of the coordinator, joining, link, service and session pool of three workers. Only
//! programs are played. Processes die and come back, messages are delayed, held back and lost; what must never happen does
//! not happen in any history.
//!
//! `TURMOIL_SEED=N` runs that one and prints what happens in it. The seed decides what goes wrong and when; ids, jitter and
//! the order in which one process looks at things that are ready at once are drawn anew each time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod flaws;
mod ground;
mod hosts;
mod network;
#[path = "../../coordinator/core/tests/simulation/random.rs"]
mod random;
mod settled;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use flaws::Flaw;
use ground::Counts;
use parking_lot::Mutex;
use world::World;

/// Histories of one run of the tests.
const HISTORIES: u64 = 100;
/// Histories in which each flaw must have shown; most do in the first.
const FLAWED_HISTORIES: u64 = 100;

/// Runs histories side by side until one breaks a promise; gives that one, and what happened in all.
fn failing(flaw: Option<Flaw>, histories: u64) -> (Option<(u64, String)>, Counts) {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None));
    let counts = Mutex::new(Counts::default());
    // More than there are processors: half of the time a history waits for its log's disk.
    let threads = 4 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while found.lock().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= histories {
                        return;
                    }
                    let mut world = World::new(seed, flaw);
                    match world.run() {
                        Ok(seen) => counts.lock().add(seen),
                        Err(broken) => *found.lock() = Some((seed, broken)),
                    }
                }
            });
        }
    });
    (found.into_inner(), counts.into_inner())
}

#[test]
fn no_history_breaks_a_promise() {
    if let Some(seed) = std::env::var("TURMOIL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
        let mut world = World::new(seed, None);
        let ended = world.run();
        panic!("seed {seed}: {ended:?}\n{}", world.story());
    }
    let (broken, counts) = failing(None, HISTORIES);
    if let Some((seed, broken)) = broken {
        panic!("seed {seed}: {broken}; TURMOIL_SEED={seed} tells the story");
    }
    // Histories in which nothing happens show nothing.
    assert!(counts.finished > 20 * HISTORIES && counts.unknown > HISTORIES, "{counts:?}");
    assert!(counts.coordinator_deaths > HISTORIES && counts.worker_deaths > HISTORIES, "{counts:?}");
    assert!(counts.cuts > HISTORIES && counts.placed > 5 * HISTORIES && counts.refused > HISTORIES, "{counts:?}");
}

#[test]
fn each_flaw_that_is_built_in_is_found() {
    for flaw in Flaw::ALL {
        let (broken, counts) = failing(Some(flaw), FLAWED_HISTORIES);
        assert!(broken.is_some(), "{flaw:?} breaks no promise in {FLAWED_HISTORIES} histories: {counts:?}");
    }
}
