//! The coordinator: MCP front door, sessions, dispatch to workers, stores and the audit trail of it all.
//!
//! Owner of sessions and of every decision about them (the pure ones live in `coordinator-core`). A call walks
//! `mcp` -> `tools` -> `session` -> `dispatch` -> `workers` and back; no layer is skipped.
//!
//! *Invariant*: this library never names the `worker` crate; only the binary does, to be the whole product in one file.
//! rmcp is named in `mcp` and nowhere else.

pub mod admission;
pub mod approvals;
pub mod arrivals;
mod byte_room;
pub mod caller;
pub mod cli;
pub mod config;
pub mod control;
pub mod diagnostics;
pub mod dispatch;
pub mod front;
pub mod http;
pub mod identity;
pub mod mcp;
pub mod operators;
pub mod policy;
pub mod provision;
mod refusals;
pub mod reload;
mod room;
pub mod secrets;
pub mod server;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod tools;
pub mod usage;
pub mod workers;
