//! Why a message that arrived is none of ours.

use codegen_types::ids::InvalidId;
use codegen_types::path::InvalidPath;
use codegen_types::{ErrorCode, Failure};

/// Why a message cannot be taken. `field` is `Message.field` as in the `.proto` files; nothing of the message's contents
/// is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// A field that must be there is not.
    #[error("`{field}` is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A field holds more than it may.
    #[error("`{field}` is too large: {size}, at most {max}")]
    TooLarge {
        /// Which.
        field: &'static str,
        /// Its bytes or items.
        size: usize,
        /// How many it may have.
        max: usize,
    },
    /// A field holds a word outside its vocabulary.
    #[error("`{field}` holds an unknown word")]
    UnknownWord {
        /// Which.
        field: &'static str,
    },
    /// A field is well typed and still makes no sense.
    #[error("`{field}` must be {expected}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// What is allowed.
        expected: &'static str,
    },
    /// A field is no id of its kind.
    #[error("`{field}` is no id of its kind")]
    Id {
        /// Which.
        field: &'static str,
        /// Why.
        source: InvalidId,
    },
    /// A field is no path inside a workspace.
    #[error("`{field}` is no path inside a workspace")]
    Path {
        /// Which.
        field: &'static str,
        /// Why.
        source: InvalidPath,
    },
}

impl From<InvalidMessage> for Failure {
    fn from(invalid: InvalidMessage) -> Self {
        match &invalid {
            InvalidMessage::Path { source, .. } => {
                let code = match source {
                    InvalidPath::Absolute | InvalidPath::ParentComponent | InvalidPath::Nul => ErrorCode::PathViolation,
                    InvalidPath::TooLong | InvalidPath::ComponentTooLong | InvalidPath::TooDeep => {
                        ErrorCode::InvalidArgument
                    }
                };
                Self::new(code, format!("{invalid}: {source}"))
            }
            InvalidMessage::Id { source, .. } => Self::new(ErrorCode::InvalidArgument, format!("{invalid}: {source}")),
            InvalidMessage::Missing { .. }
            | InvalidMessage::TooLarge { .. }
            | InvalidMessage::UnknownWord { .. }
            | InvalidMessage::OutOfRange { .. } => Self::new(ErrorCode::InvalidArgument, invalid.to_string()),
        }
    }
}
