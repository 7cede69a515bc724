//! The file with the policy, and its being read again.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codegen_audit::{Audit, AuditUnavailable, Entry, EventKind, Hash, Outcome};
use coordinator_core::policy::{InvalidPolicy, POLICY_BYTES_MAX, Policy};
use parking_lot::RwLock;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::Signal;
use tokio::sync::watch;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("the policy {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is none.
    #[error("the policy {} cannot be used", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        source: InvalidPolicy,
    },
    /// That it was read could not be recorded.
    #[error("the policy cannot be put into the audit log")]
    Unaudited(#[from] AuditUnavailable),
}

/// The policy that holds. Cheap to clone; all clones are read again together.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    file: Option<PathBuf>,
    current: RwLock<Arc<Policy>>,
    changed: watch::Sender<()>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("file", &self.0.file).finish_non_exhaustive()
    }
}

impl Policies {
    /// A policy that stays as it is.
    pub fn fixed(policy: Policy) -> Self {
        Self::of(None, policy)
    }

    /// The policy of a file, or one that allows everything when there is none. That it was read is in the log.
    ///
    /// # Errors
    /// [`PolicyError`]: nothing runs under a policy that cannot be used.
    pub async fn load(file: Option<PathBuf>, audit: &Audit) -> Result<Self, PolicyError> {
        let Some(path) = file else { return Ok(Self::fixed(Policy::default())) };
        let (policy, sha256) = read(&path)?;
        record(&path, &policy, &sha256, audit).await?;
        Ok(Self::of(Some(path), policy))
    }

    fn of(file: Option<PathBuf>, policy: Policy) -> Self {
        let (current, changed) = (RwLock::new(Arc::new(policy)), watch::Sender::new(()));
        Self(Arc::new(Inner { file, current, changed }))
    }

    /// The policy that holds now. A call holds it from its beginning on.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.0.current.read())
    }

    /// Changes whenever another policy holds.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Whether there is a file that can be read again.
    pub(crate) fn has_file(&self) -> bool {
        self.0.file.is_some()
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// The policy before stays.
    pub async fn reload(&self, audit: &Audit) -> Result<(), PolicyError> {
        let Some(path) = self.0.file.clone() else { return Ok(()) };
        match read(&path) {
            Ok((policy, sha256)) => {
                record(&path, &policy, &sha256, audit).await?;
                *self.0.current.write() = Arc::new(policy);
                self.0.changed.send_replace(());
                Ok(())
            }
            Err(error) => {
                record_refusal(&path, &error, audit).await?;
                Err(error)
            }
        }
    }

    /// Reads the file again at each signal, for ever.
    pub(crate) async fn follow(self, mut hangups: Signal, audit: Audit) {
        while hangups.recv().await.is_some() {
            match self.reload(&audit).await {
                Ok(()) => tracing::info!(rules = self.current().rules().len(), "the policy was read again"),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the policy cannot be used; the one before stays");
                }
            }
        }
    }
}

/// Reads a file, and gives its SHA-256 in hexadecimal digits, too.
///
/// # Errors
/// It cannot be read, or is no policy.
pub fn read(path: &Path) -> Result<(Policy, String), PolicyError> {
    let unreadable = |source| PolicyError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One byte more, so that what is too long is seen to be.
    file.take(POLICY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(std::io::Error::other(error)))?;
    let policy = Policy::parse(text).map_err(|source| PolicyError::Invalid { path: path.to_owned(), source })?;
    Ok((policy, hex(&bytes)))
}

fn hex(bytes: &[u8]) -> String {
    Hash(Sha256::digest(bytes).into()).to_string()
}

async fn record(path: &Path, policy: &Policy, sha256: &str, audit: &Audit) -> Result<(), PolicyError> {
    let detail = json!({
        "file": path.display().to_string(), "sha256": sha256, "rules": policy.rules().len(),
        "default": policy.default_effect(),
    });
    append(detail, Outcome::Ok, audit).await
}

async fn record_refusal(path: &Path, error: &PolicyError, audit: &Audit) -> Result<(), PolicyError> {
    let why = match error {
        PolicyError::Invalid { source, .. } => source.to_string(),
        PolicyError::Unreadable { source, .. } => source.to_string(),
        PolicyError::Unaudited(_) => return Ok(()),
    };
    append(json!({"file": path.display().to_string(), "why": why}), Outcome::Refused, audit).await
}

async fn append(detail: serde_json::Value, outcome: Outcome, audit: &Audit) -> Result<(), PolicyError> {
    let (detail, outcome) = (Some(detail), Some(outcome));
    audit.append(Entry { kind: EventKind::PolicyLoaded, detail, outcome, ..Entry::default() }).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_file_keeps_the_rules_before_and_each_reading_is_recorded() {
        let audit = Audit::in_memory();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        assert!(matches!(Policies::load(Some(path.clone()), &audit).await, Err(PolicyError::Unreadable { .. })));
        std::fs::write(&path, "default = 'deny'").unwrap();
        let policies = Policies::load(Some(path.clone()), &audit).await.unwrap();
        assert_eq!(policies.current().default_effect(), coordinator_core::policy::Effect::Deny);
        std::fs::write(&path, "default = 'perhaps'").unwrap();
        assert!(matches!(policies.reload(&audit).await, Err(PolicyError::Invalid { .. })));
        assert_eq!(policies.current().default_effect(), coordinator_core::policy::Effect::Deny);
        std::fs::write(&path, "default = 'allow'").unwrap();
        policies.reload(&audit).await.unwrap();
        assert_eq!(policies.current().default_effect(), coordinator_core::policy::Effect::Allow);
        let records = audit.memory_records();
        let loads = records.iter().filter(|record| record.kind == EventKind::PolicyLoaded);
        let details: Vec<_> = loads.map(|record| (record.outcome, record.detail.clone().unwrap())).collect();
        assert_eq!(details.len(), 3);
        let sha256 = hex(b"default = 'allow'");
        assert_eq!((details[2].0, &details[2].1["sha256"]), (Some(Outcome::Ok), &json!(sha256)));
        assert!(details[1].0 == Some(Outcome::Refused) && details[1].1["why"].as_str().unwrap().contains("line 1"));
    }

    #[test]
    fn a_file_that_is_too_long_is_no_policy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, "#".repeat(POLICY_BYTES_MAX + 1)).unwrap();
        assert!(matches!(read(&path), Err(PolicyError::Invalid { .. })));
    }
}
