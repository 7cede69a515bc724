//! The server's side of fronts: checks who connects, takes the client's streams, and serves until either side ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::IsolationLevel;
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::presence::Presence;
use crate::config::ToolNames;
use crate::front::handover::{self, End, Header, PROTOCOL, Reply, Streams, VERSION};
use crate::supervisor::{OnEnd, Supervisor};

/// Fronts that are served at once; one more is refused.
const FRONTS_MAX: usize = 256;
/// How long a front may take to say who it is.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// One client to serve.
#[derive(Debug)]
pub struct Client {
    /// Its standard streams.
    pub streams: Streams,
    /// How it wants tools listed.
    pub tool_names: ToolNames,
    /// Whether its stderr gets diagnostics.
    pub debug: bool,
    /// The process id of its front, for diagnostics alone.
    pub pid: u32,
}

/// Serves one client over its streams.
pub trait ServeClient: Send + Sync + 'static {
    /// Serves until the client closes its side, or until `cancel` is cancelled.
    fn serve(&self, client: Client, cancel: CancellationToken) -> BoxFuture<'_, End>;
}

/// Takes clients over from fronts.
#[derive(Clone)]
pub struct Fronts {
    service: Arc<dyn ServeClient>,
    presence: Presence,
    supervisor: Supervisor,
    isolation_minimum: IsolationLevel,
    places: Arc<Semaphore>,
}

impl Fronts {
    /// Fronts whose clients `service` serves. Their number is kept in `presence`.
    pub fn new(
        service: Arc<dyn ServeClient>,
        presence: Presence,
        supervisor: Supervisor,
        isolation_minimum: IsolationLevel,
    ) -> Self {
        Self { service, presence, supervisor, isolation_minimum, places: Arc::new(Semaphore::new(FRONTS_MAX)) }
    }

    /// Accepts fronts until the process is to stop.
    pub async fn accept(self, listener: UnixListener) {
        let stop = self.supervisor.token();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let fronts = self.clone();
                    self.supervisor.spawn("front", OnEnd::Ignore, async move {
                        if let Err(error) = fronts.attend(stream).await {
                            tracing::debug!(%error, "a front went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a front could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    async fn attend(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        if uid != rustix::process::geteuid().as_raw() {
            tracing::warn!(uid, "a front of another user was turned away");
            return Ok(());
        }
        let present = self.presence.arrive();
        let Ok(_place) = self.places.try_acquire() else {
            let why = format!("it serves {FRONTS_MAX} clients already; close one");
            return handover::reply(&mut stream, &Reply::Refused { why }).await;
        };
        let received = tokio::time::timeout(HEADER_PATIENCE, handover::receive(&stream)).await;
        let (header, streams) = received.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        if let Some(no) = self.objection(&header) {
            return handover::reply(&mut stream, &no).await;
        }
        handover::reply(&mut stream, &Reply::Accepted).await?;
        let client = Client { streams, tool_names: header.tool_names, debug: header.debug, pid: header.pid };
        let end = self.serve(client, &mut stream).await;
        drop(present);
        handover::reply(&mut stream, &Reply::Bye { end }).await
    }

    /// Why a client cannot be served here, if it cannot.
    fn objection(&self, header: &Header) -> Option<Reply> {
        if header.version != VERSION || header.protocol != PROTOCOL {
            return Some(Reply::OtherVersion { version: VERSION.to_owned() });
        }
        if header.isolation_minimum > self.isolation_minimum {
            let why = format!(
                "it was started with isolation minimum `{}`, and this client asks for `{}`; stop it \
                 (`coordinator doctor` names its process) or use another --state-dir",
                self.isolation_minimum, header.isolation_minimum
            );
            return Some(Reply::Refused { why });
        }
        None
    }

    /// Serves the client until it ends, its front ends, or the server ends.
    async fn serve(&self, client: Client, front: &mut UnixStream) -> End {
        let stop = self.supervisor.token();
        let cancel = stop.child_token();
        let serving = self.service.serve(client, cancel.clone());
        tokio::pin!(serving);
        let end = tokio::select! {
            end = &mut serving => end,
            () = gone(front) => {
                cancel.cancel();
                serving.await
            }
        };
        if stop.is_cancelled() { End::ServerStopping } else { end }
    }
}

/// Waits for the front to close its side. A front says nothing after its header; what it says anyway is dropped.
async fn gone(front: &mut UnixStream) {
    let mut ignored = [0; 256];
    while matches!(front.read(&mut ignored).await, Ok(read) if read > 0) {}
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::front::handover::Replies;
    use crate::server::client_io::{ClientInput, ClientOutput};

    /// Copies what the client says back to it.
    struct Echo;

    impl ServeClient for Echo {
        fn serve(&self, client: Client, cancel: CancellationToken) -> BoxFuture<'_, End> {
            Box::pin(async move {
                let mut input = ClientInput::new(client.streams.stdin).unwrap();
                let mut output = ClientOutput::new(client.streams.stdout).unwrap();
                let copied = cancel.run_until_cancelled(tokio::io::copy(&mut input, &mut output)).await;
                output.shutdown().await.unwrap();
                copied.map_or(End::ClientClosed, |copied| match copied {
                    Ok(_) => End::ClientClosed,
                    Err(error) => End::Failed(error.to_string()),
                })
            })
        }
    }

    struct Bench {
        supervisor: Supervisor,
        presence: Presence,
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let bench = Self {
                supervisor: Supervisor::default(),
                presence: Presence::default(),
                dir: tempfile::tempdir().unwrap(),
            };
            let listener = UnixListener::bind(bench.dir.path().join("s")).unwrap();
            let supervisor = bench.supervisor.clone();
            let fronts =
                Fronts::new(Arc::new(Echo), bench.presence.clone(), supervisor.clone(), IsolationLevel::Portable);
            supervisor.spawn("accept", OnEnd::Ignore, fronts.accept(listener));
            bench
        }

        async fn offer(
            &self,
            change: impl FnOnce(&mut Header),
        ) -> (Replies<UnixStream>, io::PipeWriter, io::PipeReader) {
            let mut header = Header {
                protocol: PROTOCOL,
                version: VERSION.to_owned(),
                pid: 0,
                debug: false,
                tool_names: ToolNames::Underscored,
                isolation_minimum: IsolationLevel::Portable,
            };
            change(&mut header);
            let stream = UnixStream::connect(self.dir.path().join("s")).await.unwrap();
            let (stdin, to_server) = io::pipe().unwrap();
            let (from_server, stdout) = io::pipe().unwrap();
            handover::send(&stream, &header, [stdin.as_fd(), stdout.as_fd(), stdout.as_fd()]).await.unwrap();
            (Replies::new(stream), to_server, from_server)
        }
    }

    #[tokio::test]
    async fn a_client_is_served_until_it_closes_its_side() {
        let bench = Bench::new();
        let (mut replies, mut to_server, mut from_server) = bench.offer(|_| {}).await;
        assert_eq!(replies.next().await.unwrap(), Some(Reply::Accepted));
        to_server.write_all(b"hello").unwrap();
        drop(to_server);
        assert_eq!(replies.next().await.unwrap(), Some(Reply::Bye { end: End::ClientClosed }));
        let mut text = String::new();
        from_server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn the_end_of_a_front_ends_its_client_alone() {
        let bench = Bench::new();
        let (mut lost, _to_lost, mut from_lost) = bench.offer(|_| {}).await;
        let (mut kept, to_kept, _from_kept) = bench.offer(|_| {}).await;
        assert_eq!(lost.next().await.unwrap(), Some(Reply::Accepted));
        assert_eq!(kept.next().await.unwrap(), Some(Reply::Accepted));
        lost.finish().await.unwrap();
        assert_eq!(lost.next().await.unwrap(), Some(Reply::Bye { end: End::ClientClosed }));
        assert_eq!(from_lost.read(&mut [0]).unwrap(), 0);
        drop(to_kept);
        assert_eq!(kept.next().await.unwrap(), Some(Reply::Bye { end: End::ClientClosed }));
    }

    #[tokio::test]
    async fn a_stopping_server_says_so() {
        let bench = Bench::new();
        let (mut replies, _to_server, _from_server) = bench.offer(|_| {}).await;
        assert_eq!(replies.next().await.unwrap(), Some(Reply::Accepted));
        bench.supervisor.cancel();
        assert_eq!(replies.next().await.unwrap(), Some(Reply::Bye { end: End::ServerStopping }));
        assert!(bench.supervisor.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_front_of_another_version_is_told_so() {
        let bench = Bench::new();
        let (mut replies, _i, _o) = bench.offer(|header| header.version = "0.0.0".to_owned()).await;
        assert_eq!(replies.next().await.unwrap(), Some(Reply::OtherVersion { version: VERSION.to_owned() }));
    }

    #[tokio::test]
    async fn a_client_that_asks_for_more_isolation_than_the_server_keeps_to_is_refused() {
        let bench = Bench::new();
        let (mut replies, _i, _o) = bench.offer(|header| header.isolation_minimum = IsolationLevel::Full).await;
        assert!(matches!(replies.next().await.unwrap(), Some(Reply::Refused { .. })));
    }
}
