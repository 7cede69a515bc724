//! HTTP over real sockets: raw requests on one side, a double of the session layer on the other.

mod bounds;
mod draining;
mod eras;
mod guard;
mod identity;
mod legacy;
mod limits;
mod listening;
mod metrics;
mod quirks;
mod rest;
mod rest_approvals;
mod rest_archive;
mod rest_archive_import;
mod rest_events;
mod rest_headers;
mod rest_operators;
mod rest_pages;
mod rig;
mod sessions;
mod silence;
mod tls;

#[path = "../mcp/double.rs"]
mod double;
