//! The address at which a worker waits for its coordinator to dial, when it advertises one.
//!
//! Whoever connects learns nothing and is served nothing until it shows the ticket that the coordinator gave when the
//! worker joined; each ticket is good once.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::Secret;
use codegen_types::Incarnation;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::either::Either;

use super::address::Socket;
use super::reversed::read_line;
use super::tls;
use crate::start::TlsStart;

/// How long a caller may take from connecting until it has shown its ticket.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Callers that have not shown a ticket yet; further ones are turned away at once.
const CALLERS_MAX: usize = 64;
/// As many of them may call from one address.
const CALLERS_PER_ADDRESS_MAX: usize = 4;
/// How long accepting rests after it failed, as it does when descriptors run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Where the coordinator dials.
pub(crate) struct Door {
    /// What the coordinator is told.
    advertised: String,
    expected: Arc<Mutex<Option<Expected>>>,
    /// Connections that showed the ticket; one at a time, since each ticket is good once.
    opened: tokio::sync::Mutex<mpsc::Receiver<Socket>>,
}

/// Whose connection is let in. The digest is compared, so that the time which that takes tells nothing of the ticket.
struct Expected {
    ticket: [u8; 32],
    incarnation: Incarnation,
}

impl Door {
    /// Binds the address and accepts from then on. Needs a tokio runtime.
    pub async fn open(listen: SocketAddr, advertised: String, tls: Option<TlsStart>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (opened, receiver) = mpsc::channel(1);
        let expected = Arc::<Mutex<Option<Expected>>>::default();
        let keeper = Keeper { tls, expected: Arc::clone(&expected), opened, callers: Arc::default() };
        tokio::spawn(Arc::new(keeper).accept(listener));
        Ok(Self { advertised, expected, opened: tokio::sync::Mutex::new(receiver) })
    }

    /// What the coordinator is told.
    pub fn advertised(&self) -> String {
        self.advertised.clone()
    }

    /// Waits until the coordinator has shown this ticket.
    pub async fn enter(&self, ticket: &Secret, incarnation: Incarnation, patience: Duration) -> io::Result<Socket> {
        let mut opened = self.opened.lock().await;
        // What came for an earlier ticket is not for this one.
        while opened.try_recv().is_ok() {}
        let ticket = Sha256::digest(ticket.expose().as_bytes()).into();
        *self.expected.lock() = Some(Expected { ticket, incarnation });
        let entered = tokio::time::timeout(patience, opened.recv()).await;
        self.expected.lock().take();
        entered?.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// What accepts.
struct Keeper {
    tls: Option<TlsStart>,
    expected: Arc<Mutex<Option<Expected>>>,
    opened: mpsc::Sender<Socket>,
    callers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A caller that has not shown a ticket yet.
struct Caller {
    address: IpAddr,
    all: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

impl Keeper {
    /// Lets a caller show its ticket, if one is waited for and there are not too many. Whoever else comes costs nothing,
    /// no handshake either.
    fn hear(&self, peer: SocketAddr) -> Option<Caller> {
        if self.expected.lock().is_none() {
            return None;
        }
        let address = peer.ip().to_canonical();
        let mut all = self.callers.lock();
        let of_one = all.get(&address).copied().unwrap_or(0);
        if of_one >= CALLERS_PER_ADDRESS_MAX || all.values().sum::<usize>() >= CALLERS_MAX {
            return None;
        }
        all.insert(address, of_one + 1);
        Some(Caller { address, all: Arc::clone(&self.callers) })
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        // Ends when the door is dropped.
        while !self.opened.is_closed() {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.opened.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let Some(caller) = self.hear(peer) else {
                tracing::debug!(%peer, "a caller is turned away: nobody is waited for, or too many call");
                continue;
            };
            let keeper = Arc::clone(&self);
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, keeper.shake(stream)).await;
                if let Err(error) = shaken.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                    tracing::info!(%peer, %error, "a caller is not let in");
                }
                drop(caller);
            });
        }
    }

    async fn shake(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut socket: Socket = match &self.tls {
            Some(files) => Either::Right(Either::Right(Box::new(tls::accept(files, stream).await?))),
            None => Either::Right(Either::Left(stream)),
        };
        let line = read_line(&mut socket).await?;
        if !self.is_expected(&line) {
            socket.write_all(b"no the ticket is not valid\n").await?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it shows no valid ticket"));
        }
        socket.write_all(b"ok\n").await?;
        // Whoever waits has room for one, and the ticket is used up.
        self.opened.try_send(socket).map_err(|_| io::ErrorKind::NotConnected.into())
    }

    /// Uses the ticket up when it is shown.
    fn is_expected(&self, line: &str) -> bool {
        let Some((ticket, incarnation)) = line.strip_prefix("codegen-link/1 ").and_then(|rest| rest.split_once(' '))
        else {
            return false;
        };
        let shown: [u8; 32] = Sha256::digest(ticket.as_bytes()).into();
        let incarnation = incarnation.parse::<Incarnation>().ok();
        let mut expected = self.expected.lock();
        let matches = |expected: &Expected| expected.ticket == shown && incarnation == Some(expected.incarnation);
        if expected.as_ref().is_some_and(matches) { expected.take().is_some() } else { false }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn knock(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.unwrap();
        answer.truncate(read.unwrap_or(0));
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn only_who_shows_the_ticket_is_let_in_and_only_once() {
        // Bound and released, so that the port is free and known.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let door = Door::open(address, address.to_string(), None).await.unwrap();
        let me = Incarnation::mint();
        let right = format!("codegen-link/1 ticket {me}\n");
        assert_eq!(knock(address, &right).await, "", "nobody is expected yet");
        let ticket = Secret::new("ticket");
        let entering = door.enter(&ticket, me, Duration::from_secs(10));
        let knocking = async {
            for wrong in
                [format!("codegen-link/1 guess {me}\n"), format!("codegen-link/1 ticket {}\n", Incarnation::mint())]
            {
                assert!(knock(address, &wrong).await.starts_with("no "), "{wrong}");
            }
            assert_eq!(knock(address, &right).await, "ok\n");
            assert_eq!(knock(address, &right).await, "", "the ticket was used");
        };
        let (entered, ()) = tokio::join!(entering, knocking);
        assert!(entered.is_ok());
    }

    #[tokio::test]
    async fn callers_that_say_nothing_keep_the_coordinator_from_nothing() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let door = Door::open(address, address.to_string(), None).await.unwrap();
        let (me, ticket) = (Incarnation::mint(), Secret::new("ticket"));
        let entering = door.enter(&ticket, me, HANDSHAKE_LIMIT);
        let knocking = async {
            let mut silent = Vec::new();
            for _ in 0..CALLERS_MAX {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
                silent.push(socket.connect(address).await.unwrap());
            }
            knock(address, &format!("codegen-link/1 ticket {me}\n")).await
        };
        let (entered, said) = tokio::join!(entering, knocking);
        assert!(entered.is_ok() && said == "ok\n", "{said}");
    }
}
