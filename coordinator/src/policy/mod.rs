//! The policy of this server: its file, read at the start and again at SIGHUP, and the gate that every call passes.
//!
//! *Invariant*: a file that cannot be used changes nothing: the rules before stay, and at the start there is no server. What
//! rules mean is decided in `coordinator_core::policy`.

mod file;
mod gate;
mod subjects;
mod whole;

pub use file::{Policies, PolicyError, read};
pub use gate::{Gate, Hosts};
pub use subjects::{names_paths, of_call, of_file};
pub use whole::Whole;
