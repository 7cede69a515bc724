//! What the programs claim, read into bounded types.

use std::fmt::{self, Display};

use serde::{Deserialize, Deserializer, Serialize};

/// The longest report that is read, in bytes.
pub(super) const REPORT_BYTES_MAX: usize = 1 << 20;

/// A text of at most `MAX` characters without control characters but the line feed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Short<const MAX: usize>(String);

impl<'de, const MAX: usize> Deserialize<'de> for Short<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
        Ok(Self(text.chars().take(MAX).map(plain).collect()))
    }
}

impl<const MAX: usize> Display for Short<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Short<MAX> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A run of tests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Tests {
    pub(super) runner: Short<40>,
    pub(super) version: Short<40>,
    pub(super) state: State,
    pub(super) duration_ms: u64,
    pub(super) counts: Counts,
    pub(super) note: Option<Short<500>>,
    pub(super) failures: Vec<Failed>,
}

/// How far a run of tests came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It said no more since.
    Started,
    /// It ended by itself.
    Finished,
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) errors: u32,
    pub(super) skipped: u32,
    pub(super) xfailed: u32,
    pub(super) xpassed: u32,
}

/// A test that failed, or could not be run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    pub(super) test: Short<500>,
    pub(super) file: Option<Short<500>>,
    pub(super) line: Option<u32>,
    pub(super) message: Short<2000>,
}

/// Whether a test failed or something around it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Failed,
    Errors,
}

/// What a linter found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Lint {
    pub(super) linter: Short<40>,
    pub(super) version: Short<40>,
    /// How many files were looked at, when the linter says so.
    pub(super) files: Option<u32>,
    /// All findings, those that are not listed included.
    pub(super) found: u32,
    pub(super) findings: Vec<Finding>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Finding {
    pub(super) file: Short<500>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
    pub(super) code: Short<60>,
    pub(super) message: Short<500>,
}
