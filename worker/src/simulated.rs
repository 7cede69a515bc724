//! A worker in somebody else's process, on a backend and a network that are given to it: how it joins, is driven and
//! fails is tested so, together with its coordinator and in virtual time. What runs programs in earnest is
//! [`crate::main`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use codegen_proto::Secret;
use codegen_types::{Epoch, Incarnation, SessionId, WorkerId};
use sandbox::Backend;
use sandbox::files::WorkspaceBase;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::link::{Membership, Network, Proof, Route};
use crate::runtimes::Runtimes;
use crate::service::{Identity, Service};
use crate::session::{Owners, Pool, PoolOptions};
use crate::tasks::Tasks;

pub use crate::link::{Dial, Stream};

/// What programs are run with; looked for once, since that takes processes and the time of the clock.
#[derive(Clone)]
pub struct Interpreters(Runtimes);

impl Interpreters {
    /// Looks for a shell, and for nothing else.
    pub async fn find() -> Self {
        Self(Runtimes::find("/nowhere".as_ref()).await)
    }
}

/// What a simulated worker is made of.
pub struct Ground {
    /// Its name.
    pub worker: WorkerId,
    /// Its life; a real worker mints one at each start.
    pub incarnation: Incarnation,
    /// Where its coordinator listens, `host:port`.
    pub coordinator: String,
    /// What it joins with.
    pub token: String,
    /// Where its workspaces are.
    pub base_workspace: PathBuf,
    /// How many sessions it has at once.
    pub sessions_max: u32,
    /// What runs its programs, or plays them.
    pub backend: Arc<dyn Backend>,
    /// By what it reaches its coordinator.
    pub network: Arc<dyn Dial>,
    /// What programs are run with.
    pub interpreters: Interpreters,
}

/// A worker without a process of its own. Dropping it, with the runtime that it ran on, is its death.
pub struct Simulated {
    membership: Membership,
}

impl Simulated {
    /// Makes one that has not joined yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address is none, or the directory of workspaces cannot be used.
    pub fn new(ground: Ground) -> anyhow::Result<Self> {
        let base = WorkspaceBase::open(&ground.base_workspace).context("the directory of workspaces")?;
        let tasks = Arc::new(Tasks::default());
        let isolation = ground.backend.report().clone();
        let Interpreters(runtimes) = ground.interpreters;
        let listed = runtimes.listed();
        let pool = Pool::new(PoolOptions {
            owners: Owners::of(&base).context("user ids for sessions")?,
            base,
            backend: ground.backend,
            runtimes,
            tasks: Arc::clone(&tasks),
            way_out: crate::upstream::WayOut::default(),
            sessions_max: ground.sessions_max,
            isolation_minimum: isolation.level,
            spare_limits: None,
        });
        let identity = Identity { worker: ground.worker, incarnation: ground.incarnation };
        let address = ground.coordinator.parse().context("the coordinator's address")?;
        let membership = Membership {
            route: Route { address, tls: None, network: Network::Given(ground.network) },
            door: None,
            proof: Proof::Once(Secret::new(ground.token)),
            labels: BTreeMap::new(),
            isolation,
            runtimes: listed,
            sessions_max: ground.sessions_max,
            host: Host::new(ground.base_workspace),
            lineage: None,
            service: Service::new(identity, pool, tasks),
            linked: watch::Sender::new(false),
        };
        Ok(Self { membership })
    }

    /// Joins and serves, and joins again whenever the coordinator is lost, without end.
    pub async fn serve(&self) {
        self.membership.keep(CancellationToken::new(), CancellationToken::new()).await;
    }

    /// The sessions that are open, each with the epoch of its lease.
    pub fn open_sessions(&self) -> Vec<(SessionId, Epoch)> {
        self.membership.service.pool().open_now()
    }
}
