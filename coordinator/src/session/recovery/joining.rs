//! What a worker that has joined says that it has, looked at in the background: one look at a worker at a time, and the
//! newest wins, so that a worker that joins again and again costs no more than one that joined once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{Epoch, ErrorCode, HeldSession, SessionId, WorkerId};
use coordinator_core::session::{Assignment, Input};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::resolved;
use crate::session::Shared;
use crate::session::outcome::contacts_of;
use crate::session::owner::note;
use crate::supervisor::OnEnd;

/// Sessions of one worker that it is asked to end at once.
const ENDED_AT_ONCE: usize = 16;
/// How long a worker that could not be asked is let alone then; each time it is longer, up to the second of these.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The looks that are being taken.
#[derive(Default)]
pub(in crate::session) struct Joining(Mutex<Looks>);

#[derive(Default)]
struct Looks {
    next: u64,
    of: HashMap<WorkerId, Look>,
}

struct Look {
    number: u64,
    over: CancellationToken,
    /// Held while one looks: the next one finds nothing half done.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Joining {
    /// Begins a look at a worker, and ends the one before.
    fn begin(&self, worker: &WorkerId) -> (u64, CancellationToken, Arc<tokio::sync::Mutex<()>>) {
        let mut looks = self.0.lock();
        looks.next += 1;
        let number = looks.next;
        let earlier = looks.of.remove(worker);
        let turn = earlier.as_ref().map(|look| Arc::clone(&look.turn)).unwrap_or_default();
        if let Some(earlier) = earlier {
            earlier.over.cancel();
        }
        let over = CancellationToken::new();
        looks.of.insert(worker.clone(), Look { number, over: over.clone(), turn: Arc::clone(&turn) });
        (number, over, turn)
    }

    fn end(&self, worker: &WorkerId, number: u64) {
        let mut looks = self.0.lock();
        if looks.of.get(worker).is_some_and(|look| look.number == number) {
            looks.of.remove(worker);
        }
    }
}

/// Follows what a worker offers and was given up, and has it end what it goes on with unasked: processes of sessions
/// that are at rest here, and whole sessions that were closed while it was away.
pub(in crate::session) fn look_at(
    shared: &Arc<Shared>,
    at: Assignment,
    held: Vec<HeldSession>,
    strangers: Vec<Stranger>,
) {
    let (number, over, turn) = shared.joining.begin(&at.worker);
    let looking = Arc::clone(shared);
    shared.supervisor.spawn("look at a worker", OnEnd::Ignore, async move {
        let look = async {
            let _turn = turn.lock().await;
            let offers = resolved::offers(&looking, &at, &held).await;
            tell_left(&looking, &at, &held);
            tokio::join!(resolved::follow_all(&looking, &at.worker, offers), end_strangers(&looking, &at, strangers));
        };
        let stopping = looking.supervisor.token();
        let _ = stopping.run_until_cancelled(over.run_until_cancelled(look)).await;
        looking.joining.end(&at.worker, number);
    });
}

/// Tells owners that their sessions are open there, after what was given up there is known to be waited for: a session
/// ends no process whose task may yet be heard of.
fn tell_left(shared: &Shared, at: &Assignment, held: &[HeldSession]) {
    for held in held.iter().filter(|held| held.open) {
        if let Some(entry) = shared.table.get(held.session) {
            entry.news.tell(Input::ProcessesLeft { at: at.clone() });
        }
    }
}

/// A session that a worker has and that nobody can use any more.
pub(in crate::session) struct Stranger {
    session: SessionId,
    epoch: Epoch,
    why: StrangerWhy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StrangerWhy {
    /// It was closed: its files are to be deleted.
    Closed,
    /// There is none on record. A log that was lost must not cost anybody files.
    Unheard,
}

/// Those among what a worker has.
pub(in crate::session) fn strangers(shared: &Shared, held: &[HeldSession]) -> Vec<Stranger> {
    let why = |held: &HeldSession| match shared.table.get(held.session) {
        Some(entry) if entry.snapshot.state == "closed" => Some(StrangerWhy::Closed),
        None if held.open => Some(StrangerWhy::Unheard),
        Some(_) | None => None,
    };
    let strangers =
        held.iter().filter_map(|held| Some(Stranger { session: held.session, epoch: held.epoch, why: why(held)? }));
    strangers.collect()
}

async fn end_strangers(shared: &Shared, at: &Assignment, mut strangers: Vec<Stranger>) {
    if strangers.iter().any(|stranger| stranger.why == StrangerWhy::Unheard) {
        // One that was just being made is in the store before its worker hears of it.
        let Ok(rows) = shared.sessions.sessions().await else { return };
        let stored: HashSet<SessionId> = rows.into_iter().map(|row| row.id).collect();
        strangers.retain(|stranger| stranger.why == StrangerWhy::Closed || !stored.contains(&stranger.session));
    }
    let ending = futures::stream::iter(strangers);
    ending.for_each_concurrent(ENDED_AT_ONCE, |stranger| end(shared, at, stranger)).await;
}

/// Asks for it until it is answered, or that life of the worker is over.
async fn end(shared: &Shared, at: &Assignment, Stranger { session, epoch, why }: Stranger) {
    let delete = why == StrangerWhy::Closed;
    let [mut rest, longest] = RESTS;
    loop {
        let failure = match shared.fleet.close(session, at.lease(epoch), delete).await {
            Ok(closed) => {
                tracing::info!(%session, worker = %at.worker, delete, "a session that is over here was ended on its worker");
                if !closed.contacts.is_empty() {
                    let principal = shared.table.get(session).map(|entry| entry.snapshot.principal.clone());
                    let detail = json!({"contacts": contacts_of(&closed.contacts)});
                    note(shared, principal, session, Some(at.lease(epoch)), detail).await;
                }
                return;
            }
            Err(failure) => failure,
        };
        tracing::warn!(%session, worker = %at.worker, %failure, "a session that is over here could not be ended");
        let is_away = failure.code == ErrorCode::WorkerUnavailable;
        if !is_away || shared.present(&at.worker) != Some(at.incarnation) {
            return;
        }
        tokio::time::sleep(rest).await;
        rest = longest.min(rest * 2);
    }
}
