//! The rules of this repository, as tests.

mod crates;
mod documents;
mod sources;
mod tree;
