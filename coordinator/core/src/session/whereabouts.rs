//! What is known of a session's files, and of the worker that has them.

use serde::{Deserialize, Serialize};

/// Why a session's files cannot be had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostWhy {
    /// Its worker is there without them.
    #[default]
    FilesMissing,
    /// Its worker is gone, and they with it unless it comes back.
    WorkerGone,
}

/// How the life of a worker is tied to its coordinator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// It is a child of the coordinator, which ends with it and starts it again; its files are on the same disk.
    Child,
    /// It runs by itself: it outlives the coordinator, and nobody knows whether it comes back once it is gone.
    Apart,
}

/// Whether a worker has a session's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// They are where they were.
    Kept,
    /// There are none, or new empty ones were made.
    Missing,
}
