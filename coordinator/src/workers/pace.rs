//! How often workers may register and speak, so that neither a loop nor two workers with one name and one token flood
//! the sessions and the log.

use std::collections::HashMap;
use std::time::Duration;

use codegen_types::WorkerId;

use super::said::WorkerRefused;

/// Registrations of one name in a row.
const JOINS_BURST: u32 = 5;
/// After so long, one more may come.
const JOIN_EVERY: Duration = Duration::from_secs(1);
/// Registrations in a row by all who share one token: as many as they may be, by default.
const SHARED_BURST: u32 = 1_024;
/// After so long, one more may come of them.
const SHARED_EVERY: Duration = Duration::from_millis(250);
/// A life that is linked gives way to another one only so often.
const TAKEOVER_EVERY: Duration = Duration::from_secs(60);

/// So many in a row, and then one each time that is long enough.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When all that came will have been paid for.
    paid: Duration,
}

impl Pace {
    /// Counts one more, if it may come.
    pub(crate) fn take(&mut self, burst: u32, every: Duration, now: Duration) -> bool {
        let next = self.next(burst, every, now);
        self.paid = next.unwrap_or(self.paid);
        next.is_some()
    }

    /// When all will have been paid for with one more, if that may come.
    fn next(&self, burst: u32, every: Duration, now: Duration) -> Option<Duration> {
        Some(self.paid.max(now) + every).filter(|paid| *paid <= now + every * burst)
    }
}

/// The registrations of every name of the last minute.
pub(crate) struct Joins {
    of_each: HashMap<WorkerId, Joined>,
    /// Of those who share a token, by its principal: names are theirs to invent.
    of_shared: HashMap<String, Pace>,
    names_max: usize,
}

/// The registrations of one name.
#[derive(Default)]
struct Joined {
    pace: Pace,
    took_over: Option<Duration>,
}

impl Joined {
    fn is_over(&self, now: Duration) -> bool {
        self.pace.paid <= now && !self.took_over_lately(now)
    }

    fn took_over_lately(&self, now: Duration) -> bool {
        self.took_over.is_some_and(|then| now.saturating_sub(then) < TAKEOVER_EVERY)
    }
}

impl Joins {
    /// Remembers so many names; those that came long ago are forgotten first.
    pub(crate) fn new(names_max: usize) -> Self {
        Self { of_each: HashMap::new(), of_shared: HashMap::new(), names_max }
    }

    /// Counts a registration with a credential that is `shared_by` some, which `takes_over` from another life that is
    /// linked.
    ///
    /// # Errors
    /// [`WorkerRefused::TooOften`] and [`WorkerRefused::Doubled`]; what is refused is not counted.
    pub(crate) fn count(
        &mut self,
        worker: &WorkerId,
        shared_by: Option<&str>,
        takes_over: bool,
        now: Duration,
    ) -> Result<(), WorkerRefused> {
        let shared = shared_by.map(|principal| self.next_of_shared(principal, now)).transpose()?;
        if self.of_each.len() >= self.names_max && !self.of_each.contains_key(worker) {
            self.of_each.retain(|_, joined| !joined.is_over(now));
            if self.of_each.len() >= self.names_max {
                return Err(WorkerRefused::TooOften);
            }
        }
        let joined = self.of_each.entry(worker.clone()).or_default();
        if takes_over && joined.took_over_lately(now) {
            return Err(WorkerRefused::Doubled);
        }
        if !joined.pace.take(JOINS_BURST, JOIN_EVERY, now) {
            return Err(WorkerRefused::TooOften);
        }
        if takes_over {
            joined.took_over = Some(now);
        }
        if let Some((principal, paid)) = shared_by.zip(shared) {
            self.of_shared.insert(principal.to_owned(), Pace { paid });
        }
        Ok(())
    }

    /// When all registrations with that token will have been paid for with one more. Before a name is looked at: of a name
    /// that may not come nothing is remembered.
    fn next_of_shared(&mut self, principal: &str, now: Duration) -> Result<Duration, WorkerRefused> {
        self.of_shared.retain(|_, pace| pace.paid > now);
        let none = Pace::default();
        let pace = self.of_shared.get(principal).unwrap_or(&none);
        pace.next(SHARED_BURST, SHARED_EVERY, now).ok_or(WorkerRefused::TooOften)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn name(text: &str) -> WorkerId {
        text.parse().unwrap()
    }

    #[test]
    fn invented_names_help_nobody_who_shares_a_token() {
        let mut joins = Joins::new(100_000);
        let came = (0..10_000).filter(|at| joins.count(&name(&format!("w{at}")), Some("all"), false, NOW).is_ok());
        assert_eq!(came.count(), SHARED_BURST as usize);
        assert_eq!(joins.of_each.len(), SHARED_BURST as usize, "of those that were refused nothing is kept");
        assert_eq!(joins.count(&name("x"), Some("others"), false, NOW), Ok(()));
        assert_eq!(joins.count(&name("y"), None, false, NOW), Ok(()));
        assert_eq!(joins.count(&name("z"), Some("all"), false, NOW + SHARED_EVERY), Ok(()));
    }

    #[test]
    fn a_name_registers_so_often_and_no_other_name_is_held_up() {
        let mut joins = Joins::new(8);
        let came = (0..100).filter(|_| joins.count(&name("a"), None, false, NOW).is_ok()).count();
        assert_eq!(came, JOINS_BURST as usize);
        assert_eq!(joins.count(&name("b"), None, false, NOW), Ok(()));
        assert_eq!(joins.count(&name("a"), None, false, NOW + JOIN_EVERY), Ok(()));
        assert_eq!(joins.count(&name("a"), None, false, NOW + JOIN_EVERY), Err(WorkerRefused::TooOften));
    }

    #[test]
    fn a_linked_life_gives_way_once_a_minute() {
        let mut joins = Joins::new(8);
        assert_eq!(joins.count(&name("a"), None, true, NOW), Ok(()));
        let soon = NOW + TAKEOVER_EVERY / 2;
        assert_eq!(joins.count(&name("a"), None, true, soon), Err(WorkerRefused::Doubled));
        assert_eq!(joins.count(&name("a"), None, false, soon), Ok(()), "who resumes takes nothing");
        assert_eq!(joins.count(&name("a"), None, true, NOW + TAKEOVER_EVERY), Ok(()));
    }

    #[test]
    fn names_are_forgotten_when_they_are_quiet() {
        let mut joins = Joins::new(2);
        let count = |joins: &mut Joins, text: &str, now| joins.count(&name(text), None, false, now);
        assert!(count(&mut joins, "a", NOW).is_ok() && count(&mut joins, "b", NOW).is_ok());
        assert_eq!(count(&mut joins, "c", NOW), Err(WorkerRefused::TooOften));
        assert_eq!(count(&mut joins, "c", NOW + JOIN_EVERY), Ok(()));
        assert!(joins.of_each.len() <= 2);
    }
}
