//! The command `handfast`: [`cli`] has a file for each command. [`demo`], [`torture`] and [`bench`]
//! run this very program as their processes, by what [`harness`] has for all three. The server itself
//! is the library `handfast_server`.

mod bench;
mod cli;
mod demo;
mod harness;
mod terminal;
mod torture;

use std::process::ExitCode;

/// Records are made by one thread and freed by another, many times a transaction, and large buffers
/// come and go; docs/decisions/0002-allocator.md has what others make of that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
