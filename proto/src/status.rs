//! Failures as gRPC statuses.
//!
//! Each error code has one gRPC code, so that tools which know only gRPC see something sensible; the exact code goes
//! along in the metadata key [`ERROR_CODE_KEY`]. A status without that key was not written by our peer's services but by
//! a transport, a proxy or the link's own end: [`to_failure`] says what becomes of it.

use codegen_types::{ErrorCode, Failure};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::field::cut;
use crate::invalid::InvalidMessage;

/// The metadata key that carries the exact error code.
pub const ERROR_CODE_KEY: &str = "codegen-error-code";

/// The gRPC code of an error code.
pub const fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::PathViolation => Code::InvalidArgument,
        ErrorCode::NotFound | ErrorCode::SessionNotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::NotAFile
        | ErrorCode::NotADirectory
        | ErrorCode::PreconditionFailed
        | ErrorCode::SessionClosed
        | ErrorCode::NoWorkerFits
        | ErrorCode::IsolationUnavailable
        | ErrorCode::ApprovalRequired => Code::FailedPrecondition,
        ErrorCode::SessionLost => Code::DataLoss,
        ErrorCode::FileTooLarge
        | ErrorCode::SessionLimit
        | ErrorCode::NoCapacity
        | ErrorCode::OutputLimit
        | ErrorCode::MemoryLimit
        | ErrorCode::ProcessLimit
        | ErrorCode::DiskLimit
        | ErrorCode::RateLimited
        | ErrorCode::QuotaExceeded => Code::ResourceExhausted,
        ErrorCode::WorkerUnavailable | ErrorCode::AuditUnavailable => Code::Unavailable,
        ErrorCode::TaskTimeout => Code::DeadlineExceeded,
        ErrorCode::TaskCancelled => Code::Cancelled,
        ErrorCode::TaskOutcomeUnknown => Code::Unknown,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::Internal => Code::Internal,
    }
}

/// The status that tells the other side of a failure. A message too long for a header is cut.
pub fn from_failure(failure: Failure) -> Status {
    let mut status = Status::new(grpc_code(failure.code), cut(failure.message));
    status.metadata_mut().insert(ERROR_CODE_KEY, MetadataValue::from_static(failure.code.as_str()));
    status
}

/// The status of a message that cannot be taken.
pub fn from_invalid(invalid: InvalidMessage) -> Status {
    from_failure(invalid.into())
}

/// Converts a message that arrived, or answers with the status that refuses it.
///
/// # Errors
/// The status of [`from_invalid`].
pub fn accept<W, T: TryFrom<W, Error = InvalidMessage>>(wire: W) -> Result<T, Status> {
    T::try_from(wire).map_err(from_invalid)
}

/// The failure that a status tells of.
///
/// With a known code under [`ERROR_CODE_KEY`] it is that code with the peer's message, cut to its bound. Without one the
/// rule is: gRPC codes that a broken, stalled or refused connection gives (`Unavailable`, `Unknown`, `Cancelled`,
/// `DeadlineExceeded`, `Aborted`, `Internal`, `ResourceExhausted`) are `WORKER_UNAVAILABLE`; every other one means that
/// the two sides do not speak the same protocol and is `INTERNAL`. The peer's message is then left out, since nobody
/// wrote it for a client; the caller logs the status.
pub fn to_failure(status: &Status) -> Failure {
    match stated_code(status) {
        Some(code) => Failure::new(code, cut(status.message().to_owned())),
        None if is_transport(status.code()) => {
            Failure::new(ErrorCode::WorkerUnavailable, "the worker cannot be reached just now; try again")
        }
        None => Failure::new(
            ErrorCode::Internal,
            format!(
                "coordinator and worker do not understand each other ({:?}); see the operator's log",
                status.code()
            ),
        ),
    }
}

/// The error code that the peer stated, if it stated one of ours.
pub fn stated_code(status: &Status) -> Option<ErrorCode> {
    status.metadata().get(ERROR_CODE_KEY)?.to_str().ok()?.parse().ok()
}

const fn is_transport(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::ResourceExhausted => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}
