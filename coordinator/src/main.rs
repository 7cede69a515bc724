//! The one binary of the product: the coordinator in all its roles, and the worker that it starts.

use std::env::args_os;
use std::process::ExitCode;

// A call allocates some hundreds of times and frees on another thread; at 64 clients over HTTP glibc's allocator, whose
// threads wait for each other there, takes a third of the server's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Every connection and session takes some; neither role is to end at the usual 1024.
    worker::allow_descriptors();
    // The worker forks its launcher before anything else happens, so its arguments are not even parsed here.
    if args_os().nth(1).is_some_and(|role| role == "worker") {
        return worker::main(args_os().skip(1));
    }
    coordinator::cli::main(args_os())
}
