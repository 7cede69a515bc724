//! Looks now and then at the StatefulSet and at the workers in its pods, and sets how many pods there are to be.
//!
//! A StatefulSet gives up its highest number first. So that one alone is ever ended: it gets nothing new from then on, is looked
//! at again, and only then goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codegen_types::WorkerId;
use coordinator_core::scaling::{self, Member, Phase, Scale, Step};
use coordinator_core::worker::Admittance;
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterError, Standing};
use crate::operators::Operators;
use crate::provision::remembered::{Remembered, is_used};
use crate::session::Sessions;
use crate::workers::{WorkerSnapshot, Workers};

/// How often everything is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest rest after the API server refused something.
const REST_MAX: Duration = Duration::from_secs(60);
/// How long a pod may be there without its worker before it is no longer counted on: a node may have to be found and an
/// image fetched first.
const ABSENCE_MAX: Duration = Duration::from_secs(300);

/// Keeps as many workers as there should be.
pub(super) struct Keeper {
    scale: Scale,
    cluster: Cluster,
    workers: Workers,
    sessions: Sessions,
    operators: Operators,
    began: Instant,
    /// What is remembered of each pod from one look to the next, by its number.
    remembered: BTreeMap<u32, Remembered>,
    /// Pods whose workers get nothing new, whatever operators say, since they are to end.
    closed: BTreeSet<u32>,
}

impl Keeper {
    pub(super) fn new(
        scale: Scale,
        cluster: Cluster,
        workers: Workers,
        sessions: Sessions,
        operators: Operators,
    ) -> Self {
        let (began, remembered, closed) = (Instant::now(), BTreeMap::new(), BTreeSet::new());
        Self { scale, cluster, workers, sessions, operators, began, remembered, closed }
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self) {
        let mut rest = LOOK_INTERVAL;
        loop {
            rest = match self.look().await {
                Ok(()) => LOOK_INTERVAL,
                Err(ClusterError::Conflict) => {
                    tracing::info!("somebody else changed the StatefulSet of the workers; it is looked at again");
                    LOOK_INTERVAL
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the pods of workers could not be looked after");
                    (rest * 2).min(REST_MAX)
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    async fn look(&mut self) -> Result<(), ClusterError> {
        let standing = self.cluster.look().await?;
        self.close_what_ends(&standing);
        let now = self.began.elapsed();
        let members = self.members(&standing, now);
        match scaling::decide(&self.scale, &members, now) {
            Step::Start(more) => {
                self.cluster.scale(&standing, standing.wanted + more).await?;
                tracing::info!(pods = standing.wanted + more, "another worker is started");
                Ok(())
            }
            Step::End(ordinal) => self.end(&standing, ordinal).await,
            Step::Rest => Ok(()),
        }
    }

    /// Pods beyond the number that is wanted are ending, whoever set it: their workers get nothing new. Those that are wanted
    /// again, or are gone, are as operators have them.
    fn close_what_ends(&mut self, standing: &Standing) {
        let wanted_end = standing.first + standing.wanted;
        let ending: BTreeSet<u32> = (wanted_end..standing.first + standing.present).collect();
        for ordinal in self.closed.clone().difference(&ending) {
            self.reopen(*ordinal);
        }
        for ordinal in ending {
            self.close(ordinal);
        }
        self.remembered.retain(|ordinal, _| (standing.first..wanted_end).contains(ordinal));
    }

    fn close(&mut self, ordinal: u32) {
        let Some(worker) = self.worker(ordinal) else { return };
        if self.closed.insert(ordinal) {
            self.workers.admit(worker, Admittance::Cordoned);
        }
    }

    fn reopen(&mut self, ordinal: u32) {
        let Some(worker) = self.worker(ordinal) else { return };
        if self.closed.remove(&ordinal) {
            let said = self.operators.admittance(&worker);
            self.workers.admit(worker, said);
        }
    }

    fn worker(&self, ordinal: u32) -> Option<WorkerId> {
        self.cluster.worker(ordinal).parse().ok()
    }

    /// The pods by their numbers, the ending ones last. None but the highest is ever idle: no other can be ended.
    fn members(&mut self, standing: &Standing, now: Duration) -> Vec<Member<u32>> {
        let workers = self.known();
        let holding = self.sessions.workers_with_files();
        let end = standing.first + standing.wanted;
        let mut members = Vec::new();
        for ordinal in standing.first..end {
            let worker = self.worker(ordinal);
            let known = worker.as_ref().and_then(|id| workers.get(id));
            let holds = worker.is_some_and(|id| holding.contains(&id));
            let remembered = self.remembered.entry(ordinal).or_default();
            let phase = remembered.phase(known, holds, now);
            let absent_since = remembered.absent_beyond(ABSENCE_MAX, now);
            let phase = match (phase, absent_since) {
                (Phase::Serving { slots, free, .. }, _) if ordinal + 1 < end => {
                    Phase::Serving { slots, free, idle_since: None }
                }
                // It brings nothing: in its place another is started. It may go if it holds nothing, either.
                (Phase::Starting, Some(_)) if holds || ordinal + 1 < end => Phase::Away,
                (Phase::Starting, idle_since @ Some(_)) => Phase::Serving { slots: 0, free: 0, idle_since },
                (phase, _) => phase,
            };
            members.push(Member { name: ordinal, phase });
        }
        let ending = end..end.max(standing.first + standing.present);
        members.extend(ending.map(|ordinal| Member { name: ordinal, phase: Phase::Ending }));
        members
    }

    fn known(&self) -> BTreeMap<WorkerId, WorkerSnapshot> {
        self.workers.snapshot().into_iter().map(|worker| (worker.id.clone(), worker)).collect()
    }

    /// Ends the pod with the highest number, if its worker has nothing to do even once it gets nothing new.
    async fn end(&mut self, standing: &Standing, ordinal: u32) -> Result<(), ClusterError> {
        self.close(ordinal);
        if !self.has_nothing(ordinal) {
            self.reopen(ordinal);
            return Ok(());
        }
        let done = self.cluster.scale(standing, ordinal - standing.first).await;
        match &done {
            Ok(()) => {
                tracing::info!(worker = self.cluster.worker(ordinal), "a worker that has nothing to do is ended");
            }
            // It may have been done all the same. The next look says, and opens it if it is still wanted.
            Err(ClusterError::Late | ClusterError::Refused(_)) => {}
            Err(_) => self.reopen(ordinal),
        }
        done
    }

    fn has_nothing(&self, ordinal: u32) -> bool {
        let Some(worker) = self.worker(ordinal) else { return true };
        let is_used = self.known().get(&worker).is_some_and(is_used);
        !is_used && !self.sessions.workers_with_files().contains(&worker)
    }
}
