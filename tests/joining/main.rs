//! Workers that join from elsewhere, as processes of their own.

mod draining;
mod encrypted;
mod remote;
