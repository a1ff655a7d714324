//! What the demo, torture and the benchmarks have in common: processes of this very program, the
//! directory in which these keep everything, and the reasons to end without a report. It knows none
//! of those that use it.

mod child;
mod directory;
mod problem;
mod random;
mod server;
mod signals;
mod stdin;

pub(crate) use child::Child;
pub(crate) use directory::{Directory, log_dir};
pub(crate) use problem::{PartError, Problem};
pub(crate) use random::Random;
pub(crate) use server::Server;
pub(crate) use signals::or_interrupted;
pub(crate) use stdin::{exit_with_stdin, leave_with_stdin, wait_for_stdin};

/// Where two databases are.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) postgres: String,
    pub(crate) mariadb: String,
}
