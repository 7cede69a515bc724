//! Pure decisions of the coordinator: state machines of sessions, workers and tasks, and placement.
//!
//! *Invariant*: functions of (state, input, now) that return data. No tokio, no clock, no I/O, no locks.

pub mod placement;
