//! The pipe through which a program shows things: frames of a description and bytes.

use rustix::io::Errno;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

/// The description of a frame, in bytes.
const HEADER_BYTES_MAX: usize = 1 << 10;
/// The longest media type, in bytes.
const MIME_BYTES_MAX: usize = 128;
/// Frames of one task.
const FRAMES_MAX: usize = 10_000;
/// What is read after the program ended, in bytes, if the pipe holds that much: as much as a pipe may be made to hold
/// without privileges.
const REST_BYTES_MAX: usize = 1 << 20;

/// What a program says of a thing that it shows.
#[derive(Debug, Deserialize)]
struct Header {
    mime: String,
}

/// One thing that is shown.
#[derive(Debug)]
pub(super) struct Frame {
    pub mime: String,
    pub data: Vec<u8>,
}

/// What comes through the pipe is not what was agreed, or is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Faulty(pub &'static str);

/// The frames that come through a pipe. Once `exited` is cancelled what is in the pipe is read, and nothing is waited
/// for: whoever still writes then is no part of the task, and cannot keep its end from coming.
pub(super) struct Frames<'a> {
    pipe: pipe::Receiver,
    exited: &'a CancellationToken,
    /// What may still be read after the end.
    rest: Option<usize>,
    left: usize,
}

impl<'a> Frames<'a> {
    pub fn of(pipe: pipe::Receiver, exited: &'a CancellationToken) -> Self {
        Self { pipe, exited, rest: None, left: FRAMES_MAX }
    }

    /// The next thing that is shown; `None` at the end. `bytes_max` says how large one of a media type may be.
    ///
    /// # Errors
    /// Nothing further can be read.
    pub async fn next(&mut self, bytes_max: fn(&str) -> usize) -> Result<Option<Frame>, Faulty> {
        let mut lengths = [0; 8];
        if !self.fill(&mut lengths).await {
            return Ok(None);
        }
        self.left = self.left.checked_sub(1).ok_or(Faulty("it showed more than 10000 things"))?;
        let length = |bytes: &[u8]| bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        let (header_len, data_len) = (length(&lengths[..4]), length(&lengths[4..]));
        if header_len > HEADER_BYTES_MAX {
            return Err(Faulty("it was not in the form that was agreed"));
        }
        let mut header = vec![0; header_len];
        if !self.fill(&mut header).await {
            return Ok(None);
        }
        let header = serde_json::from_slice::<Header>(&header);
        let Header { mime } = header.map_err(|_| Faulty("it was not in the form that was agreed"))?;
        if mime.is_empty() || mime.len() > MIME_BYTES_MAX || data_len > bytes_max(&mime) {
            return Err(Faulty("one thing was larger than may be"));
        }
        let mut data = vec![0; data_len];
        Ok(self.fill(&mut data).await.then_some(Frame { mime, data }))
    }

    /// Reads so many bytes; false when the pipe ends before.
    async fn fill(&mut self, buffer: &mut [u8]) -> bool {
        let mut len = 0;
        while len < buffer.len() {
            let read = tokio::select! {
                biased;
                () = self.exited.cancelled() => None,
                read = self.pipe.read(&mut buffer[len..]) => Some(read.unwrap_or(0)),
            };
            match read.unwrap_or_else(|| self.read_rest(&mut buffer[len..])) {
                0 => return false,
                count => len += count,
            }
        }
        true
    }

    /// Reads what is there after the end, by the system call itself, since the event loop may not have heard of it yet;
    /// nothing when there is no more than is waited for.
    fn read_rest(&mut self, buffer: &mut [u8]) -> usize {
        let size = || rustix::pipe::fcntl_getpipe_size(&self.pipe).unwrap_or(REST_BYTES_MAX).min(REST_BYTES_MAX);
        let rest = self.rest.unwrap_or_else(size);
        let part = buffer.len().min(rest);
        let count = loop {
            match rustix::io::read(&self.pipe, &mut buffer[..part]) {
                Err(Errno::INTR) => {}
                read => break read.unwrap_or(0),
            }
        };
        self.rest = Some(rest - count);
        count
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (std::fs::File, pipe::Receiver) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        (write.into(), pipe::Receiver::from_owned_fd(read).expect("its reading end"))
    }

    fn frame(data: &[u8]) -> Vec<u8> {
        let header = br#"{"mime":"text/plain"}"#;
        let lengths = [header.len() as u32, data.len() as u32].map(u32::to_be_bytes);
        [lengths[0].as_slice(), &lengths[1], header, data].concat()
    }

    /// Somebody to whom the program passed the pipe writes for ever, and faster than is read.
    #[tokio::test]
    async fn who_writes_on_after_the_end_cannot_put_it_off() {
        let (mut write, read) = pipe();
        let writer = std::thread::spawn(move || while write.write_all(&frame(b"x")).is_ok() {});
        let exited = CancellationToken::new();
        let mut frames = Frames::of(read, &exited);
        assert!(frames.next(|_| 10).await.expect("a frame").is_some());
        exited.cancel();
        let drained = async { while let Ok(Some(_)) = frames.next(|_| 10).await {} };
        tokio::time::timeout(Duration::from_secs(20), drained).await.expect("an end");
        assert!(frames.rest.is_some(), "it ended after the end, not by the number of frames");
        drop(frames);
        writer.join().expect("the writer ended");
    }

    #[tokio::test]
    async fn what_is_in_the_pipe_at_the_end_is_read_and_frames_are_counted() {
        let (mut write, read) = pipe();
        let exited = CancellationToken::new();
        let mut frames = Frames::of(read, &exited);
        write.write_all(&frame(b"last").repeat(100)).expect("written");
        exited.cancel();
        for _ in 0..100 {
            let frame = frames.next(|_| 10).await.expect("a frame").expect("one of them");
            assert_eq!((frame.mime.as_str(), frame.data.as_slice()), ("text/plain", &b"last"[..]));
        }
        assert!(frames.next(|_| 10).await.expect("the end").is_none());
        let (mut write, read) = pipe();
        let mut frames = Frames { left: 1, ..Frames::of(read, &exited) };
        write.write_all(&frame(b"").repeat(2)).expect("written");
        assert!(frames.next(|_| 10).await.expect("a frame").is_some());
        assert!(frames.next(|_| 10).await.is_err());
    }
}
