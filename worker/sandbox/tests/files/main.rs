//! Files of a workspace: what operations do, what they refuse, and what holds while the session attacks.
//!
//! As root the session has a user of its own, and everything is run once more as an unprivileged worker.

mod base;
mod edit;
mod fixture;
mod hostile;
mod operations;
mod output;
mod quota;
mod races;
mod search;
mod tree;
mod unprivileged;
