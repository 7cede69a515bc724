//! What each principal uses today: counted where tasks begin and end, and after a restart as the log has it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{EventKind, ReadError, first_record_of_segment_at, records};
use codegen_types::{ErrorCode, Failure, Principal};
use coordinator_core::quota::{OverQuota, Quotas, Standing, Usage, day_ms};
use parking_lot::Mutex;

use super::receipt::Charge;

/// Principals whose use is counted apart. Beyond that, those that are new share one account, and so one set of quotas:
/// whoever has many principals gets no more by having more still.
const ACCOUNTS_MAX: usize = 16_384;

/// What each principal uses today. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ledger {
    quotas: Quotas,
    accounts: Arc<Mutex<Accounts>>,
}

#[derive(Default)]
struct Accounts {
    of: HashMap<Principal, Usage>,
    others: Usage,
}

/// A place among the principal's running tasks; given back when dropped.
pub(super) struct Place {
    ledger: Ledger,
    /// Whose account it was counted in; none: the one that new principals share. It is given back there, whatever room
    /// there is for accounts by then.
    account: Option<Principal>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut accounts = self.ledger.accounts.lock();
        match &self.account {
            Some(principal) => accounts.account(principal, super::now_ms()).end(),
            None => accounts.others.end(),
        }
    }
}

impl Ledger {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self { quotas, accounts: Arc::default() }
    }

    /// Counts one more running task, unless a quota forbids it.
    pub(super) fn begin(&self, principal: &Principal) -> Result<Place, Failure> {
        let now_ms = super::now_ms();
        let mut accounts = self.accounts.lock();
        let begun = accounts.account(principal, now_ms).begin(&self.quotas, now_ms);
        // An account with a running task is not idle, and stays.
        let account = accounts.of.contains_key(principal).then(|| principal.clone());
        drop(accounts);
        begun.map_err(|over| refusal(over, now_ms))?;
        Ok(Place { ledger: self.clone(), account })
    }

    /// Adds what a task used that ended just now.
    pub(super) fn charge(&self, principal: &Principal, charge: &Charge) {
        self.charge_at(principal, charge, super::now_ms());
    }

    fn charge_at(&self, principal: &Principal, charge: &Charge, at_ms: i64) {
        let bytes = charge.bytes_in.saturating_add(charge.bytes_out);
        if (charge.cpu_ms, bytes) != (0, 0) {
            self.accounts.lock().account(principal, at_ms).charge(at_ms, charge.cpu_ms, bytes);
        }
    }

    /// What a principal with so many open sessions may use, uses and has used.
    pub(super) fn standing(&self, principal: &Principal, sessions: usize) -> Standing {
        let accounts = self.accounts.lock();
        let usage = accounts.of.get(principal).copied().unwrap_or_default();
        drop(accounts);
        usage.standing(&self.quotas, u32::try_from(sessions).unwrap_or(u32::MAX), super::now_ms())
    }

    /// Adds what the log in `dir` has of today, and nothing of days that the clock was ahead. A line that is none is passed
    /// over: the log's own check tells of it.
    pub(super) fn restore(&self, dir: &Path) -> Result<(), ReadError> {
        let (began_ms, ends_ms) = day_ms(super::now_ms());
        let time = |ms| jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let (began, ends) = (time(began_ms), time(ends_ms));
        for record in records(dir, first_record_of_segment_at(dir, began)?) {
            let record = match record {
                Ok(record) => record,
                Err(ReadError::Bad { .. }) => continue,
                Err(error @ ReadError::Io { .. }) => return Err(error),
            };
            let ended =
                matches!(record.kind, EventKind::TaskOutcome | EventKind::TaskUnknown | EventKind::TaskResolved);
            if let Some(principal) = record.principal.as_ref().filter(|_| ended && (began..ends).contains(&record.ts))
                && let Some(charge) = Charge::of(record.outcome, record.detail.as_ref())
            {
                self.charge_at(principal, &charge, record.ts.as_millisecond());
            }
        }
        Ok(())
    }
}

impl Accounts {
    fn account(&mut self, principal: &Principal, now_ms: i64) -> &mut Usage {
        if !self.of.contains_key(principal) {
            if self.of.len() >= ACCOUNTS_MAX {
                self.of.retain(|_, usage| !usage.is_idle(now_ms));
            }
            if self.of.len() >= ACCOUNTS_MAX {
                return &mut self.others;
            }
        }
        self.of.entry(principal.clone()).or_default()
    }
}

fn refusal(over: OverQuota, now_ms: i64) -> Failure {
    let failure = |message| Failure::new(ErrorCode::QuotaExceeded, message);
    let Some(until_ms) = over.until_ms() else { return failure(format!("{over}. Nothing was run")).retry_soon() };
    let until = jiff::Timestamp::from_millisecond(until_ms).map(|until| until.to_string()).unwrap_or_default();
    let wait = Duration::from_millis(u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or_default());
    failure(format!("{over}; the next day begins at {until}. Nothing was run")).retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(index: usize) -> Principal {
        Principal::os_user(&index.to_string())
    }

    #[test]
    fn one_principals_tasks_take_no_place_of_anothers_and_leave_theirs_when_they_end() {
        let ledger = Ledger::new(Quotas { tasks: Some(1), ..Quotas::default() });
        let place = ledger.begin(&principal(1)).ok();
        let refused = ledger.begin(&principal(1)).err().unwrap();
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::QuotaExceeded, Some(1_000)));
        assert!(refused.message.contains("task_wait"), "{refused}");
        assert!(place.is_some() && ledger.begin(&principal(2)).is_ok());
        drop(place);
        assert!(ledger.begin(&principal(1)).is_ok());
    }

    #[test]
    fn a_used_up_day_says_when_the_next_begins() {
        let ledger = Ledger::new(Quotas { cpu_ms_per_day: Some(10), ..Quotas::default() });
        ledger.charge(&principal(1), &Charge { cpu_ms: 10, ..Charge::default() });
        let refused = ledger.begin(&principal(1)).err().unwrap();
        assert!(
            refused.retry_after_ms.unwrap() <= 24 * 3600 * 1000 && refused.message.contains("T00:00:00Z"),
            "{refused}"
        );
        assert!(ledger.begin(&principal(2)).is_ok());
        assert_eq!(ledger.standing(&principal(2), 0).cpu_ms, 0);
    }

    #[test]
    fn principals_beyond_the_bound_share_one_account_and_take_no_memory() {
        let ledger = Ledger::new(Quotas { bytes_per_day: Some(10), ..Quotas::default() });
        let charge = Charge { bytes_in: 10, ..Charge::default() };
        for index in 0..ACCOUNTS_MAX + 100 {
            ledger.charge(&principal(index), &charge);
        }
        assert_eq!(ledger.accounts.lock().of.len(), ACCOUNTS_MAX);
        assert!(ledger.begin(&principal(ACCOUNTS_MAX + 200)).is_err());
    }

    #[test]
    fn a_place_is_given_back_where_it_was_counted() {
        let ledger = Ledger::new(Quotas { tasks: Some(1), ..Quotas::default() });
        let charge = Charge { bytes_in: 10, ..Charge::default() };
        for index in 0..ACCOUNTS_MAX {
            ledger.charge(&principal(index), &charge);
        }
        let place = ledger.begin(&principal(ACCOUNTS_MAX)).ok();
        assert!(place.is_some() && ledger.begin(&principal(ACCOUNTS_MAX + 1)).is_err(), "they share an account");
        ledger.accounts.lock().of.remove(&principal(0));
        drop(place);
        ledger.charge(&principal(0), &charge);
        assert!(ledger.begin(&principal(ACCOUNTS_MAX + 1)).is_ok());
    }
}
