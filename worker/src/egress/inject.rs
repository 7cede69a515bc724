//! Secrets that the proxy puts into requests: programs speak TLS with the proxy, which adds the headers and speaks TLS with
//! the real host. What a header says is in the worker's memory alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::EgressSecret;
use codegen_types::packages::HostPort;
use codegen_types::{ContactOutcome, ErrorCode, Failure, Reach};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::authority::{Authority, CertificatesError, Trusted};
use super::forward::{self, Sender};
use super::refusal::{Body, Refusal};
use super::{Egress, Permitted, proxy};

/// How long either side may take to agree on keys.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(20);

/// What is put into requests of a session.
#[derive(Default)]
pub(super) struct Injections(BTreeMap<HostPort, Injection>);

/// What a session's proxy needs to stand for hosts: the same for the life of its sandbox.
pub(super) struct Certificates {
    authority: Authority,
    client: Arc<ClientConfig>,
    /// What programs trust.
    pub bundle: String,
}

impl Certificates {
    /// Makes those of one session; `trusted` is a file of certificates, the system's own when absent. Reads files.
    pub fn make(trusted: Option<&Path>) -> Result<Self, Failure> {
        let trusted = Trusted::read(trusted).map_err(no_certificates)?;
        let authority = Authority::new().map_err(no_certificates)?;
        let (client, bundle) = (trusted.client().map_err(no_certificates)?, trusted.bundle(&authority));
        Ok(Self { authority, client, bundle })
    }
}

fn no_certificates(error: CertificatesError) -> Failure {
    tracing::error!(error = &error as &dyn std::error::Error, "no secrets can be put into requests");
    Failure::new(ErrorCode::Internal, format!("{error}; nothing was run."))
}

struct Injection {
    headers: Vec<(HeaderName, HeaderValue)>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Injections {
    /// For these secrets.
    pub fn of(secrets: &[EgressSecret], certificates: &Certificates) -> Result<Self, Failure> {
        let mut hosts = BTreeMap::new();
        for EgressSecret { name, host, header, value } in secrets {
            let unusable = || {
                let message = format!("The secret `{name}` cannot be a header; nothing was run.");
                Failure::new(ErrorCode::InvalidArgument, message)
            };
            let header: HeaderName = header.parse().map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable())?;
            value.set_sensitive(true);
            if !hosts.contains_key(host) {
                let server = certificates.authority.stand_in(&host.name).map_err(no_certificates)?;
                let client = Arc::clone(&certificates.client);
                hosts.insert(host.clone(), Injection { headers: Vec::new(), server, client });
            }
            hosts.get_mut(host).expect("it was just put there").headers.push((header, value));
        }
        Ok(Self(hosts))
    }

    /// Whether requests to a host get something.
    pub fn concern(&self, host: &HostPort) -> bool {
        self.0.contains_key(host)
    }
}

/// What a program asked for that speaks with a host of which the proxy has a secret.
pub(super) struct Stand {
    pub egress: Arc<Egress>,
    pub permitted: Arc<Permitted>,
    pub host: HostPort,
    pub reach: Reach,
}

impl Stand {
    /// Speaks with the program in the host's place until either ends.
    pub async fn converse(self, inside: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Some(server) = self.injection().map(|injection| Arc::clone(&injection.server)) else { return };
        let accepting = TlsAcceptor::from(server).accept(inside);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_DEADLINE, accepting).await else { return };
        let asked_for = stream.get_ref().1.server_name();
        if asked_for.is_some_and(|name| !name.eq_ignore_ascii_case(&self.host.name)) {
            self.egress.contacts.note(&self.host, ContactOutcome::Refused);
            return;
        }
        let line = Arc::new(Line { stand: self, sender: Mutex::default() });
        let service = service_fn(move |request| {
            let line = Arc::clone(&line);
            async move { Ok::<_, hyper::Error>(line.answer(request).await.unwrap_or_else(|refusal| refusal.answer())) }
        });
        // A program that breaks off needs no answer.
        let _ = proxy::server().serve_connection(TokioIo::new(stream), service).await;
    }

    fn injection(&self) -> Option<&Injection> {
        self.permitted.injections.0.get(&self.host)
    }
}

/// One connection of a program, and the one to the host that it leads to.
struct Line {
    stand: Stand,
    /// The connection to the host, and what carries it.
    sender: Mutex<(Option<Sender>, JoinSet<()>)>,
}

impl Line {
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let Stand { egress, host, .. } = &self.stand;
        if request.method() == Method::CONNECT || !is_for(&request, host) {
            egress.contacts.note(host, ContactOutcome::Refused);
            return Err(Refusal::AnotherHost(host.clone()));
        }
        if shows_request(request.method()) {
            egress.contacts.note(host, ContactOutcome::Refused);
            return Err(Refusal::ShowsSecret(host.clone(), request.method().clone()));
        }
        let authority = request.headers().get(HOST).cloned().ok_or(Refusal::NoHost)?;
        request = forward::onward(request, authority).ok_or(Refusal::NoHost)?;
        for (name, value) in self.stand.injection().into_iter().flat_map(|injection| &injection.headers) {
            // In place of whatever the program said, however often.
            request.headers_mut().insert(name, value.clone());
        }
        let mut line = self.sender.lock().await;
        let kept = match line.0.take() {
            Some(mut sender) => sender.is_ready().await.then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(&mut line.1).await?,
        };
        let answer = sender.send(request).await.ok_or_else(|| Refusal::NoAnswer(host.clone()))?;
        line.0 = Some(sender);
        Ok(answer)
    }

    async fn connect(&self, drivers: &mut JoinSet<()>) -> Result<Sender, Refusal> {
        let Stand { egress, host, reach, .. } = &self.stand;
        let unreached = |source| Refusal::Unreached { host: host.clone(), source };
        let outside = egress.connect(host, true, *reach).await.map_err(unreached)?;
        let untrusted = || Refusal::Untrusted(host.clone());
        let name = ServerName::try_from(host.name.clone()).map_err(|_| untrusted())?;
        let client = self.stand.injection().map(|injection| Arc::clone(&injection.client)).ok_or_else(untrusted)?;
        let handshake = TlsConnector::from(client).connect(name, outside);
        let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%host, %error, "a host did not prove who it is");
                return Err(untrusted());
            }
            Err(_) => return Err(untrusted()),
        };
        while drivers.try_join_next().is_some() {}
        Sender::over(stream, drivers).await.ok_or_else(|| Refusal::NoAnswer(host.clone()))
    }
}

/// Whether a method asks for the request itself as the answer, the headers that were put into it included.
fn shows_request(method: &Method) -> bool {
    ["TRACE", "TRACK"].iter().any(|name| method.as_str().eq_ignore_ascii_case(name))
}

/// Whether a request is for this host, by all that it says: the proxy has said who it stands for.
fn is_for(request: &Request<Incoming>, host: &HostPort) -> bool {
    let is = |text: &str| HostPort::parse(text, 443).is_ok_and(|named| named == *host);
    let mut named = request.headers().get_all(HOST).iter();
    let one = named.next().and_then(|value| value.to_str().ok()).is_some_and(is);
    one && named.next().is_none()
        && request.uri().authority().is_none_or(|authority| is(authority.as_str()))
        && is_plain(request.uri())
}

/// Whether an address says nothing of another protocol.
fn is_plain(uri: &Uri) -> bool {
    uri.scheme_str().is_none_or(|scheme| scheme == "https")
}
