//! Getting workers: the embedded one, a child process of this coordinator.

mod backoff;
pub mod embedded;
mod stderr;
