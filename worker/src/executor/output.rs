//! Reading what a program writes: separate streams, pieces of bounded size at a bounded rate, a bounded total.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BufMut as _;
use codegen_types::{EventBody, OutputStream};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use sandbox::files::Workspace;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::spool::{Kept, Spool};
use crate::tasks::Task;

/// The largest piece, in bytes.
const PIECE_BYTES_MAX: usize = 32 << 10;

/// The output of one task.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    task: &'a Task,
    /// Bytes that may still be written, both streams together.
    left: AtomicU64,
    pieces: AtomicU64,
    over: CancellationToken,
    spool: Spool,
}

enum Filled {
    More,
    End,
}

impl<'a> Output<'a> {
    /// The output of a task that may write so many bytes; what is too much for a result is kept in the workspace.
    pub fn new(task: &'a Task, bytes_max: u64, workspace: Option<Arc<Workspace>>) -> Self {
        let spool = Spool::new(task.id, workspace);
        let (left, pieces) = (AtomicU64::new(bytes_max), AtomicU64::new(0));
        Self { task, left, pieces, over: CancellationToken::new(), spool }
    }

    /// Says where the whole output is, once no pump runs any more.
    pub async fn kept(&self) -> Kept {
        self.spool.finish().await
    }

    /// Waits until the program has written more than it may.
    pub async fn exceeded(&self) {
        self.over.cancelled().await;
    }

    /// Whether the program has written more than it may.
    pub fn is_exceeded(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Passes on what comes through a pipe until it ends. Once `exited` is cancelled no process of the task is left:
    /// what is in the pipe then is read, but nothing is waited for, since the task may have passed the other end to a
    /// process that lives on.
    pub async fn pump(&self, stream: OutputStream, mut pipe: pipe::Receiver, exited: &CancellationToken) {
        let mut buffer = Vec::with_capacity(PIECE_BYTES_MAX);
        let mut due = Instant::now();
        loop {
            buffer.clear();
            let filled = fill(&mut pipe, &mut buffer, due, exited).await;
            self.emit(stream, &buffer);
            if matches!(filled, Filled::End) || self.is_exceeded() {
                return;
            }
            due = Instant::now() + self.interval();
        }
    }

    fn emit(&self, stream: OutputStream, bytes: &[u8]) {
        let len = bytes.len() as u64;
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(len)));
        let allowed = taken.unwrap_or(0).min(len);
        if allowed > 0 {
            let kept = bytes[..usize::try_from(allowed).unwrap_or(bytes.len())].to_vec();
            self.pieces.fetch_add(1, Ordering::Relaxed);
            self.spool.add(&kept);
            self.task.push(EventBody::Output { stream, bytes: kept });
        }
        if allowed < len {
            self.over.cancel();
        }
    }

    /// Pieces are rarer the more there were, so that a program that writes byte by byte for an hour does not fill the
    /// memory with events.
    fn interval(&self) -> Duration {
        Duration::from_millis(match self.pieces.load(Ordering::Relaxed) {
            0..1_024 => 5,
            1_024..8_192 => 50,
            8_192.. => 250,
        })
    }
}

/// Reads until the piece is full, or something is there and `due` has passed.
async fn fill(pipe: &mut pipe::Receiver, buffer: &mut Vec<u8>, due: Instant, exited: &CancellationToken) -> Filled {
    while buffer.len() < PIECE_BYTES_MAX {
        let (len, is_something) = (buffer.len(), !buffer.is_empty());
        let mut room = (&mut *buffer).limit(PIECE_BYTES_MAX - len);
        tokio::select! {
            biased;
            read = pipe.read_buf(&mut room) => match read {
                Ok(0) | Err(_) => return Filled::End,
                Ok(_) => {}
            },
            () = tokio::time::sleep_until(due), if is_something => return Filled::More,
            () = exited.cancelled() => return drain(pipe, buffer),
        }
    }
    Filled::More
}

/// Reads what is there now, by the system call itself: the event loop may not have heard of it yet.
fn drain(pipe: &pipe::Receiver, buffer: &mut Vec<u8>) -> Filled {
    while buffer.len() < PIECE_BYTES_MAX {
        match rustix::io::read(pipe, spare_capacity(buffer)) {
            Ok(0) => return Filled::End,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Filled::End,
        }
    }
    Filled::More
}

#[cfg(test)]
mod tests {
    use codegen_types::{Epoch, SessionId, TaskId};
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn task() -> Arc<Task> {
        Arc::new(Task::new(TaskId::mint(), SessionId::mint(), Epoch(1)))
    }

    #[tokio::test]
    async fn output_beyond_the_limit_is_cut_there_and_told() {
        let task = task();
        let output = Output::new(&task, 10, None);
        let (mut writer, reader) = pipe::pipe().unwrap();
        writer.write_all(b"0123456789abc").await.unwrap();
        drop(writer);
        output.pump(OutputStream::Stdout, reader, &CancellationToken::new()).await;
        assert!(output.is_exceeded());
        assert!(task.log.bytes() < 200, "ten bytes and one event are kept");
    }

    #[tokio::test]
    async fn a_pipe_that_is_held_open_elsewhere_does_not_hold_up_the_end() {
        let task = task();
        let output = Output::new(&task, 100, None);
        let (mut writer, reader) = pipe::pipe().unwrap();
        writer.write_all(b"last words").await.unwrap();
        let exited = CancellationToken::new();
        exited.cancel();
        output.pump(OutputStream::Stdout, reader, &exited).await;
        assert!(task.log.bytes() >= 10);
        drop(writer);
    }
}
