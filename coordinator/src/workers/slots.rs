//! The slots of one life of a worker: who holds them, and who was promised one.

use std::collections::{HashMap, HashSet};

use codegen_types::{HeldSession, SessionId};
use coordinator_core::placement::Slots;

/// Counts a worker's slots. A slot is promised by a reservation, which ends on its own; opening a session takes over
/// one promise, so that a session that is being opened under a reservation counts once.
#[derive(Debug, Default)]
pub(crate) struct SlotBook {
    total: u32,
    sessions: HashMap<SessionId, Hold>,
    /// Reservations whose session does not count yet.
    promised: u32,
    /// Reservations whose session counts by itself already.
    taken_over: u32,
}

/// How sure it is that a session has its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// The worker was asked to open it.
    Opening,
    /// The worker said that it is open.
    Open,
    /// The worker was asked to close it and did not answer.
    Unsure,
}

impl SlotBook {
    /// What a worker says that it has when it registers.
    pub(crate) fn seed(&mut self, total: u32, held: &[HeldSession]) {
        self.total = total;
        self.sessions.retain(|_, hold| *hold == Hold::Opening);
        for session in held.iter().filter(|held| held.open) {
            self.sessions.entry(session.session).or_insert(Hold::Open);
        }
    }

    pub(crate) fn view(&self) -> Slots {
        let used = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        Slots { total: self.total, used, reserved: self.promised }
    }

    /// As for a session that is to be opened again: the slot that it may have still is its own.
    pub(crate) fn view_for(&self, session: SessionId) -> Slots {
        let slots = self.view();
        Slots { used: slots.used - u32::from(self.sessions.contains_key(&session)), ..slots }
    }

    /// Promises a slot. A session that is to be opened again where it still has its own counts once, and no heartbeat that is
    /// older than its opening takes it away.
    pub(crate) fn reserve(&mut self, again: Option<SessionId>) {
        match again.and_then(|session| self.sessions.get_mut(&session)) {
            Some(hold) => {
                *hold = Hold::Opening;
                self.taken_over += 1;
            }
            None => self.promised += 1,
        }
    }

    /// A reservation has ended. A session that was not opened under it has its slot only if its worker says so.
    pub(crate) fn release(&mut self, again: Option<SessionId>) {
        if self.taken_over > 0 {
            self.taken_over -= 1;
        } else {
            self.promised = self.promised.saturating_sub(1);
        }
        if let Some(hold) = again.and_then(|session| self.sessions.get_mut(&session))
            && *hold == Hold::Opening
        {
            *hold = Hold::Unsure;
        }
    }

    /// A session is about to be opened.
    pub(crate) fn opening(&mut self, session: SessionId) {
        let known = self.sessions.insert(session, Hold::Opening).is_some();
        if !known && self.promised > 0 {
            self.promised -= 1;
            self.taken_over += 1;
        }
    }

    pub(crate) fn opened(&mut self, session: SessionId) {
        self.sessions.insert(session, Hold::Open);
    }

    /// The worker refused to open the session, or has closed it.
    pub(crate) fn closed(&mut self, session: SessionId) {
        let was = self.sessions.remove(&session);
        if was == Some(Hold::Opening) && self.taken_over > 0 {
            self.taken_over -= 1;
            self.promised += 1;
        }
    }

    /// The worker was asked to open or close the session, and whether it did is not known.
    pub(crate) fn unsure(&mut self, session: SessionId) {
        if let Some(hold) = self.sessions.get_mut(&session) {
            *hold = Hold::Unsure;
        }
    }

    /// A heartbeat settles what was unsure; of the rest it may be older than what is known here.
    pub(crate) fn settle(&mut self, held: &[HeldSession]) {
        let open: HashSet<SessionId> = held.iter().filter(|held| held.open).map(|held| held.session).collect();
        self.sessions.retain(|session, hold| *hold != Hold::Unsure || open.contains(session));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use codegen_types::Epoch;
    use proptest::prelude::*;

    use super::*;

    fn free(book: &SlotBook) -> u32 {
        book.view().free()
    }

    fn held(session: SessionId, open: bool) -> HeldSession {
        HeldSession { session, epoch: Epoch(1), open, tasks: Vec::new() }
    }

    fn book(total: u32) -> SlotBook {
        let mut book = SlotBook::default();
        book.seed(total, &[]);
        book
    }

    #[test]
    fn a_session_opened_under_a_reservation_counts_once() {
        let (mut book, session) = (book(2), SessionId::mint());
        book.reserve(None);
        assert_eq!(free(&book), 1);
        book.opening(session);
        book.opened(session);
        assert_eq!(free(&book), 1, "the reservation still exists");
        book.release(None);
        assert_eq!(free(&book), 1);
        book.closed(session);
        assert_eq!(free(&book), 2);
    }

    #[test]
    fn a_refused_opening_gives_the_promise_back_and_dropping_it_frees_the_slot() {
        let (mut book, session) = (book(1), SessionId::mint());
        book.reserve(None);
        book.opening(session);
        book.closed(session);
        assert_eq!(free(&book), 0);
        book.release(None);
        assert_eq!(free(&book), 1);
    }

    #[test]
    fn a_session_that_is_opened_again_in_its_own_slot_counts_once() {
        let (mut book, session) = (book(1), SessionId::mint());
        book.opened(session);
        book.reserve(Some(session));
        assert_eq!(book.view(), Slots { total: 1, used: 1, reserved: 0 });
        book.settle(&[held(session, false)]);
        book.opening(session);
        book.opened(session);
        book.release(Some(session));
        assert_eq!(book.view(), Slots { total: 1, used: 1, reserved: 0 });
        // One that was not opened after all has it as long as its worker says so.
        book.reserve(Some(session));
        book.release(Some(session));
        assert_eq!(free(&book), 0);
        book.settle(&[held(session, false)]);
        assert_eq!(free(&book), 1);
    }

    #[test]
    fn an_unanswered_closing_keeps_the_slot_until_a_heartbeat_settles_it() {
        let (mut book, session, other) = (book(2), SessionId::mint(), SessionId::mint());
        book.opened(session);
        book.opened(other);
        book.unsure(session);
        book.settle(&[held(session, true)]);
        assert_eq!(free(&book), 0);
        book.settle(&[held(session, false)]);
        assert_eq!(free(&book), 1, "what is known to be open stays, whatever an older heartbeat says");
    }

    #[test]
    fn joining_again_counts_what_the_worker_has_open() {
        let mut book = book(3);
        book.opened(SessionId::mint());
        book.seed(3, &[held(SessionId::mint(), true), held(SessionId::mint(), false)]);
        assert_eq!(free(&book), 2);
    }

    /// What may happen to a worker with slots, in any order.
    #[derive(Debug, Clone)]
    enum Act {
        /// A session is placed, if there is room.
        Reserve,
        /// It is opened under its reservation; whether the worker does it, and whether its answer comes.
        Open { does: bool, answers: bool },
        /// Its reservation ends.
        Release(usize),
        /// A session is closed; whether the worker does it, and whether its answer comes.
        Close { which: usize, does: bool, answers: bool },
        /// The worker says what it has.
        Heartbeat,
        /// The worker registers again.
        Join,
    }

    fn act() -> impl Strategy<Value = Act> {
        let close = (any::<usize>(), any::<bool>(), any::<bool>());
        prop_oneof![
            3 => Just(Act::Reserve),
            3 => (any::<bool>(), any::<bool>()).prop_map(|(does, answers)| Act::Open { does, answers }),
            2 => any::<usize>().prop_map(Act::Release),
            2 => close.prop_map(|(which, does, answers)| Act::Close { which, does, answers }),
            1 => Just(Act::Heartbeat),
            1 => Just(Act::Join),
        ]
    }

    /// A worker, its book, and the reservations that were not given back yet; those that were used name their session.
    struct Model {
        total: u32,
        book: SlotBook,
        has: BTreeSet<SessionId>,
        reservations: Vec<bool>,
    }

    impl Model {
        fn held(&self) -> Vec<HeldSession> {
            self.has.iter().map(|session| held(*session, true)).collect()
        }

        fn step(&mut self, act: &Act) {
            match act {
                Act::Reserve if free(&self.book) > 0 => {
                    self.book.reserve(None);
                    self.reservations.push(false);
                }
                Act::Reserve => {}
                Act::Open { does, answers } => {
                    let Some(unused) = self.reservations.iter_mut().find(|used| !**used) else { return };
                    *unused = true;
                    let session = SessionId::mint();
                    self.book.opening(session);
                    if *does {
                        self.has.insert(session);
                    }
                    match (does, answers) {
                        (true, true) => self.book.opened(session),
                        (false, true) => self.book.closed(session),
                        (_, false) => self.book.unsure(session),
                    }
                }
                Act::Release(which) if !self.reservations.is_empty() => {
                    self.reservations.swap_remove(which % self.reservations.len());
                    self.book.release(None);
                }
                Act::Release(_) => {}
                Act::Close { which, does, answers } => {
                    let Some(session) = self.has.iter().nth(which % self.has.len().max(1)).copied() else { return };
                    if *does {
                        self.has.remove(&session);
                    }
                    match (does, answers) {
                        (true, true) => self.book.closed(session),
                        (false, true) => {}
                        (_, false) => self.book.unsure(session),
                    }
                }
                Act::Heartbeat => self.book.settle(&self.held()),
                Act::Join => self.book.seed(self.total, &self.held()),
            }
        }
    }

    proptest! {
        #[test]
        fn no_worker_is_overbooked_whatever_happens_in_whichever_order(
            total in 0u32..5, acts in prop::collection::vec(act(), 0..120),
        ) {
            let mut model = Model { total, book: book(total), has: BTreeSet::new(), reservations: Vec::new() };
            for act in acts {
                model.step(&act);
                let open = u32::try_from(model.has.len()).unwrap();
                let unused = u32::try_from(model.reservations.iter().filter(|used| !**used).count()).unwrap();
                prop_assert!(open + unused <= total, "{act:?}: {open} open, {unused} promised, {total} there are");
                let view = model.book.view();
                prop_assert!(view.used >= open, "{act:?}: a session that is open is not counted: {view:?}");
                prop_assert!(view.free() <= total - open - unused, "{act:?}: {view:?}");
            }
        }
    }
}
