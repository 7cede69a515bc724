//! Which sessions were made, so that somebody has their handle.

use super::{CloseReason, Purpose, SessionState};

impl SessionState {
    /// Whether the session was made: it is, or was, ready. Nobody has the handle of another.
    pub const fn was_made(&self) -> bool {
        match self {
            Self::Opening { purpose: Purpose::First, .. }
            | Self::Closing { reason: CloseReason::OpenFailed, .. }
            | Self::Closed { reason: CloseReason::OpenFailed, .. } => false,
            Self::Opening { purpose: Purpose::Again, .. }
            | Self::Ready { .. }
            | Self::Suspended { .. }
            | Self::Lost { .. }
            | Self::Closing { reason: CloseReason::Requested | CloseReason::Expired, .. }
            | Self::Closed { reason: CloseReason::Requested | CloseReason::Expired, .. } => true,
        }
    }
}
