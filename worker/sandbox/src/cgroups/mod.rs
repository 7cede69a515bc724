//! Control groups: one for every sandbox, where the host lets us make them.

mod oom;

pub(crate) use oom::OomCounter;
