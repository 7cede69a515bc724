//! How often something may happen: `50/s burst 200`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use governor::Quota;

use super::Door;

/// The most calls that a rate may name.
const CALLS_MAX: u32 = 1_000_000;

/// So many calls in a second, a minute or an hour, and so many at once before that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    calls: NonZeroU32,
    per: Per,
    burst: NonZeroU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
}

/// Which rates hold where. Whatever has none is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Of one principal's calls over HTTP, all tools together.
    pub http: Option<Rate>,
    /// Of one principal's calls over stdio, all tools together.
    pub stdio: Option<Rate>,
    /// Of one principal's calls of one tool, by whichever way; by the tool's name with an underscore.
    pub tools: BTreeMap<&'static str, Rate>,
}

impl Rates {
    /// Of one principal's calls by this way, all tools together.
    pub fn of(&self, door: Door) -> Option<Rate> {
        match door {
            Door::Http => self.http,
            Door::Stdio => self.stdio,
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        let http = Rate { calls: nonzero(50), per: Per::Second, burst: nonzero(200) };
        Self { http: Some(http), stdio: None, tools: BTreeMap::new() }
    }
}

impl Rate {
    /// The same for the limiter.
    pub(super) fn quota(self) -> Quota {
        let length = match self.per {
            Per::Second => Duration::from_secs(1),
            Per::Minute => Duration::from_secs(60),
            Per::Hour => Duration::from_secs(3600),
        };
        let quota = Quota::with_period(length / self.calls.get()).expect("a million calls in a second are possible");
        quota.allow_burst(self.burst)
    }
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no rate: a rate is written `50/s`, `100/m` or `1000/h`, or `50/s burst 200`, with numbers from 1 to {CALLS_MAX}"
)]
pub struct InvalidRate;

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (rate, burst) = text.split_once(" burst ").map_or((text, None), |(rate, burst)| (rate, Some(burst)));
        let (calls, per) = rate.trim().split_once('/').ok_or(InvalidRate)?;
        let per = match per {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(InvalidRate),
        };
        let calls = number(calls)?;
        let burst = burst.map_or(Ok(calls), |burst| number(burst.trim()))?;
        Ok(Self { calls, per, burst })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
        };
        write!(f, "{}/{per} burst {}", self.calls, self.burst)
    }
}

fn number(text: &str) -> Result<NonZeroU32, InvalidRate> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number: &u32| digits && *number <= CALLS_MAX);
    number.and_then(NonZeroU32::new).ok_or(InvalidRate)
}

fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_back_as_it_is_written() {
        for text in ["50/s burst 200", "1/h burst 1", "1000000/m burst 7"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
            let _possible = rate.quota();
        }
        assert_eq!("50/s".parse::<Rate>().unwrap().to_string(), "50/s burst 50");
        for bad in ["", "50", "50/d", "0/s", "/s", "-1/s", "+1/s", "1/s burst", "1/s burst 0", "1000001/s", "1.5/s"] {
            assert_eq!(bad.parse::<Rate>(), Err(InvalidRate), "{bad}");
        }
    }
}
