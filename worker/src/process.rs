//! The worker's process: from its start message to its end.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use codegen_proto::Secret;
use codegen_types::{Incarnation, IsolationLevel};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use sandbox::files::WorkspaceBase;
use sandbox::{Backend, ProcessBackend, launcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::lineage::Lineage;
use crate::link::{Address, Door, Membership, Network, Proof, Route};
use crate::passage;
use crate::runtimes::Runtimes;
use crate::runtimes::find::SYSTEM_PATH;
use crate::service::{Identity, Service};
use crate::session::{Owners, Pool, PoolOptions};
use crate::start::{AdvertiseStart, RemoteStart, StartMessage, TlsStart};
use crate::tasks::Tasks;
use crate::upstream::WayOut;

/// How long running tasks of the embedded worker may go on after SIGTERM.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a coordinator that is there may take to read what tasks came to.
const OUTCOMES_READ_DEADLINE: Duration = Duration::from_secs(2);
/// How long the tasks may take to end whose sandboxes the launcher took with it.
const LAST_OUTCOMES_DEADLINE: Duration = Duration::from_secs(1);
/// How long ending every sandbox may take; the launcher ends what is left when this process is gone.
const END_DEADLINE: Duration = Duration::from_secs(3);
/// Threads of the event loop; the work itself is done inside the sandboxes.
const EVENT_THREADS_MAX: usize = 4;

/// What ends the process besides signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// The embedded worker is a child of its coordinator, and lives no longer than standard input stays open.
    UntilStdinEnds,
    /// A remote worker outlives its coordinator.
    UntilSignal,
}

/// Runs until its life is over or a signal asks it to stop.
pub(crate) fn run(life: Life) -> anyhow::Result<()> {
    allow_descriptors();
    let launcher = launcher::fork().context("the launcher cannot be started")?;
    // The token that is read next must not be read from this process's memory by others of the same user.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let start = StartMessage::read(&mut io::stdin().lock())?;
    log_to_stderr(&start.log_level)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(EVENT_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let ended = runtime.block_on(serve(launcher, start, life));
    // A blocked disk must not keep the process.
    runtime.shutdown_background();
    ended
}

/// Raises the soft limit on open files to the hard one, since a session takes five: the usual 1024 are for some 200
/// sessions. Programs get the limit of their session.
pub fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is refused there are fewer sessions, and the one too many is told so.
    let _kept = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn log_to_stderr(level: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(level).context("`log_level` in the start message")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    Ok(())
}

async fn serve(launcher: launcher::LauncherSocket, start: StartMessage, life: Life) -> anyhow::Result<()> {
    let lifeline = match life {
        Life::UntilStdinEnds => watch_stdin(),
        Life::UntilSignal => CancellationToken::new(),
    };
    let signals = Signals::new()?;
    let address: Address = start.coordinator.parse().context("`coordinator` in the start message")?;
    let search_path = start.search_path.unwrap_or_else(|| SYSTEM_PATH.to_owned());
    let (backend, runtimes) = tokio::join!(ProcessBackend::start(launcher), Runtimes::find(search_path.as_ref()));
    let backend = backend.context("no sandbox can be made")?;
    let level = backend.report().level;
    let runtimes = runtimes.for_sessions_at(level, search_path.as_ref()).await;
    let way_out = WayOut::from(&start.packages);
    let runtimes = runtimes.with_packages(start.packages, search_path.as_ref(), &start.base_workspace);
    let (isolation, listed) = (backend.report().clone(), runtimes.listed());
    tracing::info!(level = %isolation.level, runtimes = ?listed, "probed");
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let tasks = Arc::new(Tasks::default());
    let base = WorkspaceBase::open(&start.base_workspace).context("`base_workspace` in the start message")?;
    let passed = level == IsolationLevel::Portable && start.isolation_minimum <= level;
    passage::arrange(&base, &start.closed_above, passed).context("the way to the workspaces cannot be arranged")?;
    let sessions_max = match level {
        IsolationLevel::Reduced => start.sessions_max.min(start.reduced_sessions),
        IsolationLevel::None | IsolationLevel::Portable | IsolationLevel::Full => start.sessions_max,
    };
    let pool = Pool::new(PoolOptions {
        owners: Owners::of(&base).context("no user ids for sessions can be reserved")?,
        base,
        backend: Arc::clone(&backend),
        runtimes,
        tasks: tasks.clone(),
        way_out,
        sessions_max,
        isolation_minimum: start.isolation_minimum,
        // Where no session is opened, no sandbox is made for one; nor where a workspace's name is a path inside, since a
        // spare's changes when a session gets it.
        spare_limits: start.spare_limits.filter(|_| level == IsolationLevel::Full),
    });
    let identity = Identity { worker: start.worker_id, incarnation: Incarnation::mint() };
    // A worker that its coordinator starts is known by its token.
    let lineage = start.remote.as_ref().map(|_| Lineage::of(&start.base_workspace, identity.incarnation));
    let service = Service::new(identity, pool, tasks);
    let Joining { proof, labels, tls, door, drain } = Joining::of(start.token, start.remote).await?;
    let (linked, is_linked) = watch::channel(false);
    let membership = Membership {
        route: Route { address, tls, network: Network::default() },
        door,
        proof,
        labels,
        isolation,
        runtimes: listed,
        sessions_max,
        host: Host::new(start.base_workspace),
        lineage,
        service: service.clone(),
        linked,
    };
    let (stop, draining) = (CancellationToken::new(), CancellationToken::new());
    let joined = tokio::spawn({
        let (stop, draining) = (stop.clone(), draining.clone());
        async move { membership.keep(stop, draining).await }
    });
    tokio::select! {
        () = wait_for_end(&service, signals, &lifeline, &draining, Drain { at_most: drain, is_linked, life }) => {}
        () = backend.lost() => {
            // Its sandboxes ended with it, and so do the tasks; their outcomes are still told.
            if tokio::time::timeout(LAST_OUTCOMES_DEADLINE, service.drain()).await.is_err() {
                tracing::warn!("some tasks did not end with the launcher");
            }
            // The coordinator starts a new worker, as it does after any other crash.
            anyhow::bail!("the launcher is gone, and no sandbox can be made without it");
        }
    }
    // The coordinator is told while its link is still up, unless it is the one that is gone.
    if !lifeline.is_cancelled() {
        stop.cancel();
        tokio::select! {
            _ = joined => {}
            () = lifeline.cancelled() => {}
        }
    }
    if tokio::time::timeout(END_DEADLINE, service.end_all()).await.is_err() {
        tracing::warn!("some sandboxes did not end in time; the launcher ends them");
    }
    Ok(())
}

/// How a worker joins and leaves.
struct Joining {
    proof: Proof,
    labels: BTreeMap<String, String>,
    tls: Option<TlsStart>,
    door: Option<Door>,
    drain: Duration,
}

impl Joining {
    async fn of(token: Option<String>, remote: Option<RemoteStart>) -> anyhow::Result<Self> {
        let remote = match (token, remote) {
            (Some(token), None) => {
                let proof = Proof::Once(Secret::new(token));
                return Ok(Self { proof, labels: BTreeMap::new(), tls: None, door: None, drain: DRAIN_DEADLINE });
            }
            (None, Some(remote)) => remote,
            (Some(_), Some(_)) | (None, None) => anyhow::bail!("the start message has not one way to join"),
        };
        let RemoteStart { token_file, labels, tls, advertise, drain_ms } = remote;
        let door = match advertise {
            Some(AdvertiseStart { address, listen }) => {
                let door = Door::open(listen, address, tls.clone()).await;
                Some(door.with_context(|| format!("{listen} cannot be listened at"))?)
            }
            None => None,
        };
        let proof = token_file.map_or(Proof::Certificate, Proof::File);
        Ok(Self { proof, labels, tls, door, drain: Duration::from_millis(drain_ms) })
    }
}

/// Returns when the process shall end: at once when standard input has ended or a signal came twice, after running
/// tasks have ended when one came once.
async fn wait_for_end(
    service: &Service,
    mut signals: Signals,
    lifeline: &CancellationToken,
    draining: &CancellationToken,
    drain: Drain,
) {
    tokio::select! {
        () = lifeline.cancelled() => return,
        () = signals.next() => {}
    }
    tracing::info!(running = service.tasks().running(), "stopping");
    // Said before the coordinator is told, so that nothing comes in between.
    service.take_nothing_new();
    draining.cancel();
    let at_most = drain.at_most;
    let ended = async {
        service.drain().await;
        drain.outcomes_read(service).await;
    };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(at_most) => {}
        () = lifeline.cancelled() => {}
        () = signals.next() => {}
    }
}

/// How a worker drains.
struct Drain {
    /// How long it may take.
    at_most: Duration,
    /// Whether there is a link.
    is_linked: watch::Receiver<bool>,
    life: Life,
}

impl Drain {
    /// Waits until the outcomes of tasks were read, which a coordinator that is away just now does when it is back. One
    /// that is there and does not want them is not waited for, nor is any by its own child, which it sees end.
    async fn outcomes_read(mut self, service: &Service) {
        if self.life == Life::UntilStdinEnds {
            return;
        }
        let unwanted = async {
            loop {
                // The sender is dropped with the membership, which then waits for nobody either.
                if self.is_linked.wait_for(|linked| *linked).await.is_err() {
                    return;
                }
                let broke = self.is_linked.wait_for(|linked| !*linked);
                if tokio::time::timeout(OUTCOMES_READ_DEADLINE, broke).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = service.tasks().were_read() => {}
            () = unwanted => {}
        }
    }
}

/// Cancelled when standard input has ended. A thread of its own waits for that: a blocking read cannot be given up, and
/// must not hold up the end of the process.
fn watch_stdin() -> CancellationToken {
    let lifeline = CancellationToken::new();
    let guard = lifeline.clone().drop_guard();
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        // Nothing is expected after the start message, and nothing that comes is looked at.
        while io::stdin().read(&mut rest).is_ok_and(|count| count > 0) {}
        drop(guard);
    });
    lifeline
}

/// The signals that ask this process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
