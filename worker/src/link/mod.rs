//! The worker's connections to its coordinator: one on which it reports, one on which it is driven.

mod address;
mod backoff;
mod lifecycle;
mod reversed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use codegen_proto::{DeregisterWorker, Heartbeat, RegisterWorker, Secret};
use codegen_types::{Capabilities, IsolationReport, Runtime};
use tokio_util::sync::CancellationToken;

pub(crate) use address::Address;
pub use address::InvalidAddress;
use backoff::Backoff;
use lifecycle::{CallError, Coordinator};
use reversed::{Link, LinkError};

use crate::remote::token::{self, TokenError};
use crate::service::{Identity, Service};

/// Heartbeats that may fail in a row before the worker joins again.
const HEARTBEAT_FAILURES_MAX: u32 = 3;
/// A coordinator may ask for no more and no fewer heartbeats than these.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How long leaving may take.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

/// How a worker proves that it may join.
pub(crate) enum Proof {
    /// A token of its coordinator's for this one life.
    Once(Secret),
    /// A token in a file, read anew whenever the worker joins.
    File(PathBuf),
}

/// What a worker joins with.
pub(crate) struct Membership {
    pub address: Address,
    pub proof: Proof,
    pub labels: BTreeMap<String, String>,
    pub isolation: IsolationReport,
    pub runtimes: Vec<Runtime>,
    pub sessions_max: u32,
    pub service: Service,
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
    #[error("the worker stops")]
    Stopped,
}

impl Membership {
    /// Joins, and joins again whenever the coordinator is lost, until `stop`; then leaves. Sessions and tasks go on
    /// meanwhile: their outcomes wait for the coordinator to come back.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut joined = None;
        loop {
            let lost = self.join_and_serve(&mut joined, &mut backoff, &stop).await;
            if stop.is_cancelled() {
                break;
            }
            let pause = backoff.after_failure();
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
    ) -> Lost {
        let token = match &self.proof {
            Proof::Once(token) => token.clone(),
            Proof::File(path) => match token::read(path) {
                Ok(token) => token,
                Err(error) => return error.into(),
            },
        };
        let joining = async { Coordinator::join(&self.address, self.registration(token).await).await };
        let (mut coordinator, registered) = tokio::select! {
            joining = joining => match joining {
                Ok(joined) => joined,
                Err(error) => return error.into(),
            },
            () = stop.cancelled() => return Lost::Stopped,
        };
        *joined = Some(coordinator.clone());
        let interval = registered.heartbeat_interval.clamp(HEARTBEAT_INTERVAL_MIN, HEARTBEAT_INTERVAL_MAX);
        let mut ticket = registered.link_ticket;
        loop {
            let Some(current) = ticket.take() else { return Lost::NoTicket };
            let Identity { incarnation, .. } = *self.service.identity();
            let link = match Link::open(&self.address, &current, incarnation, self.service.clone()).await {
                Ok(link) => link,
                Err(error) => return error.into(),
            };
            tracing::info!(coordinator = %self.address, "joined");
            backoff.reset();
            let mut beating = coordinator.clone();
            ticket = tokio::select! {
                () = stop.cancelled() => {
                    link.finish().await;
                    return Lost::Stopped;
                }
                () = link.closed() => match coordinator.heartbeat(self.heartbeat().await).await {
                    Ok(answer) => answer.link_ticket,
                    Err(error) => return error.into(),
                },
                ticket = self.beat(&mut beating, interval) => match ticket {
                    Ok(ticket) => Some(ticket),
                    Err(error) => return error.into(),
                },
            };
        }
    }

    /// Sends heartbeats until the coordinator says that the link is down, or is gone itself.
    async fn beat(&self, coordinator: &mut Coordinator, interval: Duration) -> Result<Secret, CallError> {
        let mut failures = 0;
        loop {
            tokio::time::sleep(interval).await;
            self.service.tasks().sweep();
            match coordinator.heartbeat(self.heartbeat().await).await {
                Ok(answer) => {
                    failures = 0;
                    if let Some(ticket) = answer.link_ticket {
                        return Ok(ticket);
                    }
                }
                Err(error) => {
                    failures += 1;
                    let refused = matches!(&error, CallError::Refused(status) if is_refusal(status));
                    if refused || failures == HEARTBEAT_FAILURES_MAX {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn registration(&self, token: Secret) -> RegisterWorker {
        let Identity { worker, incarnation } = self.service.identity().clone();
        RegisterWorker {
            token,
            worker,
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: Capabilities {
                isolation: self.isolation.clone(),
                runtimes: self.runtimes.clone(),
                sessions_max: self.sessions_max,
                labels: self.labels.clone(),
            },
            held: self.service.pool().held().await,
            advertise: None,
        }
    }

    async fn heartbeat(&self) -> Heartbeat {
        let Identity { worker, incarnation } = self.service.identity().clone();
        Heartbeat {
            worker,
            incarnation,
            sessions_open: u32::try_from(self.service.pool().len()).unwrap_or(u32::MAX),
            tasks_running: u32::try_from(self.service.tasks().running()).unwrap_or(u32::MAX),
            memory_bytes: resident_bytes(),
            held: self.service.pool().held().await,
        }
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
