//! What a session reaches outside its sandbox: telling its worker, again whenever that is decided otherwise, and keeping what
//! the worker tells of contacts.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Entry, EventKind};
use codegen_proto::{Egress, EgressHost, OpenSession};
use codegen_types::{Contact, ErrorCode, Failure, Lease, Principal, SessionId, SessionNetwork};
use coordinator_core::egress::InForce;
use coordinator_core::placement::Requirements;
use coordinator_core::session::SessionState;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Owner;
use crate::session::Shared;
use crate::session::options::SessionOptions;
use crate::session::outcome::contacts_of;
use crate::session::receipt::Charge;
use crate::workers::Opened;

/// How long a worker that could not be told rests before it is told again; each time it is longer, up to the second of these.
const RESTS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// What a session's worker was told last.
pub(super) struct Told {
    egress: Egress,
    /// Whether what it was decided by may be another thing by now, or the worker was told of another and did not answer.
    stale: Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    /// It is what the worker holds to and what is decided.
    No,
    /// It is what the worker holds to.
    Perhaps,
    /// What the worker holds to is not known.
    Unsure,
}

/// What a worker is to be told.
struct Due {
    egress: Egress,
    /// Why secrets are lacking that the session asked for.
    lacking: Option<Failure>,
}

/// When a worker that could not be told is told again, and how long it rested before that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retelling {
    pub(super) at: Instant,
    rest: Duration,
}

/// News of what decides about it: the policy, the secrets. Nothing for a session that reaches nothing in any case.
pub(super) struct Decided(Option<(watch::Receiver<()>, Option<watch::Receiver<()>>)>);

impl Decided {
    /// What decides about what a session of that network reaches.
    pub(super) fn of(SessionOptions { policies, secrets, .. }: &SessionOptions, network: &SessionNetwork) -> Self {
        Self((!network.is_none()).then(|| (policies.changes(), secrets.changes())))
    }

    /// Waits until something may be decided otherwise; for ever where nothing can be.
    pub(super) async fn anew(&mut self) {
        let Some((policy, secrets)) = &mut self.0 else { return std::future::pending().await };
        let secret = async {
            match secrets {
                Some(secrets) => heard(secrets).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = heard(policy) => {}
            () = secret => {}
        }
    }
}

/// Waits for news; for ever when there will be none.
async fn heard(news: &mut watch::Receiver<()>) {
    if news.changed().await.is_err() {
        std::future::pending().await
    }
}

impl Owner {
    /// Opens the session on its worker.
    pub(super) async fn open_on_worker(&mut self, lease: Lease) -> Result<Opened, Failure> {
        let egress = match self.due().await {
            Some(Due { lacking: Some(failure), .. }) => return Err(failure),
            Some(Due { egress, lacking: None }) => Some(egress),
            None => None,
        };
        self.tell(lease, egress).await
    }

    /// Has the worker open the session with this, or hold to it in a session that it has open.
    async fn tell(&mut self, lease: Lease, egress: Option<Egress>) -> Result<Opened, Failure> {
        let options = &self.shared.options;
        let Requirements { isolation_minimum, .. } = options.requirements(&self.row.network);
        let (limits, session) = (options.limits, self.row.id);
        if let Some(told) = &mut self.told {
            told.stale = Stale::Unsure;
        }
        let open = OpenSession { session, lease, limits, isolation_minimum, egress: egress.clone() };
        let opened = self.shared.fleet.open(open).await;
        if let (Ok(_), Some(egress)) = (&opened, egress) {
            self.note_reach(&egress).await;
            self.told = Some(Told { egress, stale: Stale::No });
        }
        opened
    }

    /// Something that decides about what the session reaches is another thing.
    pub(super) async fn decided_anew(&mut self) {
        if let Some(told) = &mut self.told {
            told.stale = told.stale.max(Stale::Perhaps);
        }
        self.retell().await;
    }

    /// Tells the worker of a session that is ready what it does not know, now or as soon as it can be told: what was taken
    /// away does not stay within reach of what runs there.
    pub(super) async fn retell(&mut self) {
        self.retelling = match self.renew_reach().await {
            Ok(()) => None,
            Err(failure) => {
                tracing::warn!(session = %self.row.id, %failure, "a worker is not told what a session reaches by now");
                let rest = self.retelling.map_or(RESTS[0], |last| RESTS[1].min(last.rest * 2));
                Some(Retelling { at: Instant::now() + rest, rest })
            }
        };
    }

    /// Has the worker of a session that is ready know what the session reaches, before a task begins there.
    ///
    /// # Errors
    /// It was not told, or it was told of the hosts and not of secrets that cannot be read or that it is not to have.
    pub(super) async fn renew_reach(&mut self) -> Result<(), Failure> {
        let SessionState::Ready { lease } = &self.session.state else { return Ok(()) };
        let lease = lease.clone();
        if self.told.as_ref().is_some_and(|told| told.stale == Stale::No) {
            return Ok(());
        }
        let Some(Due { mut egress, mut lacking }) = self.due().await else { return Ok(()) };
        let is_known = |told: &Told, egress: &Egress| told.stale != Stale::Unsure && told.egress == *egress;
        if !self.told.as_ref().is_some_and(|told| is_known(told, &egress)) {
            match self.tell(lease.clone(), Some(egress.clone())).await {
                // A worker that is not to have secrets is told of the hosts all the same.
                Err(failure) if failure.code == ErrorCode::PermissionDenied && !egress.secrets.is_empty() => {
                    egress.secrets.clear();
                    lacking = Some(failure);
                    self.tell(lease, Some(egress)).await?;
                }
                told => drop(told?),
            }
        }
        if let Some(told) = &mut self.told {
            told.stale = if lacking.is_some() { Stale::Perhaps } else { Stale::No };
        }
        lacking.map_or(Ok(()), Err)
    }

    /// What its worker is to let it reach: what it asked for when it was made, as far as that is permitted today; nothing for
    /// one that asked for nothing. One that asked for something has a proxy also when nothing of it is left, which says so
    /// to its programs.
    async fn due(&self) -> Option<Due> {
        let (options, network) = (&self.shared.options, &self.row.network);
        if network.is_none() {
            return None;
        }
        let InForce { hosts, .. } = options.in_force(&self.row.principal, network);
        let hosts: Vec<_> = hosts.into_iter().map(|(host, reach)| EgressHost { host, reach }).collect();
        let (mut secrets, lacking) = match options.secrets.of(&self.row.principal, network).await {
            Ok(found) => (found.secrets, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        secrets.retain(|secret| hosts.iter().any(|allowed| allowed.host == secret.host));
        Some(Due { egress: Egress { hosts, secrets }, lacking })
    }

    /// Records what the session reaches when that is not what it asked for, or other than before.
    async fn note_reach(&self, egress: &Egress) {
        let is_news = match &self.told {
            Some(told) => told.egress != *egress,
            None => egress.hosts.len() < self.row.network.allow.len(),
        };
        if is_news {
            let reaches: Vec<_> = egress.hosts.iter().map(|allowed| &allowed.host).collect();
            let dropped: Vec<_> = self.row.network.allow.iter().filter(|host| !reaches.contains(host)).collect();
            let secrets: Vec<_> = egress.secrets.iter().map(|secret| &secret.name).collect();
            self.note(json!({"network": {"allow": reaches, "secrets": secrets}, "dropped": dropped})).await;
        }
    }

    /// Keeps what came to light when the session's processes were ended.
    pub(super) async fn note_contacts(&mut self, contacts: &[Contact]) {
        if contacts.is_empty() {
            return;
        }
        let detail = json!({"contacts": contacts_of(contacts)});
        if let Some(charge) = Charge::of(None, Some(&detail)) {
            Arc::make_mut(&mut self.receipt).add_late(&charge);
        }
        self.note(detail).await;
    }

    async fn note(&self, detail: Value) {
        let lease = self.row.state.lease().cloned();
        note(&self.shared, Some(self.row.principal.clone()), self.row.id, lease, detail).await;
    }
}

/// Puts on record what was learnt of a session's network.
pub(in crate::session) async fn note(
    shared: &Shared,
    principal: Option<Principal>,
    session: SessionId,
    lease: Option<Lease>,
    detail: Value,
) {
    let (kind, session) = (EventKind::SessionNetwork, Some(session));
    let entry = Entry { kind, principal, session, lease, detail: Some(detail), ..Entry::default() };
    if let Err(error) = shared.audit.queue(entry).await {
        tracing::error!(?session, %error, "recorded late");
    }
}
