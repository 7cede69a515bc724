//! Diagnostics for clients: copied to the stderr of those that asked, without ever waiting for them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tracing_subscriber::fmt::MakeWriter;

use crate::server::client_io::ClientOutput;
use crate::supervisor::{OnEnd, Supervisor};

/// Lines that wait for one client's stderr. When it is full, lines are lost to that client alone.
const TAP_LINES_MAX: usize = 512;
/// How long a client may leave its stderr unread before it is given up.
const TAP_PATIENCE: Duration = Duration::from_secs(5);

/// The stderrs of clients that want to read along.
#[derive(Debug, Clone, Default)]
pub struct Taps(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    open: AtomicUsize,
    senders: RwLock<BTreeMap<u64, mpsc::Sender<Arc<[u8]>>>>,
}

/// One client reading along, until it is dropped.
#[derive(Debug)]
pub struct Tap {
    taps: Taps,
    id: u64,
}

impl Taps {
    /// Copies diagnostics to a client's stderr from now on. A slow reader loses lines and delays nobody.
    pub fn open(&self, stderr: OwnedFd, supervisor: &Supervisor) -> io::Result<Tap> {
        let mut output = ClientOutput::new(stderr)?;
        let (sender, mut lines) = mpsc::channel::<Arc<[u8]>>(TAP_LINES_MAX);
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.senders.write().insert(id, sender);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        supervisor.spawn("client stderr", OnEnd::Ignore, async move {
            while let Some(line) = lines.recv().await {
                let written = async { output.write_all(&line).await.and(output.flush().await) };
                if !matches!(tokio::time::timeout(TAP_PATIENCE, written).await, Ok(Ok(()))) {
                    return;
                }
            }
        });
        Ok(Tap { taps: self.clone(), id })
    }

    /// Whether anybody reads along.
    pub(super) fn any(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.taps.0.senders.write().remove(&self.id).is_some() {
            self.taps.0.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Taps {
    type Writer = TapWriter<'a>;

    fn make_writer(&'a self) -> TapWriter<'a> {
        TapWriter(self)
    }
}

/// Writes one formatted line to every tap that has room.
#[derive(Debug)]
pub struct TapWriter<'a>(&'a Taps);

impl Write for TapWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shared: Arc<[u8]> = line.into();
        for sender in self.0.0.senders.read().values() {
            // A full queue means a client that does not read its stderr; it misses this line.
            let _missed = sender.try_send(Arc::clone(&shared));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::server::client_io::ClientInput;

    #[tokio::test]
    async fn a_client_reads_along_until_its_tap_is_dropped() {
        let taps = Taps::default();
        let (reader, writer) = io::pipe().unwrap();
        let tap = taps.open(writer.into(), &Supervisor::default()).unwrap();
        assert!(taps.any());
        taps.make_writer().write_all(b"one\n").unwrap();
        drop(tap);
        taps.make_writer().write_all(b"two\n").unwrap();
        let mut text = String::new();
        ClientInput::new(reader.into()).unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one\n");
        assert!(!taps.any());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_delays_nobody() {
        let taps = Taps::default();
        let (_reader, writer) = io::pipe().unwrap();
        let _tap = taps.open(writer.into(), &Supervisor::default()).unwrap();
        let line = vec![b'x'; 4096];
        for _ in 0..10 * TAP_LINES_MAX {
            taps.make_writer().write_all(&line).unwrap();
        }
    }
}
