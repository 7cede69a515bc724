//! Which worker gets a session: a pure function over a view of the registry.

use std::collections::BTreeMap;

use codegen_types::IsolationLevel;

/// What a session asks of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// The weakest isolation under which the session may run.
    pub isolation_minimum: IsolationLevel,
    /// Runtimes that the worker must have, by name (`python`, `shell`).
    pub runtimes: Vec<String>,
    /// Labels that the worker must carry.
    pub labels: BTreeMap<String, String>,
}
