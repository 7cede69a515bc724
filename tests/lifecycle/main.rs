//! How processes, sessions and the log begin and end, seen from outside.

mod audit;
mod devtools;
mod kills;
mod limits;
mod long;
mod packages;
mod pip;
mod processes;
mod scripts;
mod sessions;
mod tasks;
