//! Answers that were given, kept for a while for clients that lost the connection before they had all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use codegen_types::Principal;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::session::ProtocolSession;

/// How long an answer can be asked for again.
const LIFETIME: Duration = Duration::from_secs(60);
/// Bytes of streams that are kept, of one principal. Full means that its oldest go.
const OF_ONE_BYTES_MAX: usize = 32 << 20;
/// The same of all principals. Full means that the oldest go of whoever has most.
const OF_ALL_BYTES_MAX: usize = 64 << 20;
/// Streams that are kept, of one principal.
const OF_ONE_MAX: usize = 4_096;
/// Streams that are kept, of all principals.
const OF_ALL_MAX: usize = 8_192;

/// The answers of all sessions.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Queues>);

#[derive(Debug, Default)]
struct Queues {
    of: HashMap<Principal, Queue>,
    count: usize,
    bytes: usize,
}

/// Those of one principal, oldest first.
#[derive(Debug, Default)]
struct Queue {
    answers: VecDeque<Answer>,
    bytes: usize,
}

#[derive(Debug)]
struct Answer {
    session: Weak<ProtocolSession>,
    stream: u64,
    bytes: usize,
    until: Instant,
}

impl Kept {
    /// Keeps a stream that has ended and has so many bytes, and forgets those for which it is time.
    pub(super) fn keep(&self, session: &Arc<ProtocolSession>, stream: u64, bytes: usize) {
        let now = Instant::now();
        let answer = Answer { session: Arc::downgrade(session), stream, bytes, until: now + LIFETIME };
        let gone = self.0.lock().add(&session.principal, answer, now);
        gone.into_iter().for_each(Answer::forget);
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&self) {
        let gone = self.0.lock().too_old(Instant::now());
        gone.into_iter().for_each(Answer::forget);
    }
}

impl Queues {
    /// Adds an answer, and gives what has to go for it.
    fn add(&mut self, principal: &Principal, answer: Answer, now: Instant) -> Vec<Answer> {
        self.count += 1;
        self.bytes += answer.bytes;
        let queue = self.of.entry(principal.clone()).or_default();
        queue.bytes += answer.bytes;
        queue.answers.push_back(answer);
        let mut gone = Vec::new();
        while self.of.get(principal).is_some_and(|queue| queue.is_too_much() || queue.is_old(now)) {
            gone.extend(self.take(&principal.clone()));
        }
        while self.bytes > OF_ALL_BYTES_MAX || self.count > OF_ALL_MAX {
            let most = self.of.iter().max_by_key(|(_, queue)| (queue.bytes, queue.answers.len()));
            let Some(most) = most.map(|(principal, _)| principal.clone()) else { break };
            gone.extend(self.take(&most));
        }
        gone
    }

    fn too_old(&mut self, now: Instant) -> Vec<Answer> {
        let mut gone = Vec::new();
        let principals: Vec<Principal> = self.of.keys().cloned().collect();
        for principal in principals {
            while self.of.get(&principal).is_some_and(|queue| queue.is_old(now)) {
                gone.extend(self.take(&principal));
            }
        }
        gone
    }

    /// Takes the oldest of a principal out.
    fn take(&mut self, principal: &Principal) -> Option<Answer> {
        let queue = self.of.get_mut(principal)?;
        let answer = queue.answers.pop_front()?;
        queue.bytes -= answer.bytes;
        if queue.answers.is_empty() {
            self.of.remove(principal);
        }
        self.count -= 1;
        self.bytes -= answer.bytes;
        Some(answer)
    }
}

impl Queue {
    fn is_too_much(&self) -> bool {
        self.bytes > OF_ONE_BYTES_MAX || self.answers.len() > OF_ONE_MAX
    }

    fn is_old(&self, now: Instant) -> bool {
        self.answers.front().is_some_and(|oldest| oldest.until <= now)
    }
}

impl Answer {
    fn forget(self) {
        if let Some(session) = self.session.upgrade() {
            session.forget(self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(stream: u64, bytes: usize, until: Instant) -> Answer {
        Answer { session: Weak::new(), stream, bytes, until }
    }

    fn streams(gone: &[Answer]) -> Vec<u64> {
        gone.iter().map(|answer| answer.stream).collect()
    }

    #[test]
    fn one_principal_pushes_out_its_own_answers_first() {
        let (mut queues, now) = (Queues::default(), Instant::now());
        let (ann, bob, eve) = (Principal::os_user("ann"), Principal::os_user("bob"), Principal::os_user("eve"));
        let until = now + LIFETIME;
        let third = OF_ONE_BYTES_MAX / 3;
        assert!(queues.add(&bob, answer(0, third, until), now).is_empty());
        for stream in 1..=3 {
            assert!(queues.add(&ann, answer(stream, third, until), now).is_empty());
        }
        assert_eq!(streams(&queues.add(&ann, answer(4, third, until), now)), [1]);
        assert_eq!(streams(&queues.add(&eve, answer(5, 3 * (third - 1), until), now)), [2], "of whoever has most");
        let large = queues.add(&bob, answer(6, OF_ONE_BYTES_MAX + 1, until), now);
        assert_eq!(streams(&large), [0, 6], "it would be more than all that one may have");
        assert_eq!(streams(&queues.too_old(until)).len(), 3);
        assert_eq!((queues.count, queues.bytes, queues.of.len()), (0, 0, 0));
    }

    #[test]
    fn small_answers_are_bounded_in_number_and_in_time() {
        let (mut queues, now) = (Queues::default(), Instant::now());
        let ann = Principal::os_user("ann");
        let gone: usize = (0..5_000).map(|stream| queues.add(&ann, answer(stream, 1, now + LIFETIME), now).len()).sum();
        assert_eq!((gone, queues.count), (5_000 - OF_ONE_MAX, OF_ONE_MAX));
        assert_eq!(queues.add(&ann, answer(0, 1, now + 2 * LIFETIME), now + LIFETIME).len(), OF_ONE_MAX);
        assert_eq!(queues.count, 1);
    }
}
