//! The wire between coordinator and worker: generated types, conversion to and from the domain's words, and the mapping
//! of error codes to gRPC status.
//!
//! Owner of package `codegen.v1`. Wire to domain is fallible: whatever arrives is hostile until it converted. Texts of
//! closed vocabularies that are not known are refused, and every text, list and blob has a bound ([`bounds`]). Domain to
//! wire is infallible; a message for people that is too long is cut.
//!
//! *Invariant*: no I/O and no decision; no other crate builds or reads a wire message by hand.

/// Generated from `codegen/v1/*.proto`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("codegen.v1");
}

/// What the services and messages of `codegen.v1` are, for gRPC reflection: an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod bounds;
mod egress;
mod event;
mod field;
mod found;
mod invalid;
mod isolation;
mod lifecycle;
pub mod metadata;
mod operation;
mod program;
mod result;
mod secret;
mod session;
pub mod status;
mod task;

pub use egress::{Egress, EgressHost, EgressSecret};
pub use invalid::InvalidMessage;
pub use lifecycle::{DeregisterWorker, Heartbeat, HeartbeatAnswer, RegisterWorker, Registered};
pub use secret::Secret;
pub use session::{CloseSession, OpenSession, SessionClosed, SessionOpened};
pub use task::{AttachTask, CancelAnswer, CancelTask, ExecuteTask};
