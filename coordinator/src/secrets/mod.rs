//! Secrets of the operator that workers put into requests of sessions: kept encrypted, shown to nobody, and handed to the
//! worker of a session that may use them when the session is opened.

mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use codegen_audit::{Audit, Entry, EventKind, Outcome};
use codegen_proto::{EgressSecret, Secret};
use codegen_types::packages::HostPort;
use codegen_types::{ErrorCode, Failure, Principal, SessionNetwork};
use file::{Kept, Vault, VaultError};
use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

pub use file::SecretText;

/// The most secrets that are kept.
const SECRETS_MAX: usize = 256;
/// The longest name of a secret, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The longest header value, in bytes.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// The most principals that may use one secret.
const PRINCIPALS_MAX: usize = 256;
/// Headers that say where a request goes or how it is framed: the proxy's own business.
const NOT_FOR_SECRETS: [&str; 8] =
    ["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// The secrets of one server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Inner>>);

struct Inner {
    vault: Vault,
    audit: Audit,
    changing: tokio::sync::Mutex<()>,
    changed: watch::Sender<()>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Secrets").finish_non_exhaustive()
    }
}

/// Who may use a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// Every principal of the server.
    Everybody,
    /// These.
    Only(Vec<String>),
}

/// A secret that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    /// What sessions call it.
    pub name: String,
    /// The host whose requests get it.
    pub host: HostPort,
    /// The header that it is.
    pub header: String,
    /// Who may use it.
    pub users: Users,
    /// What the header says.
    pub value: SecretText,
}

/// A secret as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// What sessions call it.
    pub name: String,
    /// The host whose requests get it.
    pub host: HostPort,
    /// The header that it is.
    pub header: String,
    /// Who may use it.
    pub users: Users,
    /// When it was set.
    pub set: jiff::Timestamp,
}

impl Secrets {
    /// The secrets below a state directory.
    pub fn new(directory: &Path, audit: Audit) -> Self {
        let vault = Vault::new(PathBuf::from(directory));
        let (changing, changed) = (tokio::sync::Mutex::default(), watch::Sender::new(()));
        Self(Some(Arc::new(Inner { vault, audit, changing, changed })))
    }

    /// Changes whenever a secret was set or removed; nothing where none is kept.
    pub(crate) fn changes(&self) -> Option<watch::Receiver<()>> {
        self.0.as_ref().map(|inner| inner.changed.subscribe())
    }

    /// Keeps a secret, in place of one of that name.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `QUOTA_EXCEEDED`, `AUDIT_UNAVAILABLE`; `INTERNAL` when it cannot be kept.
    pub async fn set(&self, new: NewSecret, by: &Principal) -> Result<SecretView, Failure> {
        check(&new)?;
        let inner = self.inner()?;
        let _turn = inner.changing.lock().await;
        let mut kept = inner.read().await?;
        kept.retain(|one| one.view.name != new.name);
        if kept.len() >= SECRETS_MAX {
            let message = format!("there are {SECRETS_MAX} secrets, as many as are kept; remove one");
            return Err(Failure::new(ErrorCode::QuotaExceeded, message));
        }
        let NewSecret { name, host, header, users, value } = new;
        let view = SecretView { name, host, header: header.to_ascii_lowercase(), users, set: jiff::Timestamp::now() };
        inner.record(EventKind::SecretSet, &view, by).await?;
        kept.push(Kept { view: view.clone(), value });
        kept.sort_by(|one, other| one.view.name.cmp(&other.view.name));
        inner.write(kept).await?;
        Ok(view)
    }

    /// Every secret, without what it says.
    ///
    /// # Errors
    /// `INTERNAL` when they cannot be read.
    pub async fn list(&self) -> Result<Vec<SecretView>, Failure> {
        let kept = self.inner()?.read().await?;
        Ok(kept.into_iter().map(|one| one.view).collect())
    }

    /// Forgets a secret. Sessions that are open lose it at once, where their worker can be reached.
    ///
    /// # Errors
    /// `NOT_FOUND`, `AUDIT_UNAVAILABLE`; `INTERNAL` when the others cannot be kept.
    pub async fn remove(&self, name: &str, by: &Principal) -> Result<SecretView, Failure> {
        let inner = self.inner()?;
        let _turn = inner.changing.lock().await;
        let mut kept = inner.read().await?;
        let at = kept.iter().position(|one| one.view.name == name);
        let removed = at.map(|at| kept.remove(at).view);
        let removed =
            removed.ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no secret {name:?}")))?;
        inner.record(EventKind::SecretRemoved, &removed, by).await?;
        inner.write(kept).await?;
        Ok(removed)
    }

    /// What a session's worker is to put into requests. A secret that is not there, is somebody else's, or is for a host that the
    /// session does not name is in `missing`: whoever asks learns nothing of which it is.
    ///
    /// # Errors
    /// `INTERNAL` when they cannot be read.
    pub async fn of(&self, principal: &Principal, network: &SessionNetwork) -> Result<Granted, Failure> {
        let mut granted = Granted::default();
        if network.secrets.is_empty() {
            return Ok(granted);
        }
        let kept = match &self.0 {
            Some(inner) => inner.load().await.map_err(|error| untold(&error))?,
            None => Vec::new(),
        };
        for name in &network.secrets {
            let may_use = |one: &&Kept| {
                one.view.name == *name && one.view.users.contain(principal) && network.allow.contains(&one.view.host)
            };
            match kept.iter().find(may_use) {
                Some(Kept { view, value }) => granted.secrets.push(EgressSecret {
                    name: name.clone(),
                    host: view.host.clone(),
                    header: view.header.clone(),
                    value: Secret::new(value.expose()),
                }),
                None => granted.missing.push(name.clone()),
            }
        }
        Ok(granted)
    }

    fn inner(&self) -> Result<&Arc<Inner>, Failure> {
        self.0.as_ref().ok_or_else(|| Failure::new(ErrorCode::PreconditionFailed, "this server keeps no secrets"))
    }
}

/// What a session gets of what it asks for.
#[derive(Debug, Default)]
pub struct Granted {
    /// What its worker is told.
    pub secrets: Vec<EgressSecret>,
    /// Names of which it gets nothing.
    pub missing: Vec<String>,
}

impl Users {
    fn contain(&self, principal: &Principal) -> bool {
        match self {
            Self::Everybody => true,
            Self::Only(names) => names.iter().any(|name| name == principal.as_str()),
        }
    }
}

impl Inner {
    async fn read(self: &Arc<Self>) -> Result<Vec<Kept>, Failure> {
        self.load().await.map_err(failure)
    }

    async fn load(self: &Arc<Self>) -> Result<Vec<Kept>, VaultError> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.vault.read())
            .await
            .unwrap_or_else(|error| Err(VaultError::Task(error)))
    }

    async fn write(self: &Arc<Self>, kept: Vec<Kept>) -> Result<(), Failure> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.vault.write(&kept))
            .await
            .unwrap_or_else(|error| Err(VaultError::Task(error)))
            .map_err(failure)?;
        self.changed.send_replace(());
        Ok(())
    }

    async fn record(&self, kind: EventKind, view: &SecretView, by: &Principal) -> Result<(), Failure> {
        let detail = Some(json!({"name": view.name, "host": view.host, "header": view.header, "users": view.users}));
        let (principal, outcome) = (Some(by.clone()), Some(Outcome::Ok));
        let entry = Entry { kind, principal, outcome, detail, ..Entry::default() };
        let recorded = self.audit.append(entry).await;
        recorded.map(drop).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a change of secrets cannot be recorded");
            Failure::new(ErrorCode::AuditUnavailable, "the change cannot be recorded, so it was not made")
        })
    }
}

/// For clients, who learn nothing of the server's files.
fn untold(error: &VaultError) -> Failure {
    tracing::error!(error = error as &dyn std::error::Error, "the secrets cannot be used");
    Failure::new(ErrorCode::Internal, "the secrets of this server cannot be read; its log says why; nothing was run")
}

/// For the operator's commands.
fn failure(error: VaultError) -> Failure {
    tracing::error!(error = &error as &dyn std::error::Error, "the secrets cannot be used");
    Failure::new(ErrorCode::Internal, format!("{error}; nothing was changed"))
}

fn check(new: &NewSecret) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::new(ErrorCode::InvalidArgument, message));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || !new.name.bytes().all(plain) {
        return invalid(format!("the name of a secret has 1 to {NAME_BYTES_MAX} letters, digits or `._-`"));
    }
    let header = new.header.to_ascii_lowercase();
    if header.parse::<HeaderName>().is_err() || NOT_FOR_SECRETS.contains(&header.as_str()) {
        return invalid(format!("{:?} is no header that a secret can be", new.header));
    }
    let value = new.value.expose();
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || HeaderValue::from_str(value).is_err() {
        return invalid(format!("what a secret says is one line of 1 to {VALUE_BYTES_MAX} bytes"));
    }
    if let Users::Only(names) = &new.users
        && (names.is_empty() || names.len() > PRINCIPALS_MAX || names.iter().any(String::is_empty))
    {
        return invalid(format!("1 to {PRINCIPALS_MAX} principals may use a secret, or everybody"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, users: Users) -> NewSecret {
        NewSecret {
            name: name.to_owned(),
            host: HostPort::new("api.example", 443).unwrap(),
            header: "Authorization".to_owned(),
            users,
            value: SecretText::new("Bearer hunter2"),
        }
    }

    fn network(host: &str, secret: &str) -> SessionNetwork {
        SessionNetwork {
            allow: vec![HostPort::parse(host, 443).unwrap()],
            secrets: vec![secret.to_owned()],
            ..SessionNetwork::default()
        }
    }

    #[tokio::test]
    async fn a_secret_is_kept_encrypted_and_given_only_to_whom_it_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::in_memory();
        let (secrets, by) = (Secrets::new(directory.path(), audit.clone()), Principal::os_user("op"));
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let view = secrets.set(new("token", Users::Only(vec![ann.as_str().to_owned()])), &by).await.unwrap();
        assert_eq!(view.header, "authorization");
        for (principal, network, granted) in [
            (&ann, network("api.example", "token"), 1),
            (&bob, network("api.example", "token"), 0),
            (&ann, network("other.example", "token"), 0),
            (&ann, network("api.example", "other"), 0),
        ] {
            let given = secrets.of(principal, &network).await.unwrap();
            assert_eq!((given.secrets.len(), given.missing.len()), (granted, 1 - granted), "{principal} {network:?}");
            assert!(given.secrets.iter().all(|secret| secret.value.expose() == "Bearer hunter2"));
        }
        let listed = secrets.list().await.unwrap();
        let shown = format!("{listed:?} {} {:?}", json!(listed), audit.memory_records());
        assert!(shown.contains("token") && !shown.contains("hunter2"), "{shown}");
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(7).any(|bytes| bytes == b"hunter2"), "{}", path.display());
        }
        assert!(secrets.remove("other", &by).await.is_err());
        secrets.remove("token", &by).await.unwrap();
        assert!(secrets.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_a_header_is_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(directory.path(), Audit::in_memory());
        let good = || new("a", Users::Everybody);
        for bad in [
            NewSecret { name: "a b".to_owned(), ..good() },
            NewSecret { header: "Host".to_owned(), ..good() },
            NewSecret { header: "a b".to_owned(), ..good() },
            NewSecret { value: SecretText::new("a\r\nX: y"), ..good() },
            NewSecret { value: SecretText::new(""), ..good() },
            NewSecret { users: Users::Only(Vec::new()), ..good() },
        ] {
            let refused = secrets.set(bad, &Principal::os_user("op")).await.map_err(|failure| failure.code);
            assert_eq!(refused, Err(ErrorCode::InvalidArgument));
        }
    }

    #[tokio::test]
    async fn a_client_learns_nothing_of_the_servers_files_and_the_operator_which_one_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(directory.path(), Audit::in_memory());
        secrets.set(new("token", Users::Everybody), &Principal::os_user("op")).await.unwrap();
        std::fs::write(directory.path().join("secrets.age"), "junk").unwrap();
        let told = secrets.list().await.unwrap_err().message;
        assert!(told.contains("secrets.age"), "{told}");
        let told = secrets.of(&Principal::os_user("ann"), &network("api.example", "token")).await.unwrap_err().message;
        assert!(!told.contains("secrets.age") && !told.contains('/'), "{told}");
    }
}
