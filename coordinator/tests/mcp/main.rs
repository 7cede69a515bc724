//! The protocol over in-memory pipes: raw JSON lines on one side, a double of the session layer on the other.

mod approvals;
mod audit;
mod calls;
mod client;
mod double;
mod ending;
mod eras;
mod lines;
mod quirks;
mod resources;
mod running;
mod scopes;
mod tasks;
mod yielding;
