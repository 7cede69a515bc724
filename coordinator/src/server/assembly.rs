//! All parts of a serving process, put together in the order in which they need each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{
    Audit, AuditUnavailable, Entry, EventKind, OpenError, Options as AuditOptions, last_segment_start, open_approvals,
};
use codegen_types::{Failure, IndexUrl, Limits};
use coordinator_core::worker::InvalidTiming;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::chosen::{embedded_options, session_options};
use super::client::McpClients;
use super::fronts::ServeClient;
use super::listeners::{ListenError, Listeners};
use super::lost_tokens;
use super::readiness::Parts;
use super::state_dir::{LockedStateDir, StateDirError};
use crate::admission::Admission;
use crate::approvals::{Approvals, BY_END};
use crate::caller;
use crate::config::{Config, Provision};
use crate::control::Control;
use crate::diagnostics::{Diagnostics, DiagnosticsError};
use crate::front::handover::VERSION;
use crate::http::{HttpServices, Plant, Readiness};
use crate::identity::{Authenticator, Issuer, NoTrustedRoots, Scope, Tokens};
use crate::mcp::{self, Services};
use crate::operators::Operators;
use crate::policy::{Gate, Hosts, Policies, PolicyError};
use crate::provision::embedded::{Embedded, EmbeddedOptions};
use crate::provision::{self, ProvisionError};
use crate::reload::Reload;
use crate::secrets::Secrets;
use crate::session::{SessionOptions, Sessions, SessionsDeps, StartError};
use crate::store::sqlite::Sqlite;
use crate::store::{SessionStore, StoreError};
use crate::supervisor::{OnEnd, Supervisor};
use crate::telemetry::Metrics;
use crate::telemetry::traces::{self, BadEndpoint, Exporting};
use crate::workers::{Dialler, Growth, Listener, WorkerEvent, Workers, WorkersOptions};

/// Connections to workers that advertised an address.
const WORKERS_DIALLED_MAX: usize = 1_024;
/// How long running calls may take to end once the process is to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long everything else may then take.
const CORE_PATIENCE: Duration = Duration::from_secs(5);

/// Why a part cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// There would be nowhere to write what goes wrong.
    #[error(transparent)]
    Diagnostics(#[from] DiagnosticsError),
    /// The state directory could not be closed to others.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// No worker could join.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nothing may be done unaudited.
    #[error("the audit log cannot be opened; `coordinator audit verify` says more")]
    Audit(#[from] OpenError),
    /// The log took no record.
    #[error("the audit log cannot be written")]
    Unaudited(#[from] AuditUnavailable),
    /// The store of sessions and tasks cannot be used.
    #[error("the store of sessions cannot be opened")]
    Store(#[from] StoreError),
    /// The sessions cannot be brought back.
    #[error("the sessions cannot be brought back")]
    Sessions(#[from] StartError),
    /// The times of the configuration contradict each other.
    #[error("the times for workers are not in order")]
    Timing(#[from] InvalidTiming),
    /// The issuer of tokens could not be known from anybody else.
    #[error(transparent)]
    Issuer(#[from] NoTrustedRoots),
    /// Workers cannot be started.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// Traces could go nowhere.
    #[error(transparent)]
    Traces(#[from] BadEndpoint),
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy could not be read again.
    #[error("SIGHUP cannot be listened for")]
    Hangups(#[source] std::io::Error),
    /// That the tokens are lost could not be noted.
    #[error("the tokens are lost with the store, and that cannot be noted: {0}")]
    Tokens(Failure),
}

/// All parts that others reach, built and bound; nothing runs yet.
pub(super) struct Bound {
    listeners: Listeners,
    workers: Workers,
    events: mpsc::Receiver<WorkerEvent>,
    embedded: Option<EmbeddedOptions>,
    provision: Provision,
    store: Sqlite,
    sessions: SessionOptions,
    yield_after: Duration,
    rest: Rest,
}

/// Everything, running.
pub(super) struct Running {
    service: Arc<McpClients>,
    services: Services,
    sessions: Sessions,
    operators: Operators,
    embedded: Option<Embedded>,
    workers: Workers,
    grpc_address: Option<SocketAddr>,
    store: Sqlite,
    rest: Rest,
}

/// What outlives the parts above: it is needed to say how they ended.
struct Rest {
    /// Runs the connections of clients, which end first.
    clients: Supervisor,
    /// Runs everything that the clients' calls need.
    core: Supervisor,
    audit: Audit,
    authenticator: Authenticator,
    policies: Policies,
    approvals: Approvals,
    limits: Limits,
    package_indexes: Arc<[IndexUrl]>,
    traces: Option<Exporting>,
    admission: Admission,
    secrets: Secrets,
    diagnostics: Diagnostics,
    state: LockedStateDir,
}

impl Bound {
    /// Opens the log and the store, and binds the sockets on which workers join.
    pub(super) async fn build(config: &Config, state: LockedStateDir, reload: &Reload) -> Result<Self, AssemblyError> {
        let (clients, core) = (Supervisor::default(), Supervisor::default());
        let diagnostics = Diagnostics::init(&state.logs_dir(), config.log_level)?;
        let traces = config.traces.as_ref().map(traces::start).transpose()?;
        let (audit, opened) = Audit::open(AuditOptions::new(state.audit_dir())).await?;
        if let Some(recovered) = opened.recovered {
            tracing::warn!(?recovered, "the log's last writer was interrupted; its unfinished record was set aside");
        }
        let (store, damaged) = Sqlite::open_or_replace(&state.database()).await?;
        if let Some(aside) = &damaged {
            tracing::error!(aside = %aside.display(), "the store was damaged and set aside; sessions come back from the log");
        }
        let tokens = Tokens::load(Arc::new(store.clone()), audit.clone()).await?;
        let are_lost = damaged.is_some() || (!tokens.any() && lost_tokens::are_lost(&store, state.audit_dir()).await?);
        if are_lost {
            tokens.note_loss(&caller::this_user()).await.map_err(AssemblyError::Tokens)?;
        }
        let issuer = config.oauth.clone().map(Issuer::new).transpose()?;
        let authenticator = Authenticator::new(tokens, issuer, config.http_auth, audit.clone());
        let policies = Policies::load(config.policy.clone(), &audit).await?;
        let approvals = Approvals::new(audit.clone());
        let listeners = Listeners::bind(&state, &config.grpc).await?;
        if let Some(tls) = listeners.tls.clone() {
            let (stop, reloads) = (core.token(), reload.follow());
            core.spawn("TLS of workers", OnEnd::Ignore, async move {
                let _stopped = stop.run_until_cancelled(tls.follow(reloads)).await;
            });
        }
        let times = config.worker_times;
        let growth = match &config.provision {
            Provision::Nobody => Growth::ByHand,
            Provision::Docker(_) | Provision::Kubernetes(_) => Growth::ByItself,
        };
        let options = WorkersOptions {
            growth,
            timing: times.timing()?,
            heartbeat_interval: times.heartbeat_interval,
            keep_alive_interval: times.keep_alive,
            reflection: config.grpc.reflection,
            secrets: config.secrets_workers,
            ..WorkersOptions::default()
        };
        let (workers, events) = Workers::new(options, audit.clone(), core.clone())?;
        let dialler = Dialler::new(
            config.grpc.advertise_allow.clone(),
            config.grpc.plaintext,
            listeners.tls.clone(),
            WORKERS_DIALLED_MAX,
        );
        let workers = workers.joined_by(authenticator.tokens().clone()).dialling(dialler);
        if authenticator.tokens().any_permits(Scope::Worker) || config.grpc.authority.is_some() {
            workers.expect_others();
        }
        let embedded = embedded_options(config, &state);
        // The embedded worker knows whether sessions must pass; without one in here, none do.
        if embedded.as_ref().is_none_or(|embedded| embedded.closed_above.is_empty()) {
            state.close()?;
        }
        let provision = config.provision.clone();
        let secrets = Secrets::new(state.path(), audit.clone());
        let sessions =
            SessionOptions { secrets: secrets.clone(), policies: policies.clone(), ..session_options(config) };
        let package_indexes = config.packages.indexes.clone().into();
        let gate = Gate::new(policies.clone(), approvals.clone(), Hosts::from(&config.packages));
        let admission = Admission::new(config.rates.clone()).behind(gate);
        let rest = Rest {
            clients,
            core,
            audit,
            authenticator,
            policies,
            approvals,
            limits: config.limits,
            package_indexes,
            admission,
            secrets,
            traces,
            diagnostics,
            state,
        };
        let yield_after = config.yield_after;
        Ok(Self { listeners, workers, events, embedded, provision, store, sessions, yield_after, rest })
    }

    /// What says who makes a request over HTTP.
    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.rest.authenticator
    }

    /// Brings the sessions back, and sets everything going.
    pub(super) async fn start(self) -> Result<Running, AssemblyError> {
        let Self { listeners, workers, events, embedded, provision, store, sessions, yield_after, rest } = self;
        let detail = json!({"version": VERSION, "pid": std::process::id()});
        let started = Entry { kind: EventKind::ServerStarted, detail: Some(detail), ..Entry::default() };
        rest.audit.append(started).await?;
        let shared_store = Arc::new(store.clone());
        let sessions = Sessions::start(SessionsDeps {
            audit: rest.audit.clone(),
            audit_dir: Some(rest.state.audit_dir()),
            sessions: Arc::clone(&shared_store) as Arc<dyn SessionStore>,
            tasks: shared_store,
            fleet: Arc::new(workers.clone()),
            supervisor: rest.core.clone(),
            options: sessions,
        })
        .await?;
        rest.core.spawn("worker events", OnEnd::Shutdown, sessions.clone().follow(events));
        let cordons = Arc::new(store.clone());
        let operators = Operators::start(workers.clone(), sessions.clone(), cordons, rest.audit.clone()).await?;
        let (stop, draining) = (rest.core.token(), operators.clone().keep_draining());
        rest.core.spawn("drains", OnEnd::Shutdown, async move {
            let _stopped = stop.run_until_cancelled(draining).await;
        });
        workers.serve_listener(listeners.embedded);
        let grpc_address = listeners.remote.as_ref().and_then(|remote| remote.local_addr().ok());
        match (listeners.remote, listeners.tls) {
            (Some(remote), Some(tls)) => workers.serve_listener(Listener::Tls(remote, tls)),
            (Some(remote), None) => workers.serve_listener(remote),
            (None, _) => {}
        }
        let approvals = rest.approvals.clone();
        rest.deny_orphans().await;
        rest.watch_policy()?;
        let control = Control::new(rest.authenticator.tokens().clone(), approvals, caller::this_user())
            .keeping(rest.secrets.clone())
            .of_running(operators.clone());
        rest.clients.spawn("commands", OnEnd::Ignore, control.accept(listeners.control, rest.clients.clone()));
        let embedded = embedded.map(|options| Embedded::start(options, workers.clone(), &rest.core));
        let (found, kept, tokens) = (workers.clone(), sessions.clone(), rest.authenticator.tokens().clone());
        provision::start(provision, grpc_address, found, kept, operators.clone(), tokens, &rest.core).await?;
        let package_indexes = Arc::clone(&rest.package_indexes);
        let options = mcp::Options { limits: rest.limits, yield_after, package_indexes, ..mcp::Options::default() };
        let services =
            Services::new(Arc::new(sessions.clone()), rest.audit.clone(), options).admitted_by(rest.admission.clone());
        let service =
            Arc::new(McpClients::new(services.clone(), rest.diagnostics.taps().clone(), rest.clients.clone()));
        tracing::info!(version = VERSION, state = %rest.state.path().display(), "serving");
        Ok(Running { service, services, sessions, operators, embedded, workers, grpc_address, store, rest })
    }
}

impl Rest {
    /// Closes the requests for approval of a server that ended without a word, as far as the log's last segment has them.
    async fn deny_orphans(&self) {
        let dir = self.state.audit_dir();
        let read = move || last_segment_start(&dir).and_then(|from| open_approvals(&dir, from, BY_END));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((requested, ended))) => self.approvals.deny_orphans(requested, ended).await,
            Ok(Err(error)) => tracing::warn!(%error, "requests for approval of an earlier server are not looked for"),
            Err(error) => tracing::warn!(%error, "requests for approval of an earlier server were not looked for"),
        }
    }

    /// Has the policy read again at SIGHUP, and requests for approval denied in time.
    fn watch_policy(&self) -> Result<(), AssemblyError> {
        let (stop, time) = (self.core.token(), self.approvals.clone().keep_time());
        self.core.spawn("approvals", OnEnd::Shutdown, async move {
            let _stopped = stop.run_until_cancelled(time).await;
        });
        if self.policies.has_file() {
            let hangups = signal(SignalKind::hangup()).map_err(AssemblyError::Hangups)?;
            let (stop, policies, audit) = (self.core.token(), self.policies.clone(), self.audit.clone());
            self.core.spawn("policy", OnEnd::Ignore, async move {
                let _stopped = stop.run_until_cancelled(policies.follow(hangups, audit)).await;
            });
        }
        Ok(())
    }
}

impl Running {
    /// What serves clients.
    pub(super) fn service(&self) -> Arc<dyn ServeClient> {
        Arc::clone(&self.service) as Arc<dyn ServeClient>
    }

    /// What serves clients over HTTP.
    pub(super) fn http_services(&self) -> HttpServices {
        let parts = Arc::new(Parts {
            store: self.store.clone(),
            audit: self.rest.audit.clone(),
            workers: self.workers.clone(),
            sessions: self.sessions.clone(),
            audit_dir: self.rest.state.audit_dir(),
            approvals: self.rest.approvals.clone(),
            operators: self.operators.clone(),
        });
        let readiness = Arc::clone(&parts) as Arc<dyn Readiness>;
        let plant = Arc::clone(&parts) as Arc<dyn Plant>;
        HttpServices { mcp: self.services.clone(), readiness, metrics: Metrics::new(parts), plant }
    }

    /// Where workers of other hosts register, if they can.
    pub(super) fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc_address
    }

    /// What runs the connections of clients.
    pub(super) fn clients(&self) -> &Supervisor {
        &self.rest.clients
    }

    /// Waits until a part has ended without which the process cannot go on.
    pub(super) async fn failed(&self) {
        self.rest.core.token().cancelled().await;
    }

    /// How many tasks run at present, for whichever client.
    pub(super) fn running_tasks(&self) -> usize {
        self.sessions.running_tasks()
    }

    /// Ends everything in order: clients with their calls, sessions, workers, the store, the log, the lock.
    pub(super) async fn stop(self, why: &str) {
        let Rest { clients, core, audit, approvals, traces, diagnostics, state, .. } = self.rest;
        clients.cancel();
        if !clients.drain(DRAIN_PATIENCE).await {
            tracing::warn!("calls were still running when the time to end them was over");
        }
        approvals.close().await;
        if tokio::time::timeout(CORE_PATIENCE, self.sessions.shutdown()).await.is_err() {
            tracing::warn!("sessions were still open when the time to end them was over; their worker ends them now");
        }
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
        self.workers.shutdown();
        core.cancel();
        if !core.drain(CORE_PATIENCE).await {
            tracing::warn!("parts of the server were still running when the time to end them was over");
        }
        let stopped = Entry { kind: EventKind::ServerStopped, detail: Some(json!({"why": why})), ..Entry::default() };
        if let Err(error) = audit.append(stopped).await {
            tracing::error!(%error, "the end of the server is not in the log");
        }
        self.store.close().await;
        audit.close().await;
        if let Some(traces) = traces {
            traces.stop().await;
        }
        drop(state);
        drop(diagnostics);
    }
}
