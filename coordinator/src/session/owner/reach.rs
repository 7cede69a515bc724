//! What a session reaches outside its sandbox: telling its worker, again whenever that is decided otherwise, and keeping what
//! the worker tells of contacts.

use std::sync::Arc;

use codegen_audit::{Entry, EventKind};
use codegen_proto::{Egress, EgressHost, OpenSession};
use codegen_types::{Contact, Failure, Lease};
use coordinator_core::egress::InForce;
use coordinator_core::placement::Requirements;
use coordinator_core::session::SessionState;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Owner;
use crate::session::options::SessionOptions;
use crate::session::outcome::contacts_of;
use crate::session::receipt::Charge;
use crate::workers::Opened;

/// What a session's worker was told last.
pub(super) struct Told {
    egress: Egress,
    /// Whether what it was decided by may be another thing by now.
    stale: bool,
}

/// News of what decides about it: the policy, the secrets. Nothing for a session that reaches nothing in any case.
pub(super) struct Decided(Option<(watch::Receiver<()>, Option<watch::Receiver<()>>)>);

impl Decided {
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
    /// What decides about what this session reaches.
    pub(super) fn decided(&self) -> Decided {
        let SessionOptions { policies, secrets, .. } = &self.shared.options;
        Decided((!self.row.network.is_none()).then(|| (policies.changes(), secrets.changes())))
    }

    /// Opens the session on its worker, or tells the worker that has it open what it reaches from now on.
    pub(super) async fn open_on_worker(&mut self, lease: Lease) -> Result<Opened, Failure> {
        let options = &self.shared.options;
        let Requirements { isolation_minimum, .. } = options.requirements(&self.row.network);
        let (egress, limits, session) = (self.reach().await?, options.limits, self.row.id);
        let open = OpenSession { session, lease, limits, isolation_minimum, egress: egress.clone() };
        let opened = self.shared.fleet.open(open).await;
        if let (Ok(_), Some(egress)) = (&opened, egress) {
            self.note_reach(&egress).await;
            self.told = Some(Told { egress, stale: false });
        }
        opened
    }

    /// Something that decides about what the session reaches is another thing.
    pub(super) async fn decided_anew(&mut self) {
        if let Some(told) = &mut self.told {
            told.stale = true;
        }
        // What cannot be told now is told before the next task.
        if let Err(failure) = self.renew_reach().await {
            tracing::warn!(session = %self.row.id, %failure, "a worker could not be told what a session reaches by now");
        }
    }

    /// Has the worker of a session that is ready know what the session reaches, before a task begins there.
    pub(super) async fn renew_reach(&mut self) -> Result<(), Failure> {
        let SessionState::Ready { lease } = &self.session.state else { return Ok(()) };
        if self.row.network.is_none() || self.told.as_ref().is_some_and(|told| !told.stale) {
            return Ok(());
        }
        let (lease, egress) = (lease.clone(), self.reach().await?);
        match &mut self.told {
            Some(told) if Some(&told.egress) == egress.as_ref() => told.stale = false,
            Some(_) | None => drop(self.open_on_worker(lease).await?),
        }
        Ok(())
    }

    /// What its worker is to let it reach: what it asked for when it was made, as far as that is permitted today. One that
    /// asked for something has a proxy also when nothing of it is left, which says so to its programs.
    async fn reach(&self) -> Result<Option<Egress>, Failure> {
        let (options, network) = (&self.shared.options, &self.row.network);
        if network.is_none() {
            return Ok(None);
        }
        let InForce { hosts, .. } = options.in_force(&self.row.principal, network);
        let hosts: Vec<_> = hosts.into_iter().map(|(host, reach)| EgressHost { host, reach }).collect();
        let mut secrets = options.secrets.of(&self.row.principal, network).await?.secrets;
        secrets.retain(|secret| hosts.iter().any(|allowed| allowed.host == secret.host));
        Ok(Some(Egress { hosts, secrets }))
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
            self.note(json!({"reaches": reaches, "dropped": dropped, "secrets": secrets})).await;
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
        let entry = Entry {
            kind: EventKind::SessionNetwork,
            principal: Some(self.row.principal.clone()),
            session: Some(self.row.id),
            lease: self.row.state.lease().cloned(),
            detail: Some(detail),
            ..Entry::default()
        };
        if let Err(error) = self.shared.audit.queue(entry).await {
            tracing::error!(session = %self.row.id, %error, "recorded late");
        }
    }
}
