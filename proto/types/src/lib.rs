//! The words that coordinator and worker share: ids, operations, output, limits, isolation, events, error codes and
//! the principal.
//!
//! Owner of the vocabulary; every other crate speaks it, the wire format is converted to it in `codegen-proto`.
//!
//! *Invariant*: plain data. No I/O, no tokio, no clock, no wire format; nothing here decides anything but whether a
//! value is well formed.

pub mod address;
pub mod base64_bytes;
pub mod egress;
pub mod error;
pub mod event;
pub mod ids;
pub mod isolation;
pub mod limits;
pub mod operation;
pub mod packages;
pub mod path;
pub mod principal;
pub mod terminal;
pub mod trace;
pub mod worker;

pub use address::Reach;
pub use egress::{Contact, ContactOutcome, HostPattern, SessionNetwork};
pub use error::{ErrorCode, Failure};
pub use event::{Display, Event, EventBody, Exit, OperationResult, OutputStream, Package, ResourceUse};
pub use ids::{ApprovalId, Epoch, Incarnation, Lease, LogSeq, SessionId, TaskId, WorkerId};
pub use isolation::{IsolationLevel, IsolationReport, Layer, LayerReport, LayerState};
pub use limits::Limits;
pub use operation::{Exec, KernelName, Network, Operation, Program};
pub use packages::{IndexUrl, PackageAccess, Requirement};
pub use path::WorkspacePath;
pub use principal::{InvalidPrincipal, Principal};
pub use trace::TraceContext;
pub use worker::{Capabilities, HeldSession, HostUse, Resources, Runtime};
