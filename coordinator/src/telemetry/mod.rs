//! What operators see of the running server: numbers, and traces of single calls.
//!
//! *Invariant*: nothing that a client or session code chose is a label, so that nobody makes series at will.

mod metrics;
pub mod traces;

pub use metrics::{Metrics, Moment, Now};
pub(crate) use metrics::{call_ended, calls_ended, task_queued, task_ran};
