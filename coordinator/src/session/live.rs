//! What runs in a session, told live to whoever may read it: tasks that begin, write and end.
//!
//! No task waits for a follower: one that falls behind is told so, and reads what it missed from the task's log.

use std::sync::Arc;

use codegen_types::{EventBody, Failure, OutputStream, Principal, SessionId, TaskId};
use coordinator_core::session::Need;
use dashmap::DashMap;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::owner::gone_for_good;
use super::seen::TaskInfo;
use super::service::Sessions;

/// News of one session that wait for its slowest follower. More than that, and it is told that it missed some.
const NEWS: usize = 128;
/// The most bytes of output in one piece of news; of a longer one the end is told.
const WROTE_BYTES_MAX: usize = 16 << 10;

/// What happened in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionNews {
    /// A task began.
    Began(TaskInfo),
    /// A task wrote.
    Wrote {
        /// Which.
        task: TaskId,
        /// On which stream.
        stream: OutputStream,
        /// At which byte of both streams together.
        from: u64,
        /// What; what lies between the last news and this is in the task's log.
        bytes: Arc<[u8]>,
    },
    /// A task ended, and its outcome is on record.
    Ended(TaskInfo),
    /// The follower fell behind: tasks may have begun, written and ended.
    Missed,
}

/// Followers by session; sessions are independent of each other, and one that nobody follows is not here.
#[derive(Default)]
pub struct Live {
    by_session: Arc<DashMap<SessionId, broadcast::Sender<SessionNews>>>,
}

/// A follower's place in the news of one session.
pub struct SessionFollower {
    session: SessionId,
    by_session: Arc<DashMap<SessionId, broadcast::Sender<SessionNews>>>,
    news: broadcast::Receiver<SessionNews>,
    /// Done when the follower may not read the session any more.
    revoked: BoxFuture<'static, ()>,
}

impl Live {
    /// Follows a session from now on, until `revoked` is done.
    pub fn follow(&self, session: SessionId, revoked: BoxFuture<'static, ()>) -> SessionFollower {
        let sender = self.by_session.entry(session).or_insert_with(|| broadcast::Sender::new(NEWS));
        let news = sender.subscribe();
        drop(sender);
        SessionFollower { session, by_session: Arc::clone(&self.by_session), news, revoked }
    }

    /// Tells what happened, if anybody follows.
    pub fn tell(&self, session: SessionId, news: impl FnOnce() -> SessionNews) {
        if let Some(followers) = self.by_session.get(&session) {
            // The last may be leaving.
            let _ = followers.send(news());
        }
    }

    /// Tells what a task wrote after the first `from` bytes.
    pub(super) fn tell_output(&self, session: SessionId, task: TaskId, from: u64, event: &EventBody) {
        let EventBody::Output { stream, bytes } = event else { return };
        self.tell(session, || {
            let skipped = bytes.len().saturating_sub(WROTE_BYTES_MAX);
            let (from, bytes) = (from + skipped as u64, Arc::from(&bytes[skipped..]));
            SessionNews::Wrote { task, stream: *stream, from, bytes }
        });
    }

    /// Ends the news of a session: there will be none any more.
    pub(super) fn end(&self, session: SessionId) {
        self.by_session.remove(&session);
    }
}

impl SessionFollower {
    /// The next news; `None` when there will be none any more, or none for this follower. May be given up at any await.
    pub async fn next(&mut self) -> Option<SessionNews> {
        tokio::select! {
            biased;
            () = &mut self.revoked => None,
            news = self.news.recv() => match news {
                Ok(news) => Some(news),
                Err(RecvError::Lagged(_)) => Some(SessionNews::Missed),
                Err(RecvError::Closed) => None,
            },
        }
    }
}

impl Drop for SessionFollower {
    fn drop(&mut self) {
        // This one still counts.
        self.by_session.remove_if(&self.session, |_, followers| followers.receiver_count() <= 1);
    }
}

impl Sessions {
    /// Follows what runs in a session from now on, for as long as the principal may read it.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`; `SESSION_CLOSED`.
    pub fn follow_session(&self, principal: &Principal, session: SessionId) -> Result<SessionFollower, Failure> {
        let (table, principal) = (Arc::clone(&self.shared.table), principal.clone());
        if table.of(&principal, session, Need::Read)?.snapshot.state == "closed" {
            return Err(gone_for_good());
        }
        let revoked = async move { table.revoked(&principal, session).await }.boxed();
        Ok(self.shared.live.follow(session, revoked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(bytes: &[u8]) -> EventBody {
        EventBody::Output { stream: OutputStream::Stdout, bytes: bytes.to_vec() }
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_is_told_so_and_the_last_leaves_nothing_behind() {
        let (live, session, task) = (Live::default(), SessionId::mint(), TaskId::mint());
        live.tell_output(session, task, 0, &wrote(b"nobody hears"));
        let never = || std::future::pending().boxed();
        let (mut slow, other) = (live.follow(session, never()), live.follow(session, never()));
        for at in 0..=NEWS as u64 {
            live.tell_output(session, task, at, &wrote(b"x"));
        }
        assert_eq!(slow.next().await, Some(SessionNews::Missed));
        assert!(matches!(slow.next().await, Some(SessionNews::Wrote { from: 1, .. })));
        drop(other);
        live.tell_output(session, task, 500, &wrote(&vec![b'y'; WROTE_BYTES_MAX + 7]));
        let mut last = slow.next().await;
        while let Some(SessionNews::Wrote { from: ..500, .. }) = last {
            last = slow.next().await;
        }
        let bytes = Arc::from(vec![b'y'; WROTE_BYTES_MAX]);
        assert_eq!(last, Some(SessionNews::Wrote { task, stream: OutputStream::Stdout, from: 507, bytes }));
        drop(slow);
        assert!(live.by_session.is_empty());
    }

    #[tokio::test]
    async fn a_follower_that_may_not_read_any_more_hears_nothing_of_what_waits() {
        let (live, session) = (Live::default(), SessionId::mint());
        let mut follower = live.follow(session, std::future::ready(()).boxed());
        live.tell_output(session, TaskId::mint(), 0, &wrote(b"x"));
        assert_eq!(follower.next().await, None);
    }
}
