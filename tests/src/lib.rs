//! The harness of the end-to-end suites: launches the built `coordinator` as an MCP client does, on a state directory
//! of its own, and speaks newline-delimited JSON-RPC with it.
//!
//! *Invariant*: it knows the product only from outside: its command line, its protocol, its files and its exit codes.

mod certificates;
mod client;
mod exhaustion;
mod fleet;
mod index;
mod installation;
mod matrix;
mod processes;
mod python;
mod wheel;

pub use certificates::Authority;
pub use client::{Answer, Client};
pub use exhaustion::{EXHAUSTIONS, Exhaustion, Sides, limits_at};
pub use fleet::{Fleet, Launched};
pub use index::Index;
pub use installation::{Installation, User, signal};
pub use matrix::{Facts, LOOK};
pub use processes::{descendants, is_running, poll_until, processes_of};
pub use python::{all_passes, python, suite};
pub use wheel::wheel;
