//! Looks now and then at the containers and at the workers in them, and does what there is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codegen_types::WorkerId;
use coordinator_core::scaling::{self, Member, Phase, Scale, Step};
use coordinator_core::worker::Admittance;
use tokio::time::Instant;

use super::authority::AuthorityError;
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
        let followed = self.identities.follow_authority();
        self.look_at_containers().await?;
        Ok(followed?)
    }

    async fn look_at_containers(&mut self) -> Result<(), LookError> {
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
        let holding = self.sessions.workers_with_files();
        let members = self.members(&alive, &holding, now);
        for lost in given_up(&mut self.remembered, &holding, now) {
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

    fn members(&mut self, alive: &[Found], holding: &BTreeSet<WorkerId>, now: Duration) -> Vec<Member<String>> {
        let workers: BTreeMap<WorkerId, WorkerSnapshot> =
            self.workers.snapshot().into_iter().map(|worker| (worker.id.clone(), worker)).collect();
        let mut members = Vec::new();
        for Found { name, .. } in alive {
            let known = name.parse::<WorkerId>().ok().and_then(|id| workers.get(&id));
            let holds = known.is_some_and(|worker| holding.contains(&worker.id));
            let remembered = self.remembered.entry(name.clone()).or_default();
            let phase = match remembered.phase(known, holds, now) {
                // It is not counted on any more, so that another may be started.
                Phase::Starting if remembered.absent_beyond(ABSENCE_MAX, now).is_some() => Phase::Away,
                phase => phase,
            };
            members.push(Member { name: name.clone(), phase });
        }
        members
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
        let said = self.worker(&name).map(|worker| worker.admittance).unwrap_or_default();
        self.admit(&name, Admittance::Cordoned);
        if self.has_something(&name) {
            self.admit(&name, said);
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

    /// Says what new work a worker gets.
    fn admit(&self, name: &str, admittance: Admittance) {
        if let Ok(worker) = name.parse() {
            self.workers.admit(worker, admittance);
        }
    }

    fn worker(&self, name: &str) -> Option<WorkerSnapshot> {
        self.workers.snapshot().into_iter().find(|worker| worker.id.as_str() == name)
    }

    fn has_something(&self, name: &str) -> bool {
        self.worker(name)
            .is_some_and(|worker| is_used(&worker) || self.sessions.workers_with_files().contains(&worker.id))
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
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Those that are removed since their workers do not join. One that holds files of sessions stays, since they are nowhere else:
/// what keeps its worker away may yet be mended. That is said once.
fn given_up(remembered: &mut BTreeMap<String, Remembered>, holding: &BTreeSet<WorkerId>, now: Duration) -> Vec<String> {
    let mut given_up = Vec::new();
    for (name, remembered) in remembered {
        let Some(since) = remembered.absent_beyond(ABSENCE_MAX, now) else { continue };
        if !holding.iter().any(|worker| worker.as_str() == name) {
            given_up.push(name.clone());
        } else if remembered.warned_of != Some(since) {
            remembered.warned_of = Some(since);
            tracing::warn!(
                worker = name,
                "a worker's container runs and its worker does not join; it is kept for the files of sessions in it"
            );
        }
    }
    given_up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_whose_worker_does_not_join_is_removed_only_when_no_files_of_sessions_are_in_it() {
        let absent = || {
            let mut remembered = Remembered::default();
            assert_eq!(remembered.phase(None, false, Duration::ZERO), Phase::Starting);
            remembered
        };
        let names = ["with-files", "without"];
        let mut remembered: BTreeMap<_, _> = names.map(|name| (name.to_owned(), absent())).into();
        let holding = BTreeSet::from(["with-files".parse().unwrap(), "elsewhere".parse().unwrap()]);
        assert!(given_up(&mut remembered, &holding, ABSENCE_MAX).is_empty());
        let late = ABSENCE_MAX + Duration::from_secs(1);
        assert_eq!(given_up(&mut remembered, &holding, late), ["without"]);
        assert!(remembered["with-files"].warned_of.is_some());
        assert_eq!(given_up(&mut remembered, &BTreeSet::new(), late), names);
    }
}
