//! What operators said about workers: kept in the store, so that it outlives workers and this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, WorkerId};
use coordinator_core::worker::Admittance;
use parking_lot::RwLock;
use serde_json::json;
use tokio::sync::watch;

use super::{About, Actor, Inner, Operators, WorkerRow};
use crate::store::{CordonRow, CordonStore, StoreResult};
use crate::workers::Workers;

/// Workers about which something was said; beyond that some have to be taken back first.
const CORDONS_MAX: usize = 1_024;

/// The table, and where it is kept.
pub(super) struct Cordons {
    store: Arc<dyn CordonStore>,
    table: RwLock<BTreeMap<WorkerId, CordonRow>>,
    /// One change at a time, so that store and table agree.
    changing: tokio::sync::Mutex<()>,
    /// Changes whenever the table does.
    changed: watch::Sender<()>,
}

impl Cordons {
    /// The cordons of a store, which hold for these workers.
    pub(super) async fn load(store: Arc<dyn CordonStore>, workers: &Workers) -> StoreResult<Self> {
        let rows = store.cordons().await?;
        for row in &rows {
            workers.admit(row.worker.clone(), row.admittance);
        }
        let table = RwLock::new(rows.into_iter().map(|row| (row.worker.clone(), row)).collect());
        Ok(Self { store, table, changing: tokio::sync::Mutex::default(), changed: watch::Sender::new(()) })
    }

    pub(super) fn rows(&self) -> BTreeMap<WorkerId, CordonRow> {
        self.table.read().clone()
    }

    pub(super) fn draining(&self) -> Vec<WorkerId> {
        let table = self.table.read();
        let draining = table.values().filter(|row| row.admittance == Admittance::Draining);
        draining.map(|row| row.worker.clone()).collect()
    }

    pub(super) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Operators {
    /// What an operator said last about new work for a worker.
    #[cfg(feature = "k8s")]
    pub(crate) fn admittance(&self, worker: &WorkerId) -> Admittance {
        self.0.cordons.table.read().get(worker).map_or(Admittance::Open, |row| row.admittance)
    }

    /// Says what new work a worker gets from now on, whichever lives of it there are. It is in the log and in the store
    /// before it holds.
    ///
    /// # Errors
    /// `NOT_FOUND` when no such worker is there; `QUOTA_EXCEEDED`; `AUDIT_UNAVAILABLE`; `INTERNAL` when the store fails.
    pub async fn admit(&self, worker: WorkerId, admittance: Admittance, actor: Actor) -> Result<WorkerRow, Failure> {
        // In a task of its own: a client that vanishes must not leave it half done.
        let this = self.clone();
        let asked = worker.clone();
        let done = tokio::spawn(async move { this.0.admit(worker, admittance, actor).await });
        done.await.unwrap_or_else(|_| Err(Failure::new(ErrorCode::Internal, "the server is stopping")))?;
        Ok(self.row(&asked).unwrap_or_else(|| self.gone(asked)))
    }
}

impl Inner {
    async fn admit(&self, worker: WorkerId, admittance: Admittance, actor: Actor) -> Result<(), Failure> {
        let cordons = &self.cordons;
        let _turn = cordons.changing.lock().await;
        let known = self.workers.snapshot().iter().any(|snapshot| snapshot.id == worker);
        let (before, count) = {
            let table = cordons.table.read();
            (table.get(&worker).map_or(Admittance::Open, |row| row.admittance), table.len())
        };
        if !known && before == Admittance::Open {
            return Err(unknown(&worker));
        }
        if before == admittance {
            return Ok(());
        }
        if before == Admittance::Open && count >= CORDONS_MAX {
            let message = format!("{CORDONS_MAX} workers are cordoned already; uncordon those that are gone for good");
            return Err(Failure::new(ErrorCode::QuotaExceeded, message));
        }
        let detail = json!({"worker": worker, "was": before, "is": admittance});
        self.record(&actor, verb(admittance), About::default(), detail).await?;
        let since_ms = jiff::Timestamp::now().as_millisecond();
        let row = CordonRow { worker: worker.clone(), admittance, set_by: actor.principal, since_ms };
        let stored = match admittance {
            Admittance::Open => cordons.store.remove_cordon(worker.clone()).await,
            Admittance::Cordoned | Admittance::Draining => cordons.store.put_cordon(row.clone()).await,
        };
        stored.map_err(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::error!(%worker, error, "what an operator said about a worker could not be stored, and does not hold");
            Failure::new(ErrorCode::Internal, "it could not be stored and does not hold; the diagnostics say why")
        })?;
        match admittance {
            Admittance::Open => drop(cordons.table.write().remove(&worker)),
            Admittance::Cordoned | Admittance::Draining => drop(cordons.table.write().insert(worker.clone(), row)),
        }
        self.workers.admit(worker, admittance);
        cordons.changed.send_replace(());
        Ok(())
    }
}

const fn verb(admittance: Admittance) -> &'static str {
    match admittance {
        Admittance::Open => "workers/uncordon",
        Admittance::Cordoned => "workers/cordon",
        Admittance::Draining => "workers/drain",
    }
}

pub(super) fn unknown(worker: &WorkerId) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("no worker `{worker}` is there"))
}
