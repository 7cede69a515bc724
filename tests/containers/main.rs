//! The product in containers of a real engine: images, the seccomp profile, and what happens when containers die.
//!
//! `make test` runs this with an engine at hand (`tests/with-engine`). Where there can be none, each test says by its name
//! that it was skipped; with `CI=true` it fails.

mod compose;
mod documented;
mod engine;
mod http;
mod images;
mod levels;
mod pods;
mod provision;
mod seccomp;
