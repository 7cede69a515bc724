//! What a session reaches outside its sandbox: the hosts on its list, through a proxy of the worker, and nothing else.
//!
//! Init makes the proxy's listener on the loopback interface inside and keeps nothing of it; the worker takes the
//! connections, decides about each, resolves the name itself and connects. Whoever asks is session code, and hostile.

mod authority;
mod contacts;
mod forward;
mod hello;
mod inject;
mod places;
mod proxy;
mod refusal;
mod watched;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use codegen_proto::EgressHost;
use codegen_types::packages::HostPort;
use codegen_types::{Contact, ContactOutcome, ErrorCode, Failure, Reach};
use parking_lot::{Mutex, RwLock};
use rustix::fs::MemfdFlags;
use sandbox::{PROXY_CERTIFICATES, PROXY_PORT, ProxySpec};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::upstream::{self, UpstreamError, WayOut};
pub(crate) use contacts::Contacts;
use inject::{Certificates, Injections};
pub(crate) use places::Places;
use places::PlacesOfOne;
use watched::{Meter, Watched};

/// Variables by which programs find the certificates to trust.
const CERTIFICATES: [&str; 5] =
    ["CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"];
/// Hosts that are reached without the proxy, since they are inside.
const INSIDE: &str = "localhost,127.0.0.1,::1";

/// What one session reaches.
pub(crate) struct Egress {
    permitted: RwLock<Arc<Permitted>>,
    way_out: WayOut,
    contacts: Arc<Contacts>,
    /// Those that programs trust for the life of the sandbox; none where nothing was to be put into requests at first.
    certificates: Option<Certificates>,
    places: PlacesOfOne,
}

/// What a session reaches until that is decided anew.
struct Permitted {
    /// As the coordinator says it.
    said: codegen_proto::Egress,
    hosts: BTreeMap<HostPort, Reach>,
    injections: Injections,
    /// Cancelled when something else is permitted: connections that were made under this end then.
    over: CancellationToken,
}

impl Permitted {
    fn of(said: codegen_proto::Egress, certificates: Option<&Certificates>) -> Result<Self, Failure> {
        let hosts: BTreeMap<_, _> =
            said.hosts.iter().map(|EgressHost { host, reach }| (host.clone(), *reach)).collect();
        if let Some(stray) = said.secrets.iter().find(|secret| !hosts.contains_key(&secret.host)) {
            let message = format!("The secret `{}` is for a host that the session may not reach.", stray.name);
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        let injections = certificates.map(|certificates| Injections::of(&said.secrets, certificates)).transpose()?;
        Ok(Self { said, hosts, injections: injections.unwrap_or_default(), over: CancellationToken::new() })
    }

    fn nothing() -> Self {
        Self {
            said: codegen_proto::Egress { hosts: Vec::new(), secrets: Vec::new() },
            hosts: BTreeMap::new(),
            injections: Injections::default(),
            over: CancellationToken::new(),
        }
    }
}

/// A connection to a host of the list, whose bytes are counted.
type Outside = Watched<tokio::net::TcpStream, Meter>;

impl Egress {
    /// What a coordinator permits a session. Reads files.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a secret that cannot be a header, `INTERNAL` when the host has no certificates to trust.
    pub fn of(
        said: codegen_proto::Egress,
        way_out: WayOut,
        places: &Places,
        contacts: Arc<Contacts>,
    ) -> Result<Arc<Self>, Failure> {
        let needs_certificates = !said.secrets.is_empty();
        let certificates = needs_certificates.then(|| Certificates::make(way_out.trusted.as_deref())).transpose()?;
        let permitted = RwLock::new(Arc::new(Permitted::of(said, certificates.as_ref())?));
        Ok(Arc::new(Self { permitted, way_out, contacts, certificates, places: places.of_one() }))
    }

    /// What the coordinator permits from now on. Connections that are open end when that is something else than before, since
    /// it is not told of each what it carries. Secrets for a sandbox that was made without any come with its next one.
    ///
    /// # Errors
    /// As of [`of`](Self::of); nothing is permitted then, since what was before may be what is taken away.
    pub fn permit(&self, said: codegen_proto::Egress) -> Result<(), Failure> {
        if self.permitted().said == said {
            return Ok(());
        }
        let next = Permitted::of(said, self.certificates.as_ref());
        next.map(|next| self.put_in_force(next)).inspect_err(|_| self.permit_nothing())
    }

    /// Lets nothing be reached until something else is permitted.
    pub fn permit_nothing(&self) {
        self.put_in_force(Permitted::nothing());
    }

    fn put_in_force(&self, next: Permitted) {
        let before = std::mem::replace(&mut *self.permitted.write(), Arc::new(next));
        before.over.cancel();
    }

    fn permitted(&self) -> Arc<Permitted> {
        Arc::clone(&self.permitted.read())
    }

    /// What the session's sandbox must have.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn spec(&self) -> io::Result<ProxySpec> {
        let certificates = self.certificates.as_ref().map(|certificates| {
            let mut file = File::from(rustix::fs::memfd_create("certificates", MemfdFlags::CLOEXEC)?);
            file.write_all(certificates.bundle.as_bytes())?;
            Ok::<_, io::Error>(file.into())
        });
        Ok(ProxySpec { certificates: certificates.transpose()? })
    }

    /// The variables by which programs find the proxy, in the spellings that they look for. `ALL_PROXY` is left out: what
    /// looks only there speaks protocols that this proxy does not.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        let proxied = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| (name, proxy.as_str()));
        let others = [("NO_PROXY", INSIDE), ("no_proxy", INSIDE), ("NODE_USE_ENV_PROXY", "1")];
        let certificates = CERTIFICATES.map(|name| (name, PROXY_CERTIFICATES));
        let certificates = certificates.into_iter().filter(|_| self.certificates.is_some());
        proxied
            .into_iter()
            .chain(others)
            .chain(certificates)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Whom the session asked to reach since this was last asked.
    pub fn take_contacts(&self) -> Vec<Contact> {
        self.contacts.take()
    }

    /// What is kept of contacts, for another life of the session.
    pub fn contacts(&self) -> Arc<Contacts> {
        Arc::clone(&self.contacts)
    }

    /// Connects to a host of the list.
    async fn connect(
        self: &Arc<Self>,
        host: &HostPort,
        encrypted: bool,
        reach: Reach,
    ) -> Result<Outside, UpstreamError> {
        match upstream::connect(&self.way_out, host, encrypted, reach).await {
            Ok(stream) => {
                self.contacts.note(host, ContactOutcome::Reached);
                Ok(Watched::new(stream, Meter { egress: Arc::clone(self), host: host.clone() }))
            }
            Err(error) => {
                // The contacts tell of it; a program could fill the diagnostics.
                tracing::debug!(%host, error = &error as &dyn std::error::Error, "a host was not reached");
                let outcome = match error {
                    UpstreamError::Private => ContactOutcome::Refused,
                    _ => ContactOutcome::Failed,
                };
                self.contacts.note(host, outcome);
                Err(error)
            }
        }
    }
}

/// The proxy of one life of a session's sandbox. Dropped, it takes no more connections and ends those that are open.
#[derive(Debug)]
pub(crate) struct Proxying {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Proxying {
    /// Serves what programs inside ask for. Needs a tokio runtime.
    pub fn start(egress: &Arc<Egress>, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(proxy::serve(Arc::clone(egress), listener, stop.clone()));
        Ok(Self { stop, task: Mutex::new(Some(task)) })
    }

    /// Ends it now: its listener would keep the sandbox's network.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it, and waits until no connection of it carries anything any more.
    pub async fn ended(&self) {
        self.stop();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It ends by what it was told, or has panicked.
            let _ = task.await;
        }
    }
}

impl Drop for Proxying {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The refusal of a session that is to reach something where that cannot be bounded.
pub(crate) fn unavailable(level: codegen_types::IsolationLevel) -> Failure {
    Failure::new(
        ErrorCode::IsolationUnavailable,
        format!(
            "`network` needs isolation at level `full`, since only a network of its own keeps a session from reaching more \
             than it may; this worker isolates at level `{level}`. Nothing was run."
        ),
    )
}

#[cfg(test)]
mod tests {
    use codegen_proto::{EgressSecret, Secret};

    use super::*;

    fn host(name: &str) -> HostPort {
        HostPort::new(name, 443).unwrap()
    }

    #[test]
    fn what_cannot_be_put_in_force_leaves_nothing_in_force() {
        let hosts = vec![EgressHost { host: host("a.example"), reach: Reach::Public }];
        let before = codegen_proto::Egress { hosts: hosts.clone(), secrets: Vec::new() };
        let egress = Egress::of(before.clone(), WayOut::default(), &Places::default(), Arc::default()).unwrap();
        let open = egress.permitted();
        let stray = EgressSecret {
            name: "key".to_owned(),
            host: host("b.example"),
            header: "authorization".to_owned(),
            value: Secret::new("x"),
        };
        let refused = egress.permit(codegen_proto::Egress { hosts, secrets: vec![stray] }).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument);
        assert!(egress.permitted().hosts.is_empty(), "no host is reached");
        assert!(open.over.is_cancelled(), "and what is open ends");
        egress.permit(before).unwrap();
        assert!(egress.permitted().hosts.contains_key(&host("a.example")), "what is permitted next is in force");
    }
}
