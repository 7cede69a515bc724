//! Telling clients which resources changed: those of 2024-11-05 to 2025-11-25 by `resources/subscribe`, those of
//! 2026-07-28 on the streams of `subscriptions/listen`.
//!
//! Notices are gathered and go out at most twice a second, each address once. A client that is slow to take them falls
//! behind in the news, and is then told that each address it follows changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use codegen_types::event::{ChangeKind, FileChange};
use codegen_types::{ErrorCode, Failure, WorkspacePath};
use parking_lot::Mutex;
use rmcp::model::{ErrorData, ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, RequestContext, RoleServer, SubscriptionContext, SubscriptionSink};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handler::Handler;
use super::resources::error;
use crate::session::{Changed, ChangesFollower, News};
use crate::tools::{Connection, ResourceUri, WorkspaceUri};

/// Addresses that one connection, or one stream of it, may follow.
const FOLLOWED_MAX: usize = 256;
/// Streams of one connection.
pub(super) const STREAMS_MAX: usize = 16;
/// At most one round of notices in this time.
const INTERVAL: Duration = Duration::from_millis(500);
/// After news of a transcript what follows may go untold for a moment; so long after it its followers are told once more.
const LATER: Duration = Duration::from_secs(1);

/// What is followed: addresses in the spelling of the client, to which it expects notices.
type Followed = BTreeMap<String, ResourceUri>;

/// What a connection of the older era follows.
#[derive(Default)]
pub(super) struct Subscriptions {
    followed: Arc<Mutex<Followed>>,
    is_following: AtomicBool,
}

impl Handler {
    /// Begins to tell a client of the older era that the list changed, and what it subscribes to.
    pub(super) fn follow(&self, peer: &Peer<RoleServer>) {
        if self.subscriptions().is_following.swap(true, Ordering::Relaxed) {
            return;
        }
        let followed = Arc::clone(&self.subscriptions().followed);
        let follow = Follow {
            connection: Arc::clone(self.connection()),
            news: self.connection().changes(),
            followed,
            tells_list: true,
            notices: Notices::default(),
            later: None,
        };
        let (way, until) = (Way::Peer(peer.clone()), self.calls().token());
        self.calls().spawn(async move { follow.run(way, until).await });
    }

    pub(super) async fn subscribed(&self, uri: String, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let asked = self.asked("resources/subscribe", context);
        let address = self.connection().follow_resource(&uri, &asked).await.map_err(|failure| error(&failure))?;
        // The news are followed before this is answered, so that no change after the answer is missed.
        self.follow(&context.peer);
        let mut followed = self.subscriptions().followed.lock();
        if followed.len() >= FOLLOWED_MAX && !followed.contains_key(&uri) {
            let text = format!("this connection follows {FOLLOWED_MAX} resources already, the most there may be");
            return Err(error(&Failure::new(ErrorCode::RateLimited, text).retry_later()));
        }
        followed.insert(uri, address);
        Ok(())
    }

    /// Nothing is refused: what is not followed any more is not followed.
    pub(super) fn unsubscribed(&self, uri: &str) {
        self.subscriptions().followed.lock().remove(uri);
    }

    /// What of a filter can be told: changes of the list, and of addresses in sessions of the client's own. Too many
    /// addresses, and none of them.
    pub(super) fn accepted(&self, requested: &SubscriptionFilter) -> SubscriptionFilter {
        let wanted = requested.resource_subscriptions.as_deref().unwrap_or_default();
        let own = wanted.iter().filter(|uri| self.connection().own_resource(uri).is_ok());
        let own: Vec<String> = if wanted.len() > FOLLOWED_MAX { Vec::new() } else { own.cloned().collect() };
        SubscriptionFilter::builder().resources_list_changed().resource_subscriptions(own).build()
    }

    /// Serves one stream until its client or the connection ends it.
    pub(super) async fn streamed(&self, stream: SubscriptionContext) -> Result<(), ErrorData> {
        let news = self.connection().changes();
        let Ok(_place) = self.streams().try_acquire() else {
            let text = format!("{STREAMS_MAX} streams are open on this connection, the most there may be");
            return Err(error(&Failure::new(ErrorCode::RateLimited, text).retry_later()));
        };
        let asked = self.asked("subscriptions/listen", stream.request_context());
        let mut followed = Followed::new();
        for uri in stream.accepted().resource_subscriptions.iter().flatten() {
            let address = self.connection().follow_resource(uri, &asked).await.map_err(|failure| error(&failure))?;
            followed.insert(uri.clone(), address);
        }
        let follow = Follow {
            connection: Arc::clone(self.connection()),
            news,
            followed: Arc::new(Mutex::new(followed)),
            tells_list: stream.accepted().resources_list_changed == Some(true),
            notices: Notices::default(),
            later: None,
        };
        let until = self.calls().streams_over();
        tokio::select! {
            () = follow.run(Way::Stream(stream.sink().clone()), until) => {}
            () = stream.cancelled() => {}
        }
        Ok(())
    }
}

/// The way of notices to a client.
enum Way {
    Peer(Peer<RoleServer>),
    Stream(SubscriptionSink),
}

impl Way {
    /// Whether the client can still be told.
    async fn tell(&self, notices: Notices) -> bool {
        for uri in notices.updated {
            let told = match self {
                Self::Peer(peer) => {
                    peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.is_ok()
                }
                Self::Stream(sink) => sink.notify_resource_updated(uri).await.is_ok(),
            };
            if !told {
                return false;
            }
        }
        match self {
            _ if !notices.list => true,
            Self::Peer(peer) => peer.notify_resource_list_changed().await.is_ok(),
            Self::Stream(sink) => sink.notify_resource_list_changed().await.is_ok(),
        }
    }
}

/// What is still to be told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Notices {
    updated: BTreeSet<String>,
    list: bool,
}

impl Notices {
    fn is_empty(&self) -> bool {
        self.updated.is_empty() && !self.list
    }
}

/// Follows the news for one client.
struct Follow {
    connection: Arc<Connection>,
    news: ChangesFollower,
    followed: Arc<Mutex<Followed>>,
    tells_list: bool,
    notices: Notices,
    /// Transcripts of which their followers are told once more, and when.
    later: Option<(Instant, BTreeSet<String>)>,
}

impl Follow {
    async fn run(mut self, way: Way, until: CancellationToken) {
        let mut due = Instant::now();
        loop {
            let later_at = self.later.as_ref().map(|(at, _)| *at);
            tokio::select! {
                () = until.cancelled() => return,
                news = self.news.next() => match news {
                    Some(news) => self.take(&news),
                    None => return,
                },
                () = tokio::time::sleep_until(later_at.unwrap_or(due)), if later_at.is_some() => {
                    self.notices.updated.extend(self.later.take().into_iter().flat_map(|(_, uris)| uris));
                }
                () = tokio::time::sleep_until(due), if !self.notices.is_empty() => {
                    let notices = self.due_notices();
                    let told = tokio::select! {
                        told = way.tell(notices) => told,
                        () = until.cancelled() => return,
                    };
                    if !told {
                        return;
                    }
                    due = Instant::now() + INTERVAL;
                }
            }
        }
    }

    /// What is to be told now. What the client may not read any more it does not follow any more.
    fn due_notices(&mut self) -> Notices {
        let mut notices = std::mem::take(&mut self.notices);
        let mut followed = self.followed.lock();
        followed.retain(|_, address| self.connection.may_follow(address.session()));
        notices.updated.retain(|uri| followed.contains_key(uri));
        notices
    }

    fn take(&mut self, news: &News) {
        let followed = self.followed.lock();
        let is_news = |address: &ResourceUri| match (news, address) {
            (News::Missed, _) => true,
            (News::Changed(changed), ResourceUri::File(file)) => concerns(changed, file),
            (News::Transcript(session), ResourceUri::Transcript(of)) => session == of,
            (News::Changed(_), ResourceUri::Transcript(_)) | (News::Transcript(_), ResourceUri::File(_)) => false,
        };
        if let News::Transcript(_) = news {
            let told: BTreeSet<String> =
                followed.iter().filter(|(_, at)| is_news(at)).map(|(uri, _)| uri.clone()).collect();
            if !told.is_empty() {
                let mut later = self.later.take().map(|(_, uris)| uris).unwrap_or_default();
                later.extend(told);
                self.later = Some((Instant::now() + LATER, later));
            }
        }
        self.notices.updated.extend(followed.iter().filter(|(_, at)| is_news(at)).map(|(uri, _)| uri.clone()));
        drop(followed);
        self.notices.list |= self.tells_list
            && match news {
                News::Missed => true,
                News::Transcript(_) => false,
                News::Changed(changed) => lists_differ(changed) && self.connection.uses(changed.session),
            };
    }
}

/// Whether a change concerns what an address names: it, a directory that holds it, or something inside it.
fn concerns(changed: &Changed, address: &WorkspaceUri) -> bool {
    changed.session == address.session
        && changed.files.as_ref().is_none_or(|files| {
            files.iter().any(|file| is_within(&file.path, &address.path) || is_within(&address.path, &file.path))
        })
}

fn is_within(path: &WorkspacePath, directory: &WorkspacePath) -> bool {
    let rest = path.as_str().strip_prefix(directory.as_str());
    directory.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether files appeared or disappeared.
fn lists_differ(changed: &Changed) -> bool {
    let appeared_or_gone = |file: &FileChange| file.change != ChangeKind::Modified;
    changed.files.as_ref().is_none_or(|files| files.iter().any(appeared_or_gone))
}

#[cfg(test)]
mod tests {
    use codegen_types::SessionId;

    use super::*;

    fn path(text: &str) -> WorkspacePath {
        WorkspacePath::parse(text).unwrap()
    }

    #[test]
    fn a_change_concerns_a_file_what_holds_it_and_what_it_holds() {
        let session = SessionId::mint();
        let changed = |at: &str| {
            let change = FileChange { path: path(at), change: ChangeKind::Modified, size: 1 };
            Changed { session, files: Some(vec![change]) }
        };
        let address = |at: &str| WorkspaceUri { session, path: path(at) };
        for (of, at) in [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("a/b", ""), ("a", "")] {
            assert!(concerns(&changed(of), &address(at)), "{of} {at}");
        }
        for (of, at) in [("ab", "a"), ("a", "ab"), ("a/b", "a/c"), ("a/bc", "a/b")] {
            assert!(!concerns(&changed(of), &address(at)), "{of} {at}");
        }
        let elsewhere = WorkspaceUri { session: SessionId::mint(), path: path("a") };
        assert!(!concerns(&changed("a"), &elsewhere));
        assert!(concerns(&Changed { session, files: None }, &address("a")));
        assert!(!lists_differ(&changed("a")) && lists_differ(&Changed { session, files: None }));
    }
}
