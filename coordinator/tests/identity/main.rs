//! Tokens of a real issuer, on a socket of this machine: who is let in, who is not, and what the issuer is asked.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod fetching;
mod issuer;
mod silence;
mod tokens;
