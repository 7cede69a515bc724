//! Getting workers: the embedded one, a child process of this coordinator, and containers of a Docker engine.

mod backoff;
pub mod docker;
pub mod embedded;
mod stderr;
