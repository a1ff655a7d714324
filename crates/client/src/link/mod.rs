//! A stream with batches that many callers share.
//!
//! Whatever is queued goes into one frame; the answers of one frame wake their callers one after
//! the other. One task drives a stream, whatever the number of calls: there is no task, timer or
//! lock for each call.
//!
//! A stream that breaks is opened again as soon as somebody needs it. What was not answered is
//! sent again where the call allows that (`CallOptions::resend`), in the order in which it was first
//! asked; everything else is told that its answer is lost. Nothing here decides about transactions.

mod answer;
mod channel;
mod options;
mod publishes;
mod pushed;
mod queued;
mod shared;
mod stream;
mod throttle;
mod transactions;
mod worker;

pub(crate) use self::answer::{Answered, Unanswered};
pub use self::channel::ServerInfo;
pub(crate) use self::channel::{Connection, endpoint};
pub(crate) use self::options::CallOptions;
pub(crate) use self::publishes::Publishes;
#[cfg(feature = "mariadb")]
pub(crate) use self::pushed::Listener;
pub(crate) use self::pushed::Pushed;
pub(crate) use self::queued::Queued;
pub(crate) use self::shared::Link;
pub(crate) use self::transactions::Transactions;
