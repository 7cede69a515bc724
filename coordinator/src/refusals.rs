//! How many refused registrations and authentications are recorded: enough to see an attack, too few to be one on the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::room::network_of;

/// Recorded refusals in one window.
const RECORDED_MAX: u32 = 10;
/// The length of a window.
const WINDOW: Duration = Duration::from_secs(10);

/// Addresses whose refusals are counted apart.
const ADDRESSES_MAX: usize = 256;

/// Counts refusals in windows of ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    window_began: Duration,
    recorded: u32,
    suppressed: u64,
}

/// Counts refusals of each address apart, so that a flood from one hides nothing that others try.
#[derive(Debug, Default)]
pub(crate) struct RefusalsByAddress {
    of_each: HashMap<Option<IpAddr>, Refusals>,
}

impl RefusalsByAddress {
    /// Counts one; without an address it came from this machine.
    pub(crate) fn count(&mut self, address: Option<IpAddr>, now: Duration) -> Verdict {
        let address = address.map(network_of);
        if self.of_each.len() >= ADDRESSES_MAX && !self.of_each.contains_key(&address) {
            self.of_each.retain(|_, refusals| now.saturating_sub(refusals.window_began) < WINDOW);
        }
        // So many addresses within one window are one flood, and are counted as one.
        let address = if self.of_each.len() < ADDRESSES_MAX { address } else { None };
        self.of_each.entry(address).or_default().count(now)
    }
}

/// What becomes of one refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is recorded, with the number of those before it that were not.
    Record {
        /// How many.
        suppressed: u64,
    },
    /// It is only counted, and the peer is told to slow down.
    Suppress,
}

impl Refusals {
    pub(crate) fn count(&mut self, now: Duration) -> Verdict {
        if now.saturating_sub(self.window_began) >= WINDOW {
            (self.window_began, self.recorded) = (now, 0);
        }
        if self.recorded == RECORDED_MAX {
            self.suppressed += 1;
            return Verdict::Suppress;
        }
        self.recorded += 1;
        Verdict::Record { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_one_address_hides_nothing_that_others_try() {
        let (mut refusals, now) = (RefusalsByAddress::default(), Duration::from_secs(100));
        let [near, beside, other] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| Some(text.parse::<IpAddr>().unwrap()));
        while refusals.count(near, now) != Verdict::Suppress {}
        assert_eq!(refusals.count(beside, now), Verdict::Suppress, "it is of the same network");
        assert_eq!(refusals.count(other, now), Verdict::Record { suppressed: 0 });
        for number in 0..100_000_u32 {
            refusals.count(Some(IpAddr::from(number.to_be_bytes())), now);
        }
        assert!(refusals.of_each.len() <= ADDRESSES_MAX + 1);
    }

    #[test]
    fn a_flood_is_recorded_in_part_and_counted_in_full() {
        let mut refusals = Refusals::default();
        let start = Duration::from_secs(100);
        let verdicts: Vec<Verdict> = (0..50).map(|_| refusals.count(start)).collect();
        let recorded = verdicts.iter().filter(|verdict| **verdict != Verdict::Suppress).count();
        assert_eq!(recorded, RECORDED_MAX as usize);
        assert_eq!(refusals.count(start + WINDOW), Verdict::Record { suppressed: 40 });
        assert_eq!(refusals.count(start + WINDOW), Verdict::Record { suppressed: 0 });
    }
}
