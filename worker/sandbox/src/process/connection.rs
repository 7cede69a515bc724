//! The socket to the launcher: requests with their replies, and the ends of sandboxes.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use codegen_types::{IsolationLevel, LayerReport, Limits};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::bereaved;
use crate::backend::{Places, ProxySpec, SandboxEnd, SandboxError};
use crate::cgroups::Counters;
use crate::datagram::{AsyncSocket, Datagram};
use crate::protocol::{LauncherReply, LauncherRequest, OpenFailure, OpenRequest};

/// How a sandbox ended and how many processes were killed then; `None` while it lives.
pub(super) type End = Option<(SandboxEnd, u32)>;

/// The worker's side of the launcher. Dropping it ends the launcher and every sandbox.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncSocket,
    table: Mutex<Table>,
    /// Whether the launcher is gone.
    lost: watch::Sender<bool>,
}

/// What is awaited of the launcher. Bounded by the sandboxes that the worker asks for.
#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    opening: HashMap<u64, Opening>,
    live: HashMap<u64, Live>,
    /// User ids under which an earlier life left something that does not die.
    held: BTreeSet<u32>,
}

#[derive(Debug)]
struct Opening {
    uid: Option<u32>,
    reply: oneshot::Sender<Result<Opened, OpenFailure>>,
}

/// A sandbox that is not known to be gone.
#[derive(Debug)]
struct Live {
    uid: Option<u32>,
    /// The process id of its init.
    init: i32,
    end: watch::Sender<End>,
}

/// What to open; the id is the connection's to give.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) workspace: OwnedFd,
    pub(super) level: IsolationLevel,
    pub(super) not_better: Option<OpenFailure>,
    pub(super) limits: Limits,
    pub(super) system_paths: Vec<std::path::PathBuf>,
    pub(super) uid: Option<u32>,
    pub(super) proxy: Option<ProxySpec>,
}

/// A sandbox that the launcher made.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: u64,
    pub(super) layers: Vec<LayerReport>,
    pub(super) places: Places,
    pub(super) control: OwnedFd,
    pub(super) listener: Option<OwnedFd>,
    pub(super) counters: Counters,
    pub(super) end: watch::Receiver<End>,
}

/// Why a sandbox was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Refused(OpenFailure),
    Channel(SandboxError),
}

impl Connection {
    pub(super) fn start(socket: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: AsyncSocket::new(socket)?,
            table: Mutex::default(),
            lost: watch::Sender::new(false),
        });
        let reader = tokio::spawn(read(Arc::clone(&shared)));
        Ok(Self { shared, reader })
    }

    /// Has a sandbox made. When this future is dropped, a sandbox that was made nevertheless ends by itself, since
    /// nobody holds its control socket.
    pub(super) async fn open(&self, wanted: Wanted) -> Result<Opened, OpenError> {
        let (reply, replied) = oneshot::channel();
        let id = {
            let mut table = self.shared.table.lock();
            if *self.shared.lost.borrow() {
                return Err(OpenError::Channel(SandboxError::LauncherLost));
            }
            table.next_id += 1;
            let id = table.next_id;
            table.opening.insert(id, Opening { uid: wanted.uid, reply });
            id
        };
        let Wanted { workspace, level, not_better, limits, system_paths, uid, proxy: spec } = wanted;
        let proxy = spec.is_some();
        let request = LauncherRequest::Open(OpenRequest { id, level, not_better, limits, system_paths, uid, proxy });
        let certificates = spec.and_then(|spec| spec.certificates);
        let passed: Vec<_> = std::iter::once(workspace.as_fd()).chain(certificates.as_ref().map(AsFd::as_fd)).collect();
        self.send(&request, &passed).await.map_err(OpenError::Channel)?;
        match replied.await {
            Ok(opened) => opened.map_err(OpenError::Refused),
            Err(_) => Err(OpenError::Channel(SandboxError::LauncherLost)),
        }
    }

    /// Has a sandbox killed; its end is told where it was opened.
    pub(super) async fn destroy(&self, id: u64) -> Result<(), SandboxError> {
        self.send(&LauncherRequest::Destroy { id }, &[]).await
    }

    /// The user ids under which something may run, and so those of every sandbox whose end was not told.
    pub(super) fn held(&self) -> BTreeSet<u32> {
        let table = self.shared.table.lock();
        table.live.values().filter_map(|live| live.uid).chain(table.held.iter().copied()).collect()
    }

    /// Waits until the launcher is gone.
    pub(super) async fn lost(&self) {
        // The sender lives as long as this connection.
        let mut lost = self.shared.lost.subscribe();
        let _gone = lost.wait_for(|lost| *lost).await;
    }

    async fn send(&self, request: &LauncherRequest, descriptors: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let text = serde_json::to_vec(request).map_err(|e| SandboxError::Refused { why: e.to_string() })?;
        self.shared.socket.send(&text, descriptors).await.map_err(|error| match error.raw_os_error() {
            Some(libc::EPIPE | libc::ECONNRESET) => SandboxError::LauncherLost,
            Some(libc::EMSGSIZE) => SandboxError::Refused { why: "the system paths are too many".into() },
            _ => SandboxError::Channel(error),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(shared: Arc<Shared>) {
    while let Ok(Some(datagram)) = shared.socket.recv().await {
        let Ok(reply) = serde_json::from_slice(&datagram.bytes) else {
            tracing::error!("the launcher said something that cannot be read");
            break;
        };
        shared.table.lock().take(reply, datagram);
    }
    let inits: Vec<i32> = {
        let mut table = shared.table.lock();
        table.opening.clear();
        table.live.values().map(|live| live.init).collect()
    };
    let alone = tokio::task::spawn_blocking(move || bereaved::end_all_but(&inits)).await;
    if !matches!(alone, Ok(true)) {
        tracing::error!("the launcher is gone, and processes of its sandboxes do not die");
    }
    let mut table = shared.table.lock();
    shared.lost.send_replace(true);
    table.lose();
}

impl Table {
    fn take(&mut self, reply: LauncherReply, datagram: Datagram) {
        match reply {
            LauncherReply::Opened { id, init, layers, places, proxy, counted } => {
                let mut descriptors = datagram.descriptors.into_iter();
                let (Some(control), Some(opening)) = (descriptors.next(), self.opening.remove(&id)) else { return };
                let Opening { uid, reply } = opening;
                let (sender, end) = watch::channel(None);
                self.live.insert(id, Live { uid, init, end: sender });
                // A caller that went away drops the control socket, which ends the sandbox.
                let listener = if proxy { descriptors.next() } else { None };
                let [memory, processes] = counted.map(|is_counted| is_counted.then(|| descriptors.next()).flatten());
                let counters = Counters::new(memory, processes);
                let _ = reply.send(Ok(Opened { id, layers, places, control, listener, counters, end }));
            }
            LauncherReply::Refused { id, why, held } => {
                self.held.extend(held);
                if let Some(Opening { reply, .. }) = self.opening.remove(&id) {
                    // A caller that went away wants no reason.
                    let _ = reply.send(Err(why));
                }
            }
            LauncherReply::Freed { uid } => {
                if self.held.remove(&uid) {
                    tracing::info!(uid, "a user id is free again: nothing runs under it any more");
                }
            }
            LauncherReply::Ended { id, end, killed } => {
                if let Some(Live { end: sender, .. }) = self.live.remove(&id) {
                    sender.send_replace(Some((end, killed)));
                }
            }
        }
    }

    /// The launcher is gone, and every sandbox with it.
    fn lose(&mut self) {
        self.opening.clear();
        for (_, Live { end, .. }) in self.live.drain() {
            end.send_replace(Some((SandboxEnd::Crashed, 0)));
        }
    }
}
