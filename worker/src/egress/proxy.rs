//! Taking connections from inside, and what each of them may ask for.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::packages::HostPort;
use codegen_types::{ContactOutcome, Reach};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::forward::{self, Sender};
use super::hello::{self, Greeted};
use super::inject::Stand;
use super::places::{Full, Place};
use super::refusal::{Body, Refusal, text};
use super::watched::{Activity, Watched};
use super::{Egress, Outside, Permitted};

/// The longest head of a request, in bytes; the least that the library takes.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
/// How long a head may take, and a connection may wait for the next one.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long nothing may be carried before a connection is ended.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long a connection may wait for a place before those that come are refused.
const PLACE_PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are told at once that there is no place.
const REFUSALS_MAX: usize = 8;
/// How long telling one may take.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);
/// The rest after a connection could not be taken, for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Takes connections until it is told to stop, and ends them all then.
pub(super) async fn serve(egress: Arc<Egress>, listener: TcpListener, stop: CancellationToken) {
    let mut door = Door { egress, listener, connections: JoinSet::new(), refusals: JoinSet::new() };
    let _stopped = stop.run_until_cancelled(door.serve()).await;
    tokio::join!(door.connections.shutdown(), door.refusals.shutdown());
}

/// Where connections come in.
struct Door {
    egress: Arc<Egress>,
    listener: TcpListener,
    connections: JoinSet<()>,
    /// Those that are told that there is no place for them.
    refusals: JoinSet<()>,
}

impl Door {
    /// Who finds no place waits for one, and whoever comes later behind it in the listener's queue; when there was none for too
    /// long, until there is one again, whoever comes is refused. No place is taken before somebody comes for it.
    async fn serve(&mut self) {
        let mut patience = PLACE_PATIENCE;
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection of a session's proxy could not be taken");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let place = self.egress.places.take(patience).await;
            patience = if place.is_ok() { PLACE_PATIENCE } else { Duration::ZERO };
            match place {
                Ok(place) => self.let_in(stream, place),
                Err(full) => self.refuse(stream, full),
            }
            while self.connections.try_join_next().is_some() {}
        }
    }

    fn let_in(&mut self, stream: TcpStream, place: Place) {
        let visit = Visit::new(&self.egress);
        self.connections.spawn(async move {
            serve_one(visit, stream).await;
            drop(place);
        });
    }

    /// Says why to a few at once; the others are just closed.
    fn refuse(&mut self, stream: TcpStream, full: Full) {
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() >= REFUSALS_MAX {
            self.egress.contacts.refuse_stranger(None);
            return;
        }
        let visit = Visit::new(&self.egress);
        self.refusals.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                // Whom it would have reached is told all the same.
                let refusal = match visit.judge(&request, Some(80)) {
                    Ok((host, _)) => {
                        visit.egress.contacts.note(&host, ContactOutcome::Failed);
                        Refusal::Full(full)
                    }
                    Err(refusal) => refusal,
                };
                std::future::ready(Ok::<_, hyper::Error>(refusal.answer()))
            });
            let mut server = server();
            let telling = server.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // Who does not listen learns nothing.
            let _told = tokio::time::timeout(REFUSAL_DEADLINE, telling).await;
        });
    }
}

/// One connection, until it ends, nothing is carried for too long, or something else is permitted.
async fn serve_one(visit: Visit, stream: TcpStream) {
    // Nothing is lost but a little speed.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let stream = Watched::new(stream, activity.clone());
    let visit = Arc::new(visit);
    tokio::select! {
        () = converse(&visit, stream) => {}
        () = activity.silent(SILENCE_MAX) => {}
        () = visit.permitted.over.cancelled() => {}
    }
}

async fn converse(visit: &Arc<Visit>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let asked = Arc::clone(visit);
    let service = service_fn(move |request| {
        let visit = Arc::clone(&asked);
        async move { visit.answer(request).await }
    });
    let connection = server().serve_connection(TokioIo::new(stream), service).with_upgrades();
    // A client that breaks off needs no answer.
    let _ = connection.await;
    let tunnel = visit.tunnel.lock().take();
    let Some((inside, tunnel)) = tunnel else { return };
    let Ok(inside) = inside.await else { return };
    let mut inside = TokioIo::new(inside);
    match tunnel {
        Tunnel::Straight(host, mut outside) => {
            let mut greeted = Greeted::new(&mut inside, host.name.clone());
            // Either side may break off; what was carried is counted.
            let _ = tokio::io::copy_bidirectional(&mut greeted, &mut outside).await;
            if let Some(inside) = greeted.refused() {
                visit.egress.contacts.note(&host, ContactOutcome::Refused);
                // Whoever goes away misses why.
                let _ = inside.write_all(&hello::ALERT).await;
                let _ = inside.shutdown().await;
            }
        }
        Tunnel::Stand(stand) => stand.converse(inside).await,
    }
}

/// The library's server with our bounds.
pub(super) fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    server
}

/// One connection from inside.
struct Visit {
    egress: Arc<Egress>,
    /// What was permitted when it came.
    permitted: Arc<Permitted>,
    /// What carries the connections to hosts.
    drivers: Mutex<JoinSet<()>>,
    /// What the connection becomes once its request was answered.
    tunnel: Mutex<Option<(OnUpgrade, Tunnel)>>,
}

/// Where a connection leads that was asked for with CONNECT.
enum Tunnel {
    /// To the host itself.
    Straight(HostPort, Outside),
    /// To the proxy in the host's place.
    Stand(Stand),
}

impl Visit {
    fn new(egress: &Arc<Egress>) -> Self {
        let (egress, permitted) = (Arc::clone(egress), egress.permitted());
        Self { egress, permitted, drivers: Mutex::default(), tunnel: Mutex::default() }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let answered = if request.method() == Method::CONNECT {
            self.open_tunnel(request).await
        } else {
            self.pass_on(request).await
        };
        Ok(answered.unwrap_or_else(|refusal| refusal.answer()))
    }

    /// Lets the program speak with a host by itself.
    async fn open_tunnel(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let (host, reach) = self.judge(&request, None)?;
        let tunnel = if self.gets_secret(&host) {
            let (egress, permitted) = (Arc::clone(&self.egress), Arc::clone(&self.permitted));
            Tunnel::Stand(Stand { egress, permitted, host, reach })
        } else {
            let outside = self.connect(&host, true, reach).await?;
            Tunnel::Straight(host, outside)
        };
        *self.tunnel.lock() = Some((hyper::upgrade::on(request), tunnel));
        Ok(Response::new(text(String::new())))
    }

    /// Passes a request on that is not encrypted.
    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        if request.uri().scheme_str() != Some("http") {
            self.egress.contacts.refuse_stranger(None);
            return Err(Refusal::NotProxied);
        }
        let (host, reach) = self.judge(&request, Some(80))?;
        if self.gets_secret(&host) {
            self.egress.contacts.note(&host, ContactOutcome::Refused);
            return Err(Refusal::OnlyEncrypted(host));
        }
        let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let request = authority.and_then(|authority| forward::onward(request, authority)).ok_or(Refusal::NoHost)?;
        let outside = self.connect(&host, false, reach).await?;
        let mut drivers = std::mem::take(&mut *self.drivers.lock());
        while drivers.try_join_next().is_some() {}
        let sender = Sender::over(outside, &mut drivers).await;
        *self.drivers.lock() = drivers;
        let no_answer = || Refusal::NoAnswer(host.clone());
        sender.ok_or_else(no_answer)?.send(request).await.ok_or_else(no_answer)
    }

    fn gets_secret(&self, host: &HostPort) -> bool {
        self.permitted.injections.concern(host)
    }

    /// The host that a request is for, if it is on the list.
    fn judge(&self, request: &Request<Incoming>, default_port: Option<u16>) -> Result<(HostPort, Reach), Refusal> {
        let host =
            request.uri().authority().filter(|authority| !authority.as_str().contains('@')).and_then(|authority| {
                let port = authority.port_u16().or(default_port.filter(|_| authority.port().is_none()))?;
                HostPort::new(authority.host().trim_start_matches('[').trim_end_matches(']'), port)
            });
        let Some(host) = host else {
            self.egress.contacts.refuse_stranger(None);
            return Err(Refusal::NoHost);
        };
        match self.permitted.hosts.get(&host) {
            Some(reach) => Ok((host, *reach)),
            None => {
                tracing::debug!(%host, "a session asked for a host that is not on its list");
                self.egress.contacts.refuse_stranger(Some(&host));
                Err(Refusal::NotListed(host))
            }
        }
    }

    async fn connect(&self, host: &HostPort, encrypted: bool, reach: Reach) -> Result<Outside, Refusal> {
        let connected = self.egress.connect(host, encrypted, reach).await;
        connected.map_err(|source| Refusal::Unreached { host: host.clone(), source })
    }
}
