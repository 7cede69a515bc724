//! The worker as a program of its own.

use std::process::ExitCode;

// That of the product's one binary, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    worker::main(std::env::args_os())
}
