//! The coordinator's side of its workers, against workers that are doubles only in what they run: real sockets, real
//! gRPC, real links.

#![expect(clippy::unwrap_used, reason = "a double that cannot do its part fails the test by panicking")]

mod ahead;
mod bounds;
mod credentials;
mod dialled;
mod double;
mod embedded;
mod hostile;
mod joining;
mod links;
mod orders;
mod restart;
mod rig;
mod shown;
mod slots;
mod streams;
mod tasks;
