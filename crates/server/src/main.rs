//! The command `handfast`. Everything is in the library.

use std::process::ExitCode;

/// Records are made by one thread and freed by another, many times a transaction, and large buffers
/// come and go; docs/decisions/0002-allocator.md has what others make of that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    handfast_server::cli::run()
}
