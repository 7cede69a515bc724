//! Dialling workers that advertised an address, instead of waiting for the link that others open.
//!
//! The address is the wish of somebody who may be hostile: nothing is dialled that the operator did not permit, a name
//! is resolved once, and what was checked is what is dialled. The worker lets nobody in who does not show the ticket
//! that it was given when it registered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::Secret;
use codegen_types::{Incarnation, WorkerId};
use coordinator_core::network::{Network, may_dial};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::handle::Inner;
use super::link::Link;
use super::socket::Socket;
use crate::config::Plaintext;
use crate::supervisor::OnEnd;
use crate::tls::Tls;

/// How long one attempt may take, from dialling until the worker answered.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// The rest between attempts: the worker may not yet have read the ticket that it is shown.
const ATTEMPT_REST: Duration = Duration::from_millis(200);
/// How long resolving a name may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// The longest answer to a preamble, in bytes.
const ANSWER_BYTES_MAX: usize = 256;

/// How workers are dialled.
pub struct Dialler {
    allow: Vec<Network>,
    plaintext: Plaintext,
    tls: Option<Tls>,
    connections: Arc<Semaphore>,
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
    #[error("its HTTP/2 handshake failed")]
    Link(#[from] tonic::transport::Error),
}

impl Dialler {
    /// Dials what lies in `allow`, with TLS where there is an authority, at most `connections_max` at once.
    pub fn new(allow: Vec<Network>, plaintext: Plaintext, tls: Option<Tls>, connections_max: usize) -> Self {
        let tls = tls.filter(Tls::can_dial);
        Self { allow, plaintext, tls, connections: Arc::new(Semaphore::new(connections_max)) }
    }

    /// What an advertised text stands for, when it may be dialled. Every address of a name must be allowed.
    pub(crate) async fn resolve(&self, text: &str) -> Result<Target, AdvertiseRefused> {
        if self.allow.is_empty() {
            return Err(AdvertiseRefused::Off);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AdvertiseRefused::Malformed)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(AdvertiseRefused::Malformed)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| AdvertiseRefused::Malformed)?;
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let resolving = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, port))).await;
                let resolved = resolving.map_err(|_| AdvertiseRefused::Unresolved)?;
                resolved.map_err(|_| AdvertiseRefused::Unresolved)?.collect()
            }
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

/// Dials a life of a worker until there is a link, its ticket is too old, or that life is over.
pub(crate) fn start(inner: &Arc<Inner>, worker: WorkerId, incarnation: Incarnation, target: Target, ticket: Secret) {
    let (stop, inner) = (inner.supervisor.token(), Arc::clone(inner));
    let supervisor = inner.supervisor.clone();
    supervisor.spawn("worker dialling", OnEnd::Ignore, async move {
        let until = Instant::now() + inner.options.ticket_lifetime;
        let dialling = dial_until(&inner, &worker, incarnation, &target, &ticket, until);
        let _stopped = stop.run_until_cancelled(dialling).await;
    });
}

async fn dial_until(
    inner: &Arc<Inner>,
    worker: &WorkerId,
    incarnation: Incarnation,
    target: &Target,
    ticket: &Secret,
    until: Instant,
) {
    loop {
        let attempt = tokio::time::timeout(ATTEMPT_LIMIT, dial(inner, worker, incarnation, target, ticket)).await;
        let failed = match attempt {
            Ok(Ok(())) => return,
            Ok(Err(failed)) => failed,
            Err(elapsed) => DialFailed::Io(elapsed.into()),
        };
        let wanted = inner.registry.read().link(worker, incarnation).is_some();
        if !wanted || Instant::now() + ATTEMPT_REST > until {
            let error: &dyn std::error::Error = &failed;
            tracing::warn!(%worker, %incarnation, error, "the address that a worker advertised does not answer");
            return;
        }
        tokio::time::sleep(ATTEMPT_REST).await;
    }
}

async fn dial(
    inner: &Arc<Inner>,
    worker: &WorkerId,
    incarnation: Incarnation,
    target: &Target,
    ticket: &Secret,
) -> Result<(), DialFailed> {
    let dialler = inner.dialler.get().ok_or(DialFailed::Full)?;
    let place = dialler.place()?;
    let mut socket = dialler.connect(target).await?;
    let preamble = format!("codegen-link/1 {} {incarnation}\n", ticket.expose());
    socket.write_all(preamble.as_bytes()).await?;
    let answer = read_line(&mut socket).await?;
    if answer != "ok" {
        return Err(DialFailed::Refused(answer.escape_debug().to_string()));
    }
    let number = inner.next_link();
    let on_gone = inner.link_gone_later(worker, incarnation, number);
    let link = Link::establish(number, socket, Some(place), &inner.options, on_gone).await?;
    inner.attach_link(worker, incarnation, link);
    Ok(())
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

    fn dialler(allow: &[&str], plaintext: Plaintext) -> Dialler {
        Dialler::new(allow.iter().map(|text| text.parse().unwrap()).collect(), plaintext, None, 1)
    }

    #[tokio::test]
    async fn an_advertised_address_is_dialled_only_where_the_operator_permits_it() {
        let local = dialler(&["127.0.0.0/8"], Plaintext::Local);
        assert!(local.resolve("127.0.0.1:7000").await.is_ok());
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
            assert_eq!(local.resolve(text).await, Err(refused), "{text}");
        }
        assert_eq!(dialler(&[], Plaintext::Anywhere).resolve("127.0.0.1:1").await, Err(AdvertiseRefused::Off));
    }

    #[tokio::test]
    async fn beyond_this_machine_plain_text_takes_the_operators_word() {
        let careful = dialler(&["10.0.0.0/8"], Plaintext::Local);
        assert_eq!(careful.resolve("10.0.0.1:7000").await, Err(AdvertiseRefused::Plaintext));
        assert!(dialler(&["10.0.0.0/8"], Plaintext::Anywhere).resolve("10.0.0.1:7000").await.is_ok());
    }
}
