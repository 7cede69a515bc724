//! Dialling workers that advertised an address, instead of waiting for the link that others open.
//!
//! The address is the wish of somebody who may be hostile: nothing is dialled that the operator did not permit, a name
//! is resolved once, and what was checked is what is dialled. The worker lets nobody in who does not show the ticket
//! that it was given when it registered.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::Secret;
use codegen_types::{Incarnation, WorkerId};
use coordinator_core::network::{Network, may_dial};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::Inner;
use super::link::Link;
use super::socket::Socket;
use crate::config::Plaintext;
use crate::supervisor::OnEnd;
use crate::tls::Tls;

/// How long one attempt may take, from dialling until the worker answered.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// The first rest between attempts, each being twice the one before: the worker may not yet have read the ticket that it
/// is shown.
const ATTEMPT_REST_MIN: Duration = Duration::from_millis(200);
/// The longest rest between attempts.
const ATTEMPT_REST_MAX: Duration = Duration::from_secs(5);
/// How long resolving a name may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Names that are resolved at once, each by a thread that cannot be given up; when full, whoever advertises one is told
/// to come again.
const RESOLVING_MAX: usize = 16;
/// The longest answer to a preamble, in bytes.
const ANSWER_BYTES_MAX: usize = 256;

/// How workers are dialled.
pub struct Dialler {
    allow: Vec<Network>,
    plaintext: Plaintext,
    tls: Option<Tls>,
    connections: Arc<Semaphore>,
    /// Workers whose names are being resolved, one of each.
    resolving: Arc<Mutex<HashSet<WorkerId>>>,
}

/// That a worker's name is being resolved, until the thread that does it is through.
struct Resolving {
    worker: WorkerId,
    all: Arc<Mutex<HashSet<WorkerId>>>,
}

impl Drop for Resolving {
    fn drop(&mut self) {
        self.all.lock().remove(&self.worker);
    }
}

/// Where a worker is, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    addresses: Vec<SocketAddr>,
    name: ServerName<'static>,
}

/// Why a worker's address is not dialled. Its text goes to the worker's operator and tells nothing of our network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdvertiseRefused {
    #[error(
        "this coordinator dials no workers; leave `advertise` out, or have its operator permit it (--advertise-allow)"
    )]
    Off,
    #[error("`advertise` is not HOST:PORT")]
    Malformed,
    #[error("the advertised name cannot be resolved")]
    Unresolved,
    #[error("names that workers advertise are still being resolved; try again later")]
    Busy,
    #[error("the advertised address is none that this coordinator's operator permits to dial")]
    NotAllowed,
    #[error(
        "workers beyond this machine are dialled with TLS alone, and this coordinator has no authority to check them by"
    )]
    Plaintext,
}

/// Why there is no link to a worker that was dialled.
#[derive(Debug, thiserror::Error)]
enum DialFailed {
    #[error("it cannot be reached")]
    Io(#[from] io::Error),
    #[error("it refused the link: {0}")]
    Refused(String),
    #[error("there are as many connections to workers as there may be")]
    Full,
    #[error("its ticket was used or replaced meanwhile")]
    Late,
    #[error("its HTTP/2 handshake failed")]
    Link(#[from] tonic::transport::Error),
}

impl Dialler {
    /// Dials what lies in `allow`, with TLS where there is an authority, at most `connections_max` at once.
    pub fn new(allow: Vec<Network>, plaintext: Plaintext, tls: Option<Tls>, connections_max: usize) -> Self {
        let tls = tls.filter(Tls::can_dial);
        Self {
            allow,
            plaintext,
            tls,
            connections: Arc::new(Semaphore::new(connections_max)),
            resolving: Arc::default(),
        }
    }

    /// What the text that a worker advertises stands for, when it may be dialled. Every address of a name must be allowed.
    pub(crate) async fn resolve(&self, worker: &WorkerId, text: &str) -> Result<Target, AdvertiseRefused> {
        if self.allow.is_empty() {
            return Err(AdvertiseRefused::Off);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AdvertiseRefused::Malformed)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(AdvertiseRefused::Malformed)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| AdvertiseRefused::Malformed)?;
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.look_up(worker, host.to_owned(), port).await?,
        };
        if addresses.is_empty() {
            return Err(AdvertiseRefused::Unresolved);
        }
        if !addresses.iter().all(|address| may_dial(&self.allow, address.ip())) {
            return Err(AdvertiseRefused::NotAllowed);
        }
        let local = addresses.iter().all(|address| address.ip().is_loopback());
        if self.tls.is_none() && !local && self.plaintext == Plaintext::Local {
            return Err(AdvertiseRefused::Plaintext);
        }
        Ok(Target { addresses, name })
    }

    async fn look_up(&self, worker: &WorkerId, host: String, port: u16) -> Result<Vec<SocketAddr>, AdvertiseRefused> {
        let place = self.begin_resolving(worker).ok_or(AdvertiseRefused::Busy)?;
        // A name server that the worker keeps may take its time: the thread's place is taken for as long.
        let looking = tokio::task::spawn_blocking(move || {
            let _place = place;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        match tokio::time::timeout(RESOLVE_LIMIT, looking).await {
            Ok(Ok(Ok(addresses))) => Ok(addresses),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(AdvertiseRefused::Unresolved),
        }
    }

    fn begin_resolving(&self, worker: &WorkerId) -> Option<Resolving> {
        let mut resolving = self.resolving.lock();
        let begins = resolving.len() < RESOLVING_MAX && resolving.insert(worker.clone());
        begins.then(|| Resolving { worker: worker.clone(), all: Arc::clone(&self.resolving) })
    }

    async fn connect(&self, target: &Target) -> io::Result<Socket> {
        let stream = TcpStream::connect(target.addresses.as_slice()).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => Ok(Socket::Tls(Box::new(tls.connect(stream, target.name.clone()).await?.into()))),
            None => Ok(Socket::Tcp(stream)),
        }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, DialFailed> {
        Arc::clone(&self.connections).try_acquire_owned().map_err(|_| DialFailed::Full)
    }
}

/// Whom to dial, and with what.
pub(crate) struct Errand {
    pub worker: WorkerId,
    pub incarnation: Incarnation,
    pub target: Target,
    pub ticket: Secret,
    /// Cancelled when the ticket is void: there is a newer one, or a link, or that life is over.
    pub void: CancellationToken,
}

/// Dials a life of a worker until there is a link or its ticket is too old or void; so each life is dialled by one.
pub(crate) fn start(inner: &Arc<Inner>, errand: Errand) {
    let (stop, inner) = (inner.supervisor.token(), Arc::clone(inner));
    let supervisor = inner.supervisor.clone();
    supervisor.spawn("worker dialling", OnEnd::Ignore, async move {
        let reached = tokio::select! {
            () = stop.cancelled() => None,
            () = errand.void.cancelled() => None,
            reached = errand.knock(&inner) => reached,
        };
        let Some((socket, place)) = reached else { return };
        let linked = tokio::time::timeout(ATTEMPT_LIMIT, errand.link(&inner, socket, place)).await;
        if let Err(failed) = linked.unwrap_or_else(|elapsed| Err(DialFailed::Io(elapsed.into()))) {
            errand.give_up(&failed);
        }
    });
}

impl Errand {
    /// Knocks until the worker has let us in or the ticket is too old.
    async fn knock(&self, inner: &Inner) -> Option<(Socket, OwnedSemaphorePermit)> {
        let until = Instant::now() + inner.options.ticket_lifetime;
        let mut rest = ATTEMPT_REST_MIN;
        loop {
            let attempt = tokio::time::timeout(ATTEMPT_LIMIT, self.dial(inner)).await;
            let failed = match attempt {
                Ok(Ok(reached)) => return Some(reached),
                Ok(Err(failed)) => failed,
                Err(elapsed) => DialFailed::Io(elapsed.into()),
            };
            if Instant::now() + rest > until {
                self.give_up(&failed);
                return None;
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(ATTEMPT_REST_MAX);
        }
    }

    async fn dial(&self, inner: &Inner) -> Result<(Socket, OwnedSemaphorePermit), DialFailed> {
        let dialler = inner.dialler.get().ok_or(DialFailed::Full)?;
        let place = dialler.place()?;
        let mut socket = dialler.connect(&self.target).await?;
        let preamble = format!("codegen-link/1 {} {}\n", self.ticket.expose(), self.incarnation);
        socket.write_all(preamble.as_bytes()).await?;
        let answer = read_line(&mut socket).await?;
        if answer != "ok" {
            return Err(DialFailed::Refused(answer.escape_debug().to_string()));
        }
        Ok((socket, place))
    }

    /// Makes the connection the worker's link, if it is still the one that is waited for.
    async fn link(&self, inner: &Arc<Inner>, socket: Socket, place: OwnedSemaphorePermit) -> Result<(), DialFailed> {
        let (worker, incarnation) = (&self.worker, self.incarnation);
        let redeemed = inner.registry.write().redeem_ticket(incarnation, self.ticket.expose(), inner.now());
        if redeemed.is_err() {
            return Err(DialFailed::Late);
        }
        let number = inner.next_link();
        let on_gone = inner.link_gone_later(worker, incarnation, number);
        let link = Link::establish(number, socket, Some(place), &inner.options, on_gone).await?;
        inner.attach_link(worker, incarnation, link);
        Ok(())
    }

    fn give_up(&self, failed: &DialFailed) {
        let (worker, incarnation, error) = (&self.worker, self.incarnation, failed as &dyn std::error::Error);
        tracing::warn!(%worker, %incarnation, error, "the address that a worker advertised gives no link");
    }
}

/// Reads byte by byte, since what follows the line belongs to HTTP/2.
async fn read_line(socket: &mut Socket) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match socket.read_u8().await? {
            b'\n' => return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into()),
            _ if line.len() == ANSWER_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerId {
        "a".parse().unwrap()
    }

    fn dialler(allow: &[&str], plaintext: Plaintext) -> Dialler {
        Dialler::new(allow.iter().map(|text| text.parse().unwrap()).collect(), plaintext, None, 1)
    }

    #[tokio::test]
    async fn an_advertised_address_is_dialled_only_where_the_operator_permits_it() {
        let local = dialler(&["127.0.0.0/8"], Plaintext::Local);
        assert!(local.resolve(&worker(), "127.0.0.1:7000").await.is_ok());
        for (text, refused) in [
            ("10.0.0.1:7000", AdvertiseRefused::NotAllowed),
            ("169.254.169.254:80", AdvertiseRefused::NotAllowed),
            ("[::1]:7000", AdvertiseRefused::NotAllowed),
            ("127.0.0.1", AdvertiseRefused::Malformed),
            ("127.0.0.1:0", AdvertiseRefused::Malformed),
            ("127.0.0.1:70000", AdvertiseRefused::Malformed),
            ("http://127.0.0.1:80", AdvertiseRefused::Malformed),
            (":80", AdvertiseRefused::Malformed),
        ] {
            assert_eq!(local.resolve(&worker(), text).await, Err(refused), "{text}");
        }
        assert_eq!(
            dialler(&[], Plaintext::Anywhere).resolve(&worker(), "127.0.0.1:1").await,
            Err(AdvertiseRefused::Off)
        );
    }

    #[tokio::test]
    async fn beyond_this_machine_plain_text_takes_the_operators_word() {
        let careful = dialler(&["10.0.0.0/8"], Plaintext::Local);
        assert_eq!(careful.resolve(&worker(), "10.0.0.1:7000").await, Err(AdvertiseRefused::Plaintext));
        assert!(dialler(&["10.0.0.0/8"], Plaintext::Anywhere).resolve(&worker(), "10.0.0.1:7000").await.is_ok());
    }

    #[tokio::test]
    async fn one_name_of_each_worker_is_resolved_at_a_time_and_no_more_than_there_are_threads_for() {
        let dialler = dialler(&["127.0.0.0/8"], Plaintext::Local);
        let own = dialler.begin_resolving(&worker());
        assert!(own.is_some());
        assert_eq!(dialler.resolve(&worker(), "localhost:1").await, Err(AdvertiseRefused::Busy));
        let others: Vec<_> =
            (0..RESOLVING_MAX).map(|at| dialler.begin_resolving(&format!("w{at}").parse().unwrap())).collect();
        assert_eq!(others.iter().filter(|other| other.is_none()).count(), 1);
        drop((own, others));
        assert_ne!(dialler.resolve(&worker(), "localhost:1").await, Err(AdvertiseRefused::Busy));
    }
}
