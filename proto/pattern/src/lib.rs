//! Looking for regular expressions in lines that somebody hostile may have written, with a pattern that somebody hostile
//! may have written.
//!
//! Owner of what a pattern may cost: `fs_search` in the worker and `task_logs` in the coordinator match with nothing else.
//!
//! *Invariant*: no I/O, no tokio. Nothing here runs longer than the [`Patience`] of whoever asks, but for a millisecond.

mod patience;
mod pattern;

pub use patience::{Ended, Patience, Patient};
pub use pattern::{Pattern, Refused, Wanted};
