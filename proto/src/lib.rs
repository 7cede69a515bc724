//! The wire between coordinator and worker: generated types, conversion to and from the domain's words, and the mapping
//! of error codes to gRPC status.
//!
//! Owner of package `codegen.v1`. Wire to domain is fallible: whatever arrives is hostile until it converted.
//!
//! *Invariant*: no I/O and no decision; no other crate builds or reads a wire message by hand.

/// Generated from `codegen/v1/*.proto`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("codegen.v1");
}
