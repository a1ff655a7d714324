//! The command `handfast`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    handfast_server::cli::run()
}
