//! How processes, sessions and the log begin and end, seen from outside.

mod audit;
mod clock;
mod devtools;
mod disk;
mod faults;
mod full_disk;
mod injection;
mod jumps;
mod kernels;
mod kills;
mod limits;
mod long;
mod lost_store;
mod packages;
mod pictures;
mod pip;
mod pipelined;
mod processes;
mod retention;
mod scripts;
mod segments;
mod sessions;
mod shadows;
mod stalled_disk;
mod tasks;
mod two_writers;
