//! How processes, sessions and the log begin and end, seen from outside.

mod audit;
mod devtools;
mod disk;
mod faults;
mod full_disk;
mod injection;
mod kills;
mod limits;
mod long;
mod packages;
mod pip;
mod processes;
mod scripts;
mod sessions;
mod stalled_disk;
mod tasks;
mod two_writers;
