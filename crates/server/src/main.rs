//! The command `handfast`. Everything is in the library.

use std::process::ExitCode;

/// Records are made by one thread and freed by another, many times a transaction. The system's
/// allocator takes a fifth of the server's time for that (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    handfast_server::cli::run()
}
