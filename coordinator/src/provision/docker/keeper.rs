//! Looks now and then at the containers and at the workers in them, and does what there is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codegen_types::WorkerId;
use coordinator_core::scaling::{self, Member, Scale, Step};
use coordinator_core::worker::Admittance;
use tokio::time::Instant;

use super::engine::{Engine, EngineError, Found};
use super::identity::{Identities, TokenError};
use crate::provision::remembered::{Remembered, is_used};
use crate::session::Sessions;
use crate::supervisor::{OnEnd, Supervisor};
use crate::workers::{WorkerSnapshot, Workers};

/// How often everything is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest rest after the engine, or a start, failed.
const REST_MAX: Duration = Duration::from_secs(60);
/// How long a container may run without its worker being known: it joins within seconds, and after a restart of the
/// coordinator within its longest rest of half a minute.
const ABSENCE_MAX: Duration = Duration::from_secs(120);

/// Keeps as many workers as there should be.
pub(super) struct Keeper {
    scale: Scale,
    engine: Engine,
    identities: Identities,
    workers: Workers,
    sessions: Sessions,
    supervisor: Supervisor,
    began: Instant,
    /// What is remembered of each container from one look to the next.
    remembered: BTreeMap<String, Remembered>,
}

impl Keeper {
    pub(super) fn new(
        scale: Scale,
        engine: Engine,
        identities: Identities,
        workers: Workers,
        sessions: Sessions,
        supervisor: Supervisor,
    ) -> Self {
        let (began, remembered) = (Instant::now(), BTreeMap::new());
        Self { scale, engine, identities, workers, sessions, supervisor, began, remembered }
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self) {
        let mut rest = LOOK_INTERVAL;
        loop {
            rest = match self.look().await {
                Ok(()) => LOOK_INTERVAL,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the workers' containers could not be looked after");
                    (rest * 2).min(REST_MAX)
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    async fn look(&mut self) -> Result<(), LookError> {
        let found = self.engine.list().await?;
        let (alive, dead): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|container| container.is_alive);
        for container in &dead {
            tracing::info!(worker = container.name, "a worker's container has ended and is removed");
            self.remove(&container.name).await?;
        }
        let names: BTreeSet<&str> = alive.iter().map(|container| container.name.as_str()).collect();
        self.remembered.retain(|name, _| names.contains(name.as_str()));
        for orphan in self.identities.known().into_iter().filter(|name| !names.contains(name.as_str())) {
            self.identities.withdraw(&orphan).await;
        }
        let now = self.began.elapsed();
        let members = self.members(&alive, now);
        for lost in self.absent_for_too_long(now) {
            tracing::warn!(worker = lost, "a worker's container runs and its worker does not join; it is removed");
            self.remove(&lost).await?;
        }
        match scaling::decide(&self.scale, &members, now) {
            Step::Start(workers) => self.start(workers).await,
            Step::End(name) => {
                self.end(name);
                Ok(())
            }
            Step::Rest => Ok(()),
        }
    }

    fn members(&mut self, alive: &[Found], now: Duration) -> Vec<Member<String>> {
        let workers: BTreeMap<WorkerId, WorkerSnapshot> =
            self.workers.snapshot().into_iter().map(|worker| (worker.id.clone(), worker)).collect();
        let holding = self.sessions.workers_with_files();
        let mut members = Vec::new();
        for Found { name, .. } in alive {
            let known = name.parse::<WorkerId>().ok().and_then(|id| workers.get(&id));
            let holds = known.is_some_and(|worker| holding.contains(&worker.id));
            let remembered = self.remembered.entry(name.clone()).or_default();
            members.push(Member { name: name.clone(), phase: remembered.phase(known, holds, now) });
        }
        members
    }

    fn absent_for_too_long(&self, now: Duration) -> Vec<String> {
        let absent = |remembered: &Remembered| remembered.absent_beyond(ABSENCE_MAX, now).is_some();
        self.remembered.iter().filter(|(_, remembered)| absent(remembered)).map(|(name, _)| name.clone()).collect()
    }

    async fn start(&mut self, workers: u32) -> Result<(), LookError> {
        for _ in 0..workers {
            let name = self.identities.new_name();
            let started = match self.identities.issue(&name).await {
                Ok(files) => self.engine.start(&name, &files).await.map_err(LookError::from),
                Err(error) => Err(LookError::Token(error)),
            };
            if let Err(error) = started {
                self.remove(&name).await.ok();
                return Err(error);
            }
            tracing::info!(worker = name, "a worker's container was started");
        }
        Ok(())
    }

    /// Lets a worker end without waiting for it, if it has nothing to do even once it gets nothing new.
    fn end(&mut self, name: String) {
        self.admit(&name, Admittance::Cordoned);
        if self.has_something(&name) {
            self.admit(&name, Admittance::Open);
            return;
        }
        tracing::info!(worker = name, "a worker that has nothing to do is ended");
        self.remembered.entry(name.clone()).or_default().is_ending = true;
        let engine = self.engine.clone();
        self.supervisor.spawn("end of a worker container", OnEnd::Ignore, async move {
            if let Err(error) = engine.stop(&name).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, worker = name, "a worker's container could not be ended");
            }
        });
    }

    /// Says what new work a worker gets. Only those are ended of which no operator has said anything.
    fn admit(&self, name: &str, admittance: Admittance) {
        if let Ok(worker) = name.parse() {
            self.workers.admit(worker, admittance);
        }
    }

    fn has_something(&self, name: &str) -> bool {
        let worker = self.workers.snapshot().into_iter().find(|worker| worker.id.as_str() == name);
        worker.is_some_and(|worker| is_used(&worker) || self.sessions.workers_with_files().contains(&worker.id))
    }

    async fn remove(&mut self, name: &str) -> Result<(), LookError> {
        self.admit(name, Admittance::Open);
        self.identities.withdraw(name).await;
        self.remembered.remove(name);
        Ok(self.engine.remove(name).await?)
    }
}

/// Why a look did not come to its end.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("a worker has nothing to join with")]
    Token(#[source] TokenError),
}
