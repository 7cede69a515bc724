//! What is fuzzed: for each place where hostile bytes come in, a function that takes any bytes and panics when a promise
//! does not hold. `make fuzz` runs them under libFuzzer, `make test` for a bounded time with the same corpus.
//!
//! *Invariant*: no target depends on anything but its bytes, and none leaves a file behind.

mod archive_import;
mod audit_log;
#[cfg(feature = "coordinator")]
mod client_lines;
mod paths;
mod task_events;

use std::path::PathBuf;

pub use archive_import::archive_import;
pub use audit_log::audit_log;
#[cfg(feature = "coordinator")]
pub use client_lines::client_lines;
pub use paths::paths;
pub use task_events::task_events;

/// A target: it panics when these bytes break a promise.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("paths", paths),
    ("audit_log", audit_log),
    ("task_events", task_events),
    ("archive_import", archive_import),
    #[cfg(feature = "coordinator")]
    ("client_lines", client_lines),
];

/// Where a target's corpus lies: seeds, and whatever once broke a promise.
pub fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

/// A directory in memory where there is such a file system, since a target makes and takes away thousands of files.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
