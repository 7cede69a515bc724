//! The session layer held to its promises, on real stores and the real log, against a fleet that is a double.

mod calls;
mod lifecycle;
mod restart;
mod rig;
