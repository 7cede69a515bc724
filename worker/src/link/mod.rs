//! The worker's connections to its coordinator: one on which it reports, one on which it is driven.

mod address;
mod backoff;
mod door;
mod held;
mod lifecycle;
mod reversed;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use codegen_proto::{DeregisterWorker, Heartbeat, RegisterWorker, Secret};
use codegen_types::{Capabilities, IsolationReport, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use address::{Address, Network, Route};
pub use address::{Dial, InvalidAddress, Stream};
use backoff::Backoff;
pub(crate) use door::Door;
use held::{Named, named};
use lifecycle::{CallError, Coordinator};
use reversed::{Link, LinkError};

use crate::host::Host;
use crate::lineage::Lineage;
use crate::remote::token::{self, TokenError};
use crate::service::{Identity, Service};

/// Heartbeats that may fail in a row before the worker joins again.
const HEARTBEAT_FAILURES_MAX: u32 = 3;
/// A coordinator may ask for no more and no fewer heartbeats than these.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How long the coordinator may take to dial; its ticket is good no longer.
const DIALLED_DEADLINE: Duration = Duration::from_secs(30);
/// How long leaving may take.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

/// How a worker proves that it may join.
pub(crate) enum Proof {
    /// A token of its coordinator's for this one life.
    Once(Secret),
    /// A token in a file, read anew whenever the worker joins; a worker joins again when it was replaced.
    File(PathBuf),
    /// The certificate that it shows.
    Certificate,
}

impl Proof {
    /// The token that is shown at this moment, unless a certificate is.
    fn current(&self) -> Result<Option<Secret>, TokenError> {
        match self {
            Self::Once(token) => Ok(Some(token.clone())),
            Self::File(path) => token::read(path).map(Some),
            Self::Certificate => Ok(None),
        }
    }

    /// Whether there is another token now than the one that was shown. A file that cannot be read just now is none.
    fn was_replaced(&self, shown: Option<&Secret>) -> bool {
        match (self, shown) {
            (Self::File(path), Some(shown)) => token::read(path).is_ok_and(|now| now.expose() != shown.expose()),
            (Self::File(_) | Self::Once(_) | Self::Certificate, _) => false,
        }
    }
}

/// What a worker joins with.
pub(crate) struct Membership {
    pub route: Route,
    /// Where the coordinator dials, if the worker does not.
    pub door: Option<Door>,
    pub proof: Proof,
    pub labels: BTreeMap<String, String>,
    pub isolation: IsolationReport,
    pub runtimes: Vec<Runtime>,
    pub sessions_max: u32,
    pub host: Host,
    /// Which life of this worker came before; none of a worker that is known without it.
    pub lineage: Option<Lineage>,
    pub service: Service,
    /// Told whether there is a link.
    pub linked: watch::Sender<bool>,
}

/// Why the worker is not joined any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("there is no token to join with")]
    Token(#[from] TokenError),
    #[error("the coordinator cannot be spoken to")]
    Call(#[from] CallError),
    #[error("the link cannot be opened")]
    Link(#[from] LinkError),
    #[error("the coordinator gave no ticket for a link")]
    NoTicket,
    #[error("the workspaces that are here cannot be listed")]
    Workspaces(#[source] io::Error),
    #[error("there is another token to join with")]
    TokenReplaced,
    #[error("the worker stops")]
    Stopped,
}

impl Lost {
    /// Whether nobody listens at the coordinator's address.
    fn is_refused(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl Membership {
    /// Joins, and joins again whenever the coordinator is lost, until `stop`; then leaves. Sessions and tasks go on
    /// meanwhile: their outcomes wait for the coordinator to come back. When `draining` is cancelled, the coordinator is
    /// told at once, and not with the next heartbeat that is due.
    pub async fn keep(&self, stop: CancellationToken, draining: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut joined = None;
        loop {
            let lost = self.join_and_serve(&mut joined, &mut backoff, &stop, &draining).await;
            if stop.is_cancelled() {
                break;
            }
            let pause = if lost.is_refused() { backoff.after_refusal() } else { backoff.after_failure() };
            tracing::warn!(error = &lost as &dyn std::error::Error, ?pause, "not joined to the coordinator");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Some(coordinator) = joined {
            self.leave(coordinator).await;
        }
    }

    async fn join_and_serve(
        &self,
        joined: &mut Option<Coordinator>,
        backoff: &mut Backoff,
        stop: &CancellationToken,
        draining: &CancellationToken,
    ) -> Lost {
        let token = match self.proof.current() {
            Ok(token) => token,
            Err(error) => return error.into(),
        };
        // What it cannot list it does not call missing: its sessions would be given up for it.
        let registration = match self.registration().await {
            Ok(registration) => registration,
            Err(error) => return Lost::Workspaces(error),
        };
        let joining = Coordinator::join(&self.route, token.clone(), registration);
        let (mut coordinator, registered) = tokio::select! {
            joining = joining => match joining {
                Ok(joined) => joined,
                Err(error) => return error.into(),
            },
            () = stop.cancelled() => return Lost::Stopped,
        };
        *joined = Some(coordinator.clone());
        if let Some(lineage) = &self.lineage {
            lineage.joined();
        }
        let interval = registered.heartbeat_interval.clamp(HEARTBEAT_INTERVAL_MIN, HEARTBEAT_INTERVAL_MAX);
        let mut ticket = registered.link_ticket;
        loop {
            let Some(current) = ticket.take() else { return Lost::NoTicket };
            let linked = tokio::select! {
                linked = self.link(&current) => linked,
                () = stop.cancelled() => return Lost::Stopped,
            };
            let link = match linked {
                Ok(link) => link,
                Err(error) => return error.into(),
            };
            tracing::info!(coordinator = %self.route.address, "joined");
            let since = Instant::now();
            self.linked.send_replace(true);
            let over = tokio::select! {
                () = stop.cancelled() => {
                    link.finish().await;
                    return Lost::Stopped;
                }
                () = link.closed() => Ok(()),
                over = self.beat(&mut coordinator, interval, token.as_ref(), draining) => over,
            };
            self.linked.send_replace(false);
            backoff.after_link(since.elapsed());
            if let Err(lost) = over {
                return lost;
            }
            drop(link);
            // A ticket that was given before the pause might be too old after it.
            let asking = async {
                tokio::time::sleep(backoff.after_failure()).await;
                let beat = self.heartbeat().await.map_err(Lost::Workspaces)?;
                coordinator.heartbeat(beat).await.map_err(Lost::from)
            };
            ticket = tokio::select! {
                answer = asking => match answer {
                    Ok(answer) => answer.link_ticket,
                    Err(lost) => return lost,
                },
                () = stop.cancelled() => return Lost::Stopped,
            };
        }
    }

    /// The link on which the coordinator calls, whichever side dials.
    async fn link(&self, ticket: &Secret) -> Result<Link, LinkError> {
        let Identity { incarnation, .. } = *self.service.identity();
        match &self.door {
            None => Link::open(&self.route, ticket, incarnation, self.service.clone()).await,
            Some(door) => {
                let socket = door.enter(ticket, incarnation, DIALLED_DEADLINE).await?;
                Ok(Link::serve(socket, self.service.clone()))
            }
        }
    }

    /// Sends heartbeats until the coordinator says that the link is down, or is gone itself.
    async fn beat(
        &self,
        coordinator: &mut Coordinator,
        interval: Duration,
        token: Option<&Secret>,
        draining: &CancellationToken,
    ) -> Result<(), Lost> {
        let (mut failures, mut announced) = (0, false);
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = draining.cancelled(), if !announced => announced = true,
            }
            self.service.tasks().sweep();
            if self.proof.was_replaced(token) {
                return Err(Lost::TokenReplaced);
            }
            let beat = match self.heartbeat().await {
                Ok(beat) => beat,
                Err(error) => {
                    tracing::error!(%error, "the workspaces cannot be listed; this heartbeat is left out");
                    continue;
                }
            };
            match coordinator.heartbeat(beat).await {
                Ok(answer) => {
                    failures = 0;
                    if answer.link_ticket.is_some() {
                        return Ok(());
                    }
                }
                Err(error) => {
                    failures += 1;
                    let refused = matches!(&error, CallError::Refused(status) if is_refusal(status));
                    if refused || failures == HEARTBEAT_FAILURES_MAX {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    async fn registration(&self) -> io::Result<RegisterWorker> {
        let Identity { worker, incarnation } = self.service.identity().clone();
        let Named { sessions: held, is_partial: held_is_partial } = named(self.service.pool().held().await?);
        Ok(RegisterWorker {
            worker,
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: Capabilities {
                isolation: self.isolation.clone(),
                runtimes: self.runtimes.clone(),
                sessions_max: self.sessions_max,
                labels: self.labels.clone(),
                resources: self.host.resources(),
            },
            held,
            held_is_partial,
            advertise: self.door.as_ref().map(Door::advertised),
            draining: self.service.is_draining(),
            follows: self.lineage.as_ref().and_then(Lineage::follows),
        })
    }

    async fn heartbeat(&self) -> io::Result<Heartbeat> {
        let Identity { worker, incarnation } = self.service.identity().clone();
        Ok(Heartbeat {
            worker,
            incarnation,
            sessions_open: u32::try_from(self.service.pool().len()).unwrap_or(u32::MAX),
            tasks_running: u32::try_from(self.service.tasks().running()).unwrap_or(u32::MAX),
            memory_bytes: resident_bytes(),
            held: named(self.service.pool().held().await?).sessions,
            draining: self.service.is_draining(),
            used: self.host.used(),
        })
    }

    async fn leave(&self, mut coordinator: Coordinator) {
        let Identity { worker, incarnation } = self.service.identity().clone();
        let deregister = DeregisterWorker { worker, incarnation, reason: "stopped".to_owned() };
        match tokio::time::timeout(LEAVE_DEADLINE, coordinator.leave(deregister)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(error = &error as &dyn std::error::Error, "the coordinator was not told"),
            Err(_) => tracing::info!("the coordinator was not told in time"),
        }
    }
}

fn is_refusal(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unauthenticated | tonic::Code::PermissionDenied | tonic::Code::NotFound)
}

/// Resident memory of this process, in bytes; zero when the kernel does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}
