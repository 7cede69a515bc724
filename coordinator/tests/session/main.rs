//! The session layer held to its promises, on real stores and the real log, against a fleet that is a double.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod approvals;
mod calls;
mod creation;
mod faults;
mod following;
mod lifecycle;
mod quotas;
mod reach;
mod recovery;
mod restart;
mod retention;
mod returns;
mod rig;
mod sharing;
