//! A running task's output as progress notifications: in order, bounded, at most four a second, and a beat when it is
//! quiet.

use std::time::Duration;

use codegen_types::{EventBody, OutputStream};
use futures::FutureExt;
use futures::future::BoxFuture;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RoleServer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// At most one notification in this time.
const INTERVAL: Duration = Duration::from_millis(250);
/// A task that is quiet for so long is said to run still.
const BEAT: Duration = Duration::from_secs(10);
/// The longest message, in bytes. Of what is more than that only the end is shown; the result has the rest.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Tells a client of one task's events.
pub(super) struct Progress {
    peer: Peer<RoleServer>,
    token: ProgressToken,
    sent: u32,
    begun: Instant,
    last: Option<Instant>,
    pending: Pending,
}

/// Takes events until `done`, and drops them: the client asked for no progress.
pub(super) async fn ignore(mut events: mpsc::Receiver<EventBody>, done: CancellationToken) {
    let drain = async { while events.recv().await.is_some() {} };
    tokio::select! { () = drain => {}, () = done.cancelled() => {} }
}

impl Progress {
    pub(super) fn new(peer: Peer<RoleServer>, token: ProgressToken) -> Self {
        Self { peer, token, sent: 0, begun: Instant::now(), last: None, pending: Pending::default() }
    }

    /// Takes events until `done`, and returns when the client was sent the last of them. A client that takes no
    /// notifications never holds up the task: events are taken while one is being sent.
    pub(super) async fn follow(mut self, mut events: mpsc::Receiver<EventBody>, done: CancellationToken) {
        let mut sending: Option<BoxFuture<'static, ()>> = None;
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = done.cancelled() => break,
                Some(event) = events.recv() => self.pending.add(event),
                () = async { sending.as_mut().expect("checked by the guard").await }, if sending.is_some() => sending = None,
                () = tokio::time::sleep_until(due), if sending.is_none() => sending = Some(self.notify()),
            }
        }
        while let Ok(event) = events.try_recv() {
            self.pending.add(event);
        }
        if let Some(sending) = sending {
            sending.await;
        }
        if !self.pending.is_empty() {
            self.notify().await;
        }
    }

    /// When the next notification goes out.
    fn due(&self) -> Instant {
        match (self.pending.is_empty(), self.last) {
            (false, None) => self.begun,
            (false, Some(last)) => last + INTERVAL,
            (true, last) => last.unwrap_or(self.begun) + BEAT,
        }
    }

    fn notify(&mut self) -> BoxFuture<'static, ()> {
        self.last = Some(Instant::now());
        self.sent += 1;
        let message = match self.pending.take() {
            Some(text) => text,
            None => format!("still running after {} s", self.begun.elapsed().as_secs()),
        };
        let progress = ProgressNotificationParam::new(self.token.clone(), f64::from(self.sent)).with_message(message);
        let peer = self.peer.clone();
        async move {
            if let Err(error) = peer.notify_progress(progress).await {
                tracing::debug!(%error, "a progress notification could not be sent");
            }
        }
        .boxed()
    }
}

/// What was written since the last notification: its last [`MESSAGE_BYTES_MAX`] bytes.
#[derive(Default)]
struct Pending {
    text: String,
    skipped: usize,
    stdout: Cut,
    stderr: Cut,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn add(&mut self, event: EventBody) {
        match event {
            EventBody::Output { stream, bytes } => {
                let cut = match stream {
                    OutputStream::Stdout => &mut self.stdout,
                    OutputStream::Stderr => &mut self.stderr,
                };
                self.text.push_str(&cut.text_of(bytes));
            }
            EventBody::Progress { message } => {
                self.text.push_str(&message);
                self.text.push('\n');
            }
            EventBody::Started
            | EventBody::Display(_)
            | EventBody::FilesChanged(_)
            | EventBody::Finished(_)
            | EventBody::Failed { .. } => {}
        }
        if self.text.len() > MESSAGE_BYTES_MAX {
            let cut = self.text.ceil_char_boundary(self.text.len() - MESSAGE_BYTES_MAX);
            self.text.drain(..cut);
            self.skipped += cut;
        }
    }

    fn take(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.text);
        match std::mem::take(&mut self.skipped) {
            _ if text.is_empty() => None,
            0 => Some(text),
            skipped => Some(format!("[… {skipped} bytes are not shown here …]\n{text}")),
        }
    }
}

/// The beginning of a character whose rest has not come yet.
#[derive(Default)]
struct Cut(Vec<u8>);

impl Cut {
    /// The whole characters so far. Bytes that are no UTF-8 are shown as U+FFFD.
    fn text_of(&mut self, bytes: Vec<u8>) -> String {
        let mut all = std::mem::take(&mut self.0);
        all.extend(bytes);
        let unfinished = match std::str::from_utf8(&all[all.len().saturating_sub(4)..]) {
            Ok(_) => 0,
            Err(_) => (1..=3.min(all.len())).find(|n| begins_character(&all[all.len() - n..])).unwrap_or(0),
        };
        self.0 = all.split_off(all.len() - unfinished);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// Whether these bytes begin a character and need more to be one.
fn begins_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stream: OutputStream, bytes: &[u8]) -> EventBody {
        EventBody::Output { stream, bytes: bytes.to_vec() }
    }

    #[test]
    fn a_character_cut_between_chunks_comes_out_whole() {
        let text = "aé漢🦀".repeat(3);
        for size in 1..6 {
            let mut pending = Pending::default();
            for chunk in text.as_bytes().chunks(size) {
                pending.add(output(OutputStream::Stdout, chunk));
                pending.add(output(OutputStream::Stderr, b""));
            }
            assert_eq!(pending.take().as_deref(), Some(text.as_str()), "in chunks of {size}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such_and_held_back_by_nothing() {
        let mut pending = Pending::default();
        pending.add(output(OutputStream::Stdout, b"a\xff\xfeb\x80\x80\x80"));
        assert_eq!(pending.take().as_deref(), Some("a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}\u{fffd}"));
    }

    #[test]
    fn a_flood_is_cut_to_its_end() {
        let mut pending = Pending::default();
        for n in 0..10_000 {
            pending.add(output(OutputStream::Stdout, format!("line é {n}\n").as_bytes()));
        }
        let text = pending.take().expect("something is pending");
        assert!(text.len() <= MESSAGE_BYTES_MAX + 64 && text.ends_with("line é 9999\n"));
        assert!(text.starts_with("[… "));
        assert!(pending.is_empty() && pending.take().is_none());
    }
}
