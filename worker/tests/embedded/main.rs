//! The real worker process, driven over its link by a coordinator of the test: real sandboxes, real interpreters.

mod bench;
mod changes;
mod coordinator;
mod held;
mod kernels;
mod limits;
mod output_file;
mod packages;
mod process;
mod python;
mod shell;
mod shown;
mod spares;
mod speed;
mod starting;
