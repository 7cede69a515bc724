//! How the parts of the server are: whether everything works that calls need (the store, the log, and a worker), and
//! what there is.

use std::path::PathBuf;
use std::time::Duration;

use codegen_audit::{Audit, Health};
use futures::future::BoxFuture;

use crate::approvals::Approvals;
use crate::http::{Check, Plant, Readiness};
use crate::operators::Operators;
use crate::session::Sessions;
use crate::store::SessionStore as _;
use crate::store::sqlite::Sqlite;
use crate::telemetry::{Moment, Now};
use crate::workers::Workers;

/// How long the store may take to answer.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the parts of this process.
pub(super) struct Parts {
    pub(super) store: Sqlite,
    pub(super) audit: Audit,
    pub(super) workers: Workers,
    pub(super) sessions: Sessions,
    pub(super) audit_dir: PathBuf,
    pub(super) approvals: Approvals,
    pub(super) operators: Operators,
}

impl Parts {
    async fn store(&self) -> Option<String> {
        match tokio::time::timeout(STORE_PATIENCE, self.store.progress()).await {
            Ok(Ok(_progress)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some("it does not answer".to_owned()),
        }
    }

    fn log(&self) -> Option<String> {
        match &*self.audit.health().borrow() {
            Health::Writable => None,
            other => Some(format!("{other:?}")),
        }
    }

    async fn worker(&self) -> Option<String> {
        self.workers.ready(Duration::ZERO).await.err().map(|failure| failure.message)
    }
}

impl Readiness for Parts {
    fn look(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            vec![
                Check { name: "store", problem: self.store().await },
                Check { name: "log", problem: self.log() },
                Check { name: "worker", problem: self.worker().await },
            ]
        })
    }
}

impl Now for Parts {
    fn moment(&self) -> Moment {
        Moment {
            sessions: self.sessions.count_by_state(),
            tasks_running: self.sessions.running_tasks(),
            workers: self.workers.snapshot(),
            log_writable: self.log().is_none(),
        }
    }
}

impl Plant for Parts {
    fn operators(&self) -> &Operators {
        &self.operators
    }

    fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    fn audit_dir(&self) -> Option<PathBuf> {
        Some(self.audit_dir.clone())
    }
}
