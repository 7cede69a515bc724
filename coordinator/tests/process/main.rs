//! Fronts and servers as real processes: how they find each other, what they share, and how they end.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod certificate;
mod collector;
mod ends;
mod front;
mod install;
mod operator;
mod streams;
mod togetherness;
mod tokens;
mod top;
mod traces;
mod workers;
