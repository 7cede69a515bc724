//! Every id is its own type, so that one can never be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {expected}")]
pub struct InvalidId {
    kind: &'static str,
    expected: &'static str,
}

/// An id made of a prefix that names its kind and the 32 hexadecimal digits of a UUID.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// The id with these 128 bits; for tests and for ids that are derived rather than minted.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId {
                    kind: stringify!($name),
                    expected: concat!("`", $prefix, "` and 32 lower-case hexadecimal digits"),
                };
                let Some(digits) = text.strip_prefix($prefix) else { return Err(invalid) };
                let canonical = digits.len() == 32
                    && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                match Uuid::try_parse(digits) {
                    Ok(uuid) if canonical => Ok(Self(uuid)),
                    _ => Err(invalid),
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}

uuid_id! {
    /// The handle of a session: 122 random bits, so that it cannot be guessed.
    SessionId, "ses_"
}
uuid_id! {
    /// One tool call that acts. Ordered by time of creation (UUID version 7).
    TaskId, "tsk_"
}
uuid_id! {
    /// One life of a worker process, minted by it once at its start.
    Incarnation, "inc_"
}

uuid_id! {
    /// A request for somebody's approval of a call: 122 random bits, so that it cannot be guessed.
    ApprovalId, "apr_"
}

impl ApprovalId {
    /// A new id from the operating system's random source.
    pub fn mint() -> Self {
        Self(Uuid::new_v4())
    }
}

impl SessionId {
    /// A new handle from the operating system's random source.
    pub fn mint() -> Self {
        Self(Uuid::new_v4())
    }
}

impl TaskId {
    /// A new id that sorts after every id minted earlier on this machine.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Incarnation {
    /// A new incarnation from the operating system's random source.
    pub fn mint() -> Self {
        Self(Uuid::new_v4())
    }
}

/// The name of a worker, chosen by its operator: 1 to 128 letters, digits, `.`, `_` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkerId(String);

impl WorkerId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId { kind: "WorkerId", expected: "1 to 128 letters, digits, `.`, `_` or `-`" })
        }
    }
}

impl From<WorkerId> for String {
    fn from(id: WorkerId) -> String {
        id.0
    }
}

impl TryFrom<String> for WorkerId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

/// Counts the assignments of one session; the fence against a worker that held it earlier.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the assignment after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Who holds a session: one life of one worker, by one assignment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The worker that holds the session.
    pub worker: WorkerId,
    /// The life of that worker to which it was assigned.
    pub incarnation: Incarnation,
    /// Which assignment of the session this is.
    pub epoch: Epoch,
}

/// The place of a record in the audit log, counted from 1 and never reused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogSeq(pub u64);

impl fmt::Display for LogSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = SessionId::mint();
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn an_id_of_another_kind_or_spelling_is_refused() {
        let task = TaskId::mint().to_string();
        assert!(task.parse::<SessionId>().is_err());
        assert!(task.to_uppercase().parse::<TaskId>().is_err());
        assert!("tsk_".parse::<TaskId>().is_err());
    }

    #[test]
    fn a_worker_name_is_a_plain_word() {
        assert!("worker-1.eu_west".parse::<WorkerId>().is_ok());
        for bad in ["", "a b", "a/b", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad:?}");
        }
    }
}
