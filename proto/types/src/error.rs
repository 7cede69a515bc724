//! The stable error codes, one vocabulary for MCP, gRPC and the log.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What went wrong, in a word that never changes its meaning. Each code has a page in the documentation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as clients and records see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    /// An argument is missing, of the wrong type, unknown or out of range.
    InvalidArgument = "INVALID_ARGUMENT",
    /// A path could leave the workspace, or reaches something that is no plain file.
    PathViolation = "PATH_VIOLATION",
    /// There is no such file.
    NotFound = "NOT_FOUND",
    /// A file was needed and something else is there.
    NotAFile = "NOT_A_FILE",
    /// A directory was needed and something else is there.
    NotADirectory = "NOT_A_DIRECTORY",
    /// Something is already there.
    AlreadyExists = "ALREADY_EXISTS",
    /// The file is larger than the limit.
    FileTooLarge = "FILE_TOO_LARGE",
    /// The file is not the version that `if_match` names.
    PreconditionFailed = "PRECONDITION_FAILED",
    /// No session of this principal has that handle.
    SessionNotFound = "SESSION_NOT_FOUND",
    /// The session was closed for good.
    SessionClosed = "SESSION_CLOSED",
    /// The session's worker is gone, and its files with it.
    SessionLost = "SESSION_LOST",
    /// The principal or the server has as many sessions as it may.
    SessionLimit = "SESSION_LIMIT",
    /// No worker has room just now.
    NoCapacity = "NO_CAPACITY",
    /// No worker that is there can do what was asked for, whatever room it has; waiting does not help.
    NoWorkerFits = "NO_WORKER_FITS",
    /// The session's worker cannot be reached just now.
    WorkerUnavailable = "WORKER_UNAVAILABLE",
    /// The isolation asked for is not to be had; nothing was run.
    IsolationUnavailable = "ISOLATION_UNAVAILABLE",
    /// The task ran longer than it may and was ended.
    TaskTimeout = "TASK_TIMEOUT",
    /// The task was cancelled and was ended.
    TaskCancelled = "TASK_CANCELLED",
    /// The task was sent to a worker, and how it ended cannot be known.
    TaskOutcomeUnknown = "TASK_OUTCOME_UNKNOWN",
    /// The task wrote more output than it may and was ended.
    OutputLimit = "OUTPUT_LIMIT",
    /// The session used more memory than it may; the task was ended.
    MemoryLimit = "MEMORY_LIMIT",
    /// The session has as many processes as it may.
    ProcessLimit = "PROCESS_LIMIT",
    /// The workspace holds more bytes than it may.
    DiskLimit = "DISK_LIMIT",
    /// The caller did not say who it is.
    Unauthenticated = "UNAUTHENTICATED",
    /// The caller may not do this.
    PermissionDenied = "PERMISSION_DENIED",
    /// Too many calls in too short a time.
    RateLimited = "RATE_LIMITED",
    /// A quota is used up.
    QuotaExceeded = "QUOTA_EXCEEDED",
    /// The call waits for an approval.
    ApprovalRequired = "APPROVAL_REQUIRED",
    /// The audit log cannot be written, so nothing is done.
    AuditUnavailable = "AUDIT_UNAVAILABLE",
    /// A fault of ours.
    Internal = "INTERNAL",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code")]
pub struct InvalidErrorCode;

impl FromStr for ErrorCode {
    type Err = InvalidErrorCode;

    fn from_str(text: &str) -> Result<Self, InvalidErrorCode> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(InvalidErrorCode)
    }
}

/// A refusal or failure as the client may read it: the code, and a sentence that says what to do.
///
/// Nothing in it is for the operator alone; causes are logged where they are handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// What went wrong.
    pub code: ErrorCode,
    /// What happened and what to do next, in a sentence for the client.
    pub message: String,
    /// After how many milliseconds the same may be asked again, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// The same failure, which need not happen again after so long.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        // Rounded up, so that whoever waits so long has waited long enough.
        let millis = wait.as_nanos().div_ceil(1_000_000);
        Self { retry_after_ms: Some(u64::try_from(millis).unwrap_or(u64::MAX)), ..self }
    }

    /// The same failure, which is over once a call ends: nobody knows when, and most are short.
    #[must_use]
    pub fn retry_soon(self) -> Self {
        self.retry_after(Duration::from_secs(1))
    }

    /// The same failure, which is over once a connection or a stream ends: they last longer than calls do.
    #[must_use]
    pub fn retry_later(self) -> Self {
        self.retry_after(Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_as_it_is_written() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(serde_json::to_value(code).ok(), Some(code.as_str().into()));
        }
    }
}
