//! The layers inside the namespaces, and the report of all layers.

pub(crate) mod capabilities;
pub(crate) mod computing;
pub(crate) mod landlock;
pub(crate) mod report;
pub(crate) mod rlimits;
pub(crate) mod seccomp;
