//! Transactions: several services and events, all of them or none of them.

mod open;
mod outcome;
mod request;
mod run;
mod votes;

pub use handfast_core::command::Wait;
#[cfg(feature = "_databases")]
pub(crate) use open::database_branches;
#[cfg(feature = "_databases")]
pub(crate) use open::millis;
pub use open::{BeginOptions, OpenTransaction};
pub(crate) use outcome::{Absence, foreign, outcome as read_outcome};
pub use outcome::{Committed, Outcome, State};
pub(crate) use request::Contents;
pub use request::Transaction;
#[cfg(feature = "_databases")]
pub(crate) use votes::Votes;
