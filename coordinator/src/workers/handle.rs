//! The handle on the workers, and the state behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use codegen_audit::{Audit, Entry, EventKind};
use codegen_proto::Secret;
use codegen_types::{ErrorCode, Failure, Incarnation, WorkerId};
use coordinator_core::worker::{Admittance, InvalidTiming};
use parking_lot::{Mutex, RwLock};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::acceptor;
use super::dialling::Dialler;
use super::fleet::WorkerEvent;
use super::link::{Link, LinkState};
use super::options::WorkersOptions;
use super::reaper;
use super::registry::Registry;
use super::said::{Change, WorkerRefused};
use super::secrets::Tokens;
use super::snapshot::WorkerSnapshot;
use super::socket::Listener;
use crate::identity;
use crate::refusals::RefusalsByAddress;
use crate::supervisor::{OnEnd, Supervisor};

/// The name of the worker that the coordinator starts by itself.
pub const EMBEDDED_WORKER: &str = "embedded";

/// Worker events that the sessions have not taken yet; when full, workers wait before they join or leave.
const EVENTS_QUEUED_MAX: usize = 256;

/// A cheap handle on all workers of this coordinator. It implements [`Fleet`](super::Fleet).
#[derive(Clone)]
pub struct Workers {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub options: WorkersOptions,
    pub audit: Audit,
    pub supervisor: Supervisor,
    pub registry: RwLock<Registry>,
    pub tokens: Mutex<Tokens>,
    pub static_tokens: OnceLock<identity::Tokens>,
    pub dialler: OnceLock<Dialler>,
    pub refusals: Mutex<RefusalsByAddress>,
    events: mpsc::Sender<WorkerEvent>,
    /// Changes whenever the registry does, for those who wait for something in it.
    changed: watch::Sender<()>,
    start_failure: Mutex<Option<String>>,
    links: AtomicU64,
}

/// Why there is no link to send anything on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkWait {
    /// That life of the worker is over.
    Over,
    /// It did not come up in time.
    TimedOut,
}

impl Workers {
    /// Builds the table of workers and starts striking silent ones off. The receiver gives what becomes of workers, in
    /// order; its holder must keep taking from it.
    ///
    /// # Errors
    /// [`InvalidTiming`] when the times of the options are not in order.
    pub fn new(
        options: WorkersOptions,
        audit: Audit,
        supervisor: Supervisor,
    ) -> Result<(Self, mpsc::Receiver<WorkerEvent>), InvalidTiming> {
        options.check()?;
        let options = options.within_descriptors();
        let (events, receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
        let registry = Registry::new(
            options.timing,
            options.heartbeat_interval,
            options.workers_max,
            options.sessions_per_worker_max,
            options.secrets,
        );
        let inner = Arc::new(Inner {
            options,
            audit,
            supervisor: supervisor.clone(),
            registry: RwLock::new(registry),
            tokens: Mutex::new(Tokens::default()),
            static_tokens: OnceLock::new(),
            dialler: OnceLock::new(),
            refusals: Mutex::new(RefusalsByAddress::default()),
            events,
            changed: watch::Sender::new(()),
            start_failure: Mutex::new(None),
            links: AtomicU64::new(1),
        });
        supervisor.spawn("worker reaper", OnEnd::Shutdown, reaper::run(Arc::clone(&inner)));
        Ok((Self { inner }, receiver))
    }

    /// Lets workers join with static tokens of the scope `worker`, too. Said once, before workers are served.
    #[must_use]
    pub fn joined_by(self, tokens: identity::Tokens) -> Self {
        self.inner.static_tokens.get_or_init(|| tokens);
        self
    }

    /// Dials workers that ask for it. Said once, before workers are served; without it none is dialled.
    #[must_use]
    pub fn dialling(self, dialler: Dialler) -> Self {
        self.inner.dialler.get_or_init(|| dialler);
        self
    }

    /// Says that an earlier server may have had workers of which nothing is known but that they may join.
    pub fn expect_others(&self) {
        let until = self.inner.now() + self.inner.options.timing.reconnect_grace;
        self.inner.registry.write().awaited.expect_others(until);
    }

    /// Serves workers on a listener until the supervisor's token is cancelled. Links that are up by then stay up until
    /// [`shutdown`](Self::shutdown).
    pub fn serve_listener(&self, listener: impl Into<Listener>) {
        acceptor::start(&self.inner, listener.into());
    }

    /// A token with which one life of the worker of this name may join; an earlier one for the same name is void.
    pub fn issue_token(&self, worker: &WorkerId) -> Secret {
        self.inner.tokens.lock().issue(worker)
    }

    /// [`issue_token`](Self::issue_token) for the embedded worker.
    pub fn issue_embedded_token(&self) -> Secret {
        self.issue_token(&embedded())
    }

    /// The process of the embedded worker has ended, so that the life that used its token is over.
    pub async fn embedded_ended(&self) {
        let worker = embedded();
        let life = self.inner.tokens.lock().life_of(&worker);
        if let Some(incarnation) = life {
            self.inner
                .change(|registry, now| Ok(registry.ended(&worker, incarnation, now).into_iter().collect()))
                .await
                .ok();
        }
    }

    /// Why the embedded worker does not start, for the failures that clients get until it does; `None` when it did.
    pub fn note_start_failure(&self, why: Option<String>) {
        *self.inner.start_failure.lock() = why;
    }

    /// Waits until a worker can take sessions.
    ///
    /// # Errors
    /// `WORKER_UNAVAILABLE` when none did within `timeout`, with what is known of the reason.
    pub async fn ready(&self, timeout: Duration) -> Result<(), Failure> {
        let mut changed = self.inner.changed.subscribe();
        let ready = async {
            while !self.inner.registry.read().any_ready() {
                // The sender lives as long as this handle.
                changed.changed().await.ok();
            }
        };
        tokio::time::timeout(timeout, ready).await.map_err(|_| {
            let why = format!("no worker joined within {} s", timeout.as_secs());
            Failure::new(ErrorCode::WorkerUnavailable, self.inner.explain(why))
        })
    }

    /// What is known of every worker, by name.
    pub fn snapshot(&self) -> Vec<WorkerSnapshot> {
        self.inner.registry.read().snapshot(self.inner.now())
    }

    /// What an operator says of a worker's name from now on, whichever lives of it there are.
    pub(crate) fn admit(&self, worker: WorkerId, admittance: Admittance) {
        self.inner.registry.write().admit(worker, admittance);
        self.inner.changed.send_replace(());
    }

    /// Cuts every link. Tasks that still run end as unknown.
    pub fn shutdown(&self) {
        self.inner.registry.write().clear();
    }
}

fn embedded() -> WorkerId {
    EMBEDDED_WORKER.parse().expect("the name is well formed")
}

impl Inner {
    /// The time by which workers are judged.
    pub(crate) fn now(&self) -> Duration {
        self.options.clock.now()
    }

    /// Changes the registry and announces what is new, in the same order to the sessions and to the log.
    ///
    /// Room for the events is taken before the lock, so that no other change can come between a change and its events.
    pub(crate) async fn change(
        &self,
        change: impl FnOnce(&mut Registry, Duration) -> Result<Vec<Change>, WorkerRefused>,
    ) -> Result<(), WorkerRefused> {
        /// The most that one change announces: an old life goes, a new one joins.
        const EVENTS_MAX: usize = 2;
        let permits = self.events.reserve_many(EVENTS_MAX).await.ok();
        let records: Vec<_> = {
            let mut registry = self.registry.write();
            let changes = change(&mut registry, self.now())?;
            if changes.iter().any(|change| matches!(change, Change::Joined { .. })) {
                *self.start_failure.lock() = None;
            }
            let records = changes.iter().map(|change| self.audit.queue(record(change))).collect();
            // Without a receiver there are no sessions any more that could care.
            for (permit, change) in permits.into_iter().flatten().zip(changes) {
                permit.send(change.into());
            }
            records
        };
        self.changed.send_replace(());
        for record in records {
            if let Err(error) = record.await {
                tracing::warn!(%error, "a worker's coming or going is not in the log yet");
            }
        }
        Ok(())
    }

    /// Told when something may have changed in the registry.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Says that there may be room where there was none.
    pub(crate) fn tell_changed(&self) {
        self.changed.send_replace(());
    }

    pub(crate) fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn attach_link(&self, worker: &WorkerId, incarnation: Incarnation, link: Link) {
        let number = link.number();
        self.registry.write().attach_link(worker, incarnation, link, self.now());
        self.changed.send_replace(());
        tracing::info!(%worker, %incarnation, link = number, "link is up");
    }

    /// What announces the end of a link, whenever its socket is dropped.
    pub(crate) fn link_gone_later(
        self: &Arc<Self>,
        worker: &WorkerId,
        incarnation: Incarnation,
        number: u64,
    ) -> impl FnOnce() + Send + 'static {
        let (inner, worker) = (Arc::downgrade(self), worker.clone());
        move || {
            if let Some(inner) = inner.upgrade() {
                inner.link_gone(&worker, incarnation, number);
            }
        }
    }

    pub(crate) fn link_gone(&self, worker: &WorkerId, incarnation: Incarnation, number: u64) {
        self.registry.write().link_gone(worker, incarnation, number, self.now());
        self.changed.send_replace(());
        tracing::info!(%worker, %incarnation, link = number, "link is gone");
    }

    /// The link of one life of a worker, waited for until `deadline`.
    pub(crate) async fn link(
        &self,
        worker: &WorkerId,
        incarnation: Incarnation,
        deadline: Instant,
    ) -> Result<Arc<Link>, LinkWait> {
        let mut states = self.known_link(worker, incarnation, deadline).await?;
        let up = states.wait_for(|state| match state {
            LinkState::Up(link) => !link.is_over(),
            LinkState::Over => true,
            LinkState::Down => false,
        });
        match tokio::time::timeout_at(deadline, up).await {
            Ok(Ok(state)) => match &*state {
                LinkState::Up(link) => Ok(Arc::clone(link)),
                LinkState::Over | LinkState::Down => Err(LinkWait::Over),
            },
            Ok(Err(_)) => Err(LinkWait::Over),
            Err(_) => Err(LinkWait::TimedOut),
        }
    }

    /// Where the link of one life of a worker stands, once that life is known; one that an earlier server knew is waited
    /// for.
    async fn known_link(
        &self,
        worker: &WorkerId,
        incarnation: Incarnation,
        deadline: Instant,
    ) -> Result<watch::Receiver<LinkState>, LinkWait> {
        let mut changed = self.changed.subscribe();
        loop {
            let expected = {
                let registry = self.registry.read();
                if let Some(states) = registry.link(worker, incarnation) {
                    return Ok(states);
                }
                registry.awaited.is_expected(worker, incarnation)
            };
            if !expected {
                return Err(LinkWait::Over);
            }
            // The sender lives as long as this does.
            tokio::time::timeout_at(deadline, changed.changed()).await.map_err(|_| LinkWait::TimedOut)?.ok();
        }
    }

    /// A reason with what is known of the embedded worker's failure to start.
    pub(crate) fn explain(&self, why: String) -> String {
        match &*self.start_failure.lock() {
            Some(start_failure) => format!("{why}; {start_failure}"),
            None => why,
        }
    }
}

fn record(change: &Change) -> Entry {
    match change {
        Change::Joined { worker, incarnation, held, .. } => Entry {
            kind: EventKind::WorkerJoined,
            detail: Some(json!({ "worker": worker, "incarnation": incarnation, "sessions_held": held.len() })),
            ..Entry::default()
        },
        Change::Gone { worker, incarnation, why } => Entry {
            kind: EventKind::WorkerGone,
            detail: Some(json!({ "worker": worker, "incarnation": incarnation, "why": why.as_str() })),
            ..Entry::default()
        },
    }
}
