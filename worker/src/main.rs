//! The worker as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::main(std::env::args_os())
}
