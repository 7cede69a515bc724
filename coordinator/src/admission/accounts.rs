//! What is remembered of each principal: how often it called lately.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, Failure, Principal};
use governor::DefaultDirectRateLimiter;
use governor::clock::{Clock as _, DefaultClock};
use parking_lot::{Mutex, RwLock};

use super::Door;
use super::rate::{Rate, Rates};
use crate::refusals::{Refusals, Verdict};

/// Principals that are remembered at once. Beyond that those are forgotten that called least lately, so that whoever
/// has many principals takes no memory; a forgotten one begins anew with a full burst.
const ACCOUNTS_MAX: usize = 16_384;
/// One of so many accounts is forgotten when there is no room, so that making room costs little for each call.
const FORGOTTEN_SHARE: usize = 8;

/// The accounts of all principals that called lately.
pub(super) struct Accounts {
    rates: Rates,
    /// Calls so far, which orders them without a clock.
    calls: AtomicU64,
    began: Instant,
    accounts_max: usize,
    accounts: RwLock<HashMap<Principal, Arc<Account>>>,
}

/// What is remembered of one principal.
#[derive(Debug)]
pub(super) struct Account {
    http: Option<Limiter>,
    stdio: Option<Limiter>,
    tools: BTreeMap<&'static str, Limiter>,
    refusals: Mutex<Refusals>,
    /// Which call of all was its latest.
    latest_call: AtomicU64,
}

#[derive(Debug)]
struct Limiter {
    rate: Rate,
    limiter: DefaultDirectRateLimiter,
}

impl Accounts {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            rates,
            calls: AtomicU64::new(0),
            began: Instant::now(),
            accounts_max: ACCOUNTS_MAX,
            accounts: RwLock::default(),
        }
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The principal's account, which is as good as new when it was not there.
    pub(super) fn of(&self, principal: &Principal) -> Arc<Account> {
        let known = self.accounts.read().get(principal).map(Arc::clone);
        let account = known.unwrap_or_else(|| self.open(principal));
        account.latest_call.store(self.calls.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        account
    }

    /// What becomes of the record of one more call that was refused for coming too often.
    pub(super) fn record_refusal(&self, principal: &Principal) -> Verdict {
        self.of(principal).refusals.lock().count(self.began.elapsed())
    }

    fn open(&self, principal: &Principal) -> Arc<Account> {
        let mut accounts = self.accounts.write();
        if accounts.len() >= self.accounts_max && !accounts.contains_key(principal) {
            forget_idlest(&mut accounts);
        }
        Arc::clone(accounts.entry(principal.clone()).or_insert_with(|| Arc::new(Account::new(&self.rates))))
    }
}

/// Makes room. An account that a call holds stays, since what it counts is not over; there are as many of those as calls.
fn forget_idlest(accounts: &mut HashMap<Principal, Arc<Account>>) {
    let latest_call = |account: &Arc<Account>| account.latest_call.load(Ordering::Relaxed);
    let mut latest: Vec<u64> = accounts.values().map(latest_call).collect();
    let share = latest.len() / FORGOTTEN_SHARE;
    let (_, forgotten_until, _) = latest.select_nth_unstable(share);
    accounts.retain(|_, account| Arc::strong_count(account) > 1 || latest_call(account) > *forgotten_until);
}

impl Account {
    fn new(rates: &Rates) -> Self {
        let tools = rates.tools.iter().map(|(tool, rate)| (*tool, Limiter::new(*rate))).collect();
        Self {
            http: rates.http.map(Limiter::new),
            stdio: rates.stdio.map(Limiter::new),
            tools,
            refusals: Mutex::default(),
            latest_call: AtomicU64::default(),
        }
    }

    /// Counts one more call, unless it is one too many.
    pub(super) fn check(&self, door: Door, tool: &'static str) -> Result<(), Failure> {
        let overall = match door {
            Door::Http => &self.http,
            Door::Stdio => &self.stdio,
        };
        // The tool's own rate comes first: what it refuses does not count against other tools.
        if let Some(limiter) = self.tools.get(tool) {
            limiter.check().map_err(|wait| too_many(&format!("calls of {tool}"), limiter.rate, wait))?;
        }
        match overall {
            Some(limiter) => limiter.check().map_err(|wait| too_many("calls", limiter.rate, wait)),
            None => Ok(()),
        }
    }
}

impl Limiter {
    fn new(rate: Rate) -> Self {
        Self { rate, limiter: DefaultDirectRateLimiter::direct(rate.quota()) }
    }

    /// Counts one more, or says after how long it may come.
    fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

fn too_many(what: &str, rate: Rate, wait: Duration) -> Failure {
    let seconds = wait.as_millis().div_ceil(100).max(1);
    let (whole, tenth) = (seconds / 10, seconds % 10);
    let message = format!("too many {what}: {rate} are let in; the next one in {whole}.{tenth} s. Nothing was done");
    Failure::new(ErrorCode::RateLimited, message).retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(http: &str, tools: &[(&'static str, &str)]) -> Accounts {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        let tools = tools.iter().map(|(tool, text)| (*tool, rate(text))).collect();
        Accounts::new(Rates { http: Some(rate(http)), stdio: None, tools })
    }

    #[test]
    fn a_tools_own_rate_leaves_other_tools_alone() {
        let accounts = accounts("1/h burst 4", &[("echo", "1/h burst 2")]);
        let account = accounts.of(&Principal::os_user("ann"));
        let check = |tool| account.check(Door::Http, tool).map_err(|failure| failure.message);
        assert_eq!((check("echo"), check("echo")), (Ok(()), Ok(())));
        assert!((0..5).all(|_| check("echo").unwrap_err().contains("calls of echo")));
        assert_eq!((check("fs_read"), check("fs_read")), (Ok(()), Ok(())));
        assert!(check("fs_read").unwrap_err().starts_with("too many calls: 1/h burst 4"));
        assert_eq!(account.check(Door::Stdio, "fs_read"), Ok(()));
    }

    #[test]
    fn a_refusal_says_after_how_long_to_try_again() {
        let accounts = accounts("1/m burst 1", &[]);
        let account = accounts.of(&Principal::os_user("ann"));
        assert_eq!(account.check(Door::Http, "echo"), Ok(()));
        let failure = account.check(Door::Http, "echo").unwrap_err();
        assert!((59_000..=60_000).contains(&failure.retry_after_ms.unwrap()), "{failure:?}");
    }

    #[test]
    fn many_principals_take_a_bounded_room_and_whoever_is_in_a_call_is_kept() {
        let accounts = Accounts { accounts_max: 64, ..accounts("1/h burst 1", &[]) };
        let busy = Principal::os_user("busy");
        let held = accounts.of(&busy);
        assert_eq!(held.check(Door::Http, "echo"), Ok(()));
        for index in 0..1_000 {
            accounts.of(&Principal::os_user(&index.to_string()));
            assert!(accounts.accounts.read().len() <= 64);
        }
        assert!(accounts.of(&busy).check(Door::Http, "echo").is_err());
    }
}
