//! What the workers may use of the coordinator, and how long they are waited for.

use std::time::Duration;

use coordinator_core::worker::{InvalidTiming, Timing};

use super::clock::Clock;
use crate::config::{Reflection, SecretsWorkers};

/// The link's keep-alive: a ping is sent after so long.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Whether workers come that nobody starts by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Growth {
    /// The operator starts each.
    #[default]
    ByHand,
    /// The coordinator starts more as they are needed.
    ByItself,
}

/// Limits and times of the coordinator's side of its workers.
#[derive(Debug, Clone)]
pub struct WorkersOptions {
    /// How often a worker shall say that it lives.
    pub heartbeat_interval: Duration,
    /// How long silent and unreachable workers are borne with.
    pub timing: Timing,
    /// From accepting a connection until it is known what it is for and a link has been answered.
    pub handshake_limit: Duration,
    /// How long a link ticket can be used.
    pub ticket_lifetime: Duration,
    /// A ping is sent on the link after so long; its answer may take as long again.
    pub keep_alive_interval: Duration,
    /// How long a call that was not yet sent waits for its worker's link.
    pub link_wait: Duration,
    /// Opening or closing a session may take so long, reconnects included.
    pub session_deadline: Duration,
    /// A task's own timeout plus this is when the coordinator gives up on the worker ending it.
    pub deadline_slack: Duration,
    /// How long a cancelled program may take to end after the interrupt.
    pub cancel_grace: Duration,
    /// The grace plus this is how long the last event of a cancelled task is waited for.
    pub cancel_slack: Duration,
    /// Connections of one listener on which nobody has shown yet that it may join or has joined; when full, a new one is
    /// closed at once.
    pub strangers_max: u32,
    /// As many of them may come from one address.
    pub strangers_per_address_max: u32,
    /// How long one may be a stranger's.
    pub stranger_limit: Duration,
    /// gRPC connections of one listener whose workers have joined; when full, those of further ones are refused. Links are
    /// not counted, as each worker has one.
    pub connections_max: u32,
    /// As many of them may be from one address.
    pub connections_per_address_max: u32,
    /// Workers known at once; when full, registrations are refused.
    pub workers_max: usize,
    /// Task streams on one link; when full, a task waits for `link_wait` and is then refused.
    pub tasks_per_link_max: usize,
    /// Sessions of one worker, whatever it says.
    pub sessions_per_worker_max: u32,
    /// Bytes shown richly by one task; what exceeds it counts as output beyond the limit.
    pub display_bytes_max: u64,
    /// Progress notes of one task; more are dropped.
    pub progress_events_max: u32,
    /// Whether more workers may come by themselves.
    pub growth: Growth,
    /// Which workers are told the operator's secrets.
    pub secrets: SecretsWorkers,
    /// Whether whoever connects is told of the services.
    pub reflection: Reflection,
    /// How the time is told that silent workers are judged by.
    pub clock: Clock,
}

impl Default for WorkersOptions {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(30),
            timing: Timing::default(),
            handshake_limit: Duration::from_secs(5),
            ticket_lifetime: Duration::from_secs(30),
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
            link_wait: Duration::from_secs(10),
            session_deadline: Duration::from_secs(30),
            deadline_slack: Duration::from_secs(15),
            cancel_grace: Duration::from_secs(3),
            cancel_slack: Duration::from_secs(10),
            strangers_max: 1_024,
            strangers_per_address_max: 128,
            stranger_limit: Duration::from_secs(30),
            connections_max: 4_096,
            connections_per_address_max: 2_048,
            workers_max: 2_048,
            tasks_per_link_max: 240,
            sessions_per_worker_max: 4_096,
            display_bytes_max: 32 << 20,
            progress_events_max: 10_000,
            growth: Growth::default(),
            secrets: SecretsWorkers::default(),
            reflection: Reflection::Off,
            clock: Clock::default(),
        }
    }
}

impl WorkersOptions {
    /// With no more connections than leave three of four descriptors of the process to everything else.
    pub(super) fn within_descriptors(self) -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = |part| descriptors.map_or(u32::MAX, |most| u32::try_from(most / part).unwrap_or(u32::MAX)).max(1);
        Self {
            strangers_max: self.strangers_max.min(share(16)),
            connections_max: self.connections_max.min(share(8)),
            ..self
        }
    }

    /// Checks that the times are in the order that makes the fence hold.
    ///
    /// # Errors
    /// [`InvalidTiming`] when they are not.
    pub fn check(&self) -> Result<(), InvalidTiming> {
        let timing = Timing { keep_alive: self.keep_alive_interval * 2, ..self.timing };
        timing.check().map(drop)
    }
}
