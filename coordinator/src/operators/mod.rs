//! What those who run the server see of workers, sessions and tasks of everybody, and do to them, whichever way they ask:
//! by a command or over REST.
//!
//! *Invariant*: it decides nothing about a session, a task or a worker by itself, it asks the rooms that own them; and what
//! changes something is in the log, with who did it, before it is done.

mod workers;

pub use workers::{SlotsView, WorkerRow};

use crate::workers::Workers;

/// What operators see and do. Cheap to clone.
#[derive(Clone)]
pub struct Operators {
    workers: Workers,
}

impl Operators {
    /// Operators of these workers.
    pub fn new(workers: Workers) -> Self {
        Self { workers }
    }
}
