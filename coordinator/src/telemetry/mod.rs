//! What operators see of the running server, in numbers.
//!
//! *Invariant*: nothing that a client or session code chose is a label, so that nobody makes series at will.

mod metrics;

pub use metrics::{Metrics, Moment, Now};
pub(crate) use metrics::{call_ended, task_queued, task_ran};
