//! Pure decisions of the coordinator: state machines of sessions, workers and tasks, and placement.
//!
//! Owner of what may happen next; the coordinator carries it out.
//!
//! *Invariant*: functions of (state, input, now) that return data. No tokio, no clock, no I/O, no locks.

pub mod placement;
pub mod worker;
