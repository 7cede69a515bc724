//! Lines of output: one task owns the stream, so that lines are whole and in order, and what waits is bounded.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::{Notify, mpsc, oneshot};

/// Lines that wait to be written; a sender waits when they are that many.
const QUEUE_LINES: usize = 64;
/// Bytes that may wait before no more requests are read. A client that does not read its answers waits for itself.
const BACKLOG_BYTES: usize = 32 << 20;
/// Messages that may wait before no more requests are read.
const BACKLOG_LINES: usize = 256;

/// Where whole lines are put to be written. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    queue: mpsc::Sender<Queued>,
    backlog: Arc<Backlog>,
}

/// The owner of the output.
pub(super) struct Writer<W> {
    output: BufWriter<W>,
    queue: mpsc::Receiver<Queued>,
}

struct Queued {
    line: Vec<u8>,
    waiting: Waiting,
    written: oneshot::Sender<()>,
}

/// What waits to be written.
#[derive(Default)]
struct Backlog {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    less: Notify,
}

/// One line's share of the backlog.
struct Waiting {
    bytes: usize,
    backlog: Arc<Backlog>,
}

impl Backlog {
    fn add(self: &Arc<Self>, bytes: usize) -> Waiting {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Waiting { bytes, backlog: Arc::clone(self) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.lines.fetch_sub(1, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.backlog.less.notify_waiters();
    }
}

/// The client no longer takes output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client no longer takes output")]
pub(super) struct OutputClosed;

/// A queue of lines and the task that writes them.
pub(super) fn writer<W: AsyncWrite + Unpin>(output: W) -> (Lines, Writer<W>) {
    let (sender, queue) = mpsc::channel(QUEUE_LINES);
    let lines = Lines { queue: sender, backlog: Arc::default() };
    (lines, Writer { output: BufWriter::with_capacity(64 << 10, output), queue })
}

impl Lines {
    /// Queues a line, which must hold no newline. It counts as waiting from this call on, not only when the future is
    /// polled. The future is done when the line has been handed to the operating system.
    pub(super) fn send(&self, mut line: Vec<u8>) -> impl Future<Output = Result<(), OutputClosed>> + Send + 'static {
        line.push(b'\n');
        let waiting = self.backlog.add(line.len());
        let queue = self.queue.clone();
        async move {
            let (written, done) = oneshot::channel();
            queue.send(Queued { line, waiting, written }).await.map_err(|_| OutputClosed)?;
            done.await.map_err(|_| OutputClosed)
        }
    }

    /// Queues a line and does not wait until it is written. Given up before it is done, it has queued nothing.
    ///
    /// # Errors
    /// The client no longer takes output.
    pub(super) async fn put(&self, line: &[u8]) -> Result<(), OutputClosed> {
        let place = self.queue.reserve().await.map_err(|_| OutputClosed)?;
        let line = [line, b"\n"].concat();
        let (written, _) = oneshot::channel();
        place.send(Queued { waiting: self.backlog.add(line.len()), line, written });
        Ok(())
    }

    /// Waits until little enough waits to be written that it is fair to read more requests.
    ///
    /// # Errors
    /// The client no longer takes output.
    pub(super) async fn ready(&self) -> Result<(), OutputClosed> {
        loop {
            let less = self.backlog.less.notified();
            if self.queue.is_closed() {
                return Err(OutputClosed);
            }
            let (lines, bytes) = (&self.backlog.lines, &self.backlog.bytes);
            if lines.load(Ordering::Relaxed) < BACKLOG_LINES && bytes.load(Ordering::Relaxed) < BACKLOG_BYTES {
                return Ok(());
            }
            less.await;
        }
    }

    /// Waits until the client no longer takes output.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes what is queued while `serve` runs, and for at most `last_writes` after it.
    pub(super) async fn while_serving<F: Future>(mut self, serve: F, last_writes: Duration) -> F::Output {
        tokio::pin!(serve);
        let result = {
            let write = self.write();
            tokio::pin!(write);
            let result = tokio::select! {
                result = &mut serve => Some(result),
                () = &mut write => None,
            };
            if result.is_some() {
                let _ = tokio::time::timeout(last_writes, write).await;
            }
            result
        };
        match result {
            Some(result) => result,
            None => {
                drop(self);
                serve.await
            }
        }
    }

    /// Writes until every sender is gone or the client is. Flushed whenever nothing more is queued, so that nobody
    /// waits for a full buffer.
    async fn write(&mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = vec![first];
            while let Ok(more) = self.queue.try_recv() {
                batch.push(more);
            }
            if let Err(error) = self.write_batch(&batch).await {
                tracing::info!(%error, "the client no longer takes output");
                return;
            }
            for Queued { waiting, written, .. } in batch {
                drop(waiting);
                let _ = written.send(());
            }
        }
    }

    async fn write_batch(&mut self, batch: &[Queued]) -> std::io::Result<()> {
        for queued in batch {
            self.output.write_all(&queued.line).await?;
        }
        self.output.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn lines_come_out_whole_and_in_order() {
        let (output, mut input) = tokio::io::duplex(16);
        let (lines, writer) = writer(output);
        let serve = async move {
            let sends: Vec<_> = (0..100).map(|n| lines.send(format!("line {n}").into_bytes())).collect();
            futures::future::join_all(sends).await.into_iter().all(|sent| sent.is_ok())
        };
        let mut text = String::new();
        let (all_sent, _) = tokio::join!(writer.while_serving(serve, Duration::from_secs(5)), async {
            input.read_to_string(&mut text).await
        });
        assert!(all_sent);
        assert_eq!(text, (0..100).map(|n| format!("line {n}\n")).collect::<String>());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_holds_up_only_itself() {
        let (output, _input) = tokio::io::duplex(16);
        let (lines, writer) = writer(output);
        let serve = async move {
            let sends: Vec<_> = (0..BACKLOG_LINES).map(|_| lines.send(vec![b'x'; 10])).collect();
            let stalled = tokio::time::timeout(Duration::from_millis(20), lines.ready()).await.is_err();
            drop(sends);
            stalled
        };
        assert!(writer.while_serving(serve, Duration::from_millis(20)).await);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_noticed() {
        let (output, input) = tokio::io::duplex(16);
        let (lines, writer) = writer(output);
        drop(input);
        let serve = async move {
            let sent = lines.send(b"x".to_vec()).await;
            lines.closed().await;
            (sent, lines.ready().await)
        };
        let seen = writer.while_serving(serve, Duration::from_secs(5)).await;
        assert_eq!(seen, (Err(OutputClosed), Err(OutputClosed)));
    }
}
