//! Sessions: one owner task each, a table of published snapshots, the reaper.

mod call;

pub use call::{Captured, Completed, CreateSession, SessionSnapshot, TaskCall, TaskOutcome, UpdateSession};
