//! What clients see when workers of other hosts, the links to them or the coordinator itself die: a real coordinator
//! and real workers, each a process of its own, over TCP.

mod rig;
mod server;
mod workers;
