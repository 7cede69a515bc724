//! Which releases of worker and coordinator work together.

use std::fmt;
use std::str::FromStr;

/// A release, as `major.minor.patch`; what follows a `-` or `+` does not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

/// A text that is no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a release is written as `major.minor.patch`")]
pub struct InvalidRelease;

impl Release {
    /// Whether a worker of the other release may join: the same, or one minor release older or newer.
    pub const fn works_with(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

impl FromStr for Release {
    type Err = InvalidRelease;

    fn from_str(text: &str) -> Result<Self, InvalidRelease> {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = core.split('.').map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse().map_err(|_| InvalidRelease) } else { Err(InvalidRelease) }
        });
        let mut next = || parts.next().ok_or(InvalidRelease)?;
        let release = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(InvalidRelease) } else { Ok(release) }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        text.parse().unwrap()
    }

    #[test]
    fn one_minor_release_apart_works_and_two_do_not() {
        let ours = release("1.4.2");
        for other in ["1.4.2", "1.3.0", "1.5.99", "1.4.0-rc.1", "1.5.0+build"] {
            assert!(ours.works_with(release(other)) && release(other).works_with(ours), "{other}");
        }
        for other in ["1.2.9", "1.6.0", "0.4.2", "2.4.2"] {
            assert!(!ours.works_with(release(other)), "{other}");
        }
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "+1.2.3", "1.+2.3", "1..3", "99999999999.0.0", "\u{661}.0.0"] {
            assert_eq!(text.parse::<Release>(), Err(InvalidRelease), "{text}");
        }
    }
}
