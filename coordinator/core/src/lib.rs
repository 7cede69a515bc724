//! Pure decisions of the coordinator: state machines of sessions, workers and tasks, placement, retention,
//! quotas, idempotency, policy, and what an archive may hold.
//!
//! Owner of what may happen next; the coordinator carries it out.
//!
//! *Invariant*: functions of (state, input, now) that return data. No tokio, no clock, no I/O, no locks.

pub mod egress;
pub mod idempotency;
pub mod network;
pub mod placement;
pub mod policy;
pub mod quota;
pub mod release;
pub mod retention;
pub mod scaling;
pub mod session;
pub mod task;
pub mod unpacking;
pub mod worker;
