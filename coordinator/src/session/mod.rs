//! Sessions: one owner task each, a table of published snapshots, the reaper.

mod call;
mod capture;

pub use call::{Captured, Completed, CreateSession, SessionSnapshot, TaskCall, TaskOutcome, UpdateSession};
