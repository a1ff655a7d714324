//! What the server says on the stream of transactions without being asked, and who hears it.
//!
//! Whoever holds something for transactions, such as a session with a prepared branch, has to hear
//! how they end. What that is, nothing here knows.

use std::any::Any;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use handfast_core::ids::TransactionId;
use handfast_wire::v1::transaction_reply::Result as Answer;
use tokio::time::Instant;

/// Hears what is pushed, and what the client itself learns or asks about transactions.
pub(crate) trait Listener: Any + Debug + Send + Sync {
    /// The server says something that answers no call.
    fn pushed(&self, answer: Answer);

    /// A stream has ended, and with it all before.
    fn stream_ended(&self, stream: u64);

    /// The client has asked to abort a transaction.
    fn abort_asked(&self, id: TransactionId);

    /// The server has said that a transaction failed.
    fn failed(&self, id: TransactionId);

    /// A transaction has got a new deadline.
    fn extended(&self, id: TransactionId, deadline: Instant);
}

/// The listener of a client, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// The last stream that has ended.
    ended: AtomicU64,
    listener: OnceLock<Box<dyn Listener>>,
}

impl Pushed {
    /// The listener; without one nobody here holds anything for a transaction.
    pub(crate) fn listener(&self) -> Option<&dyn Listener> {
        self.listener.get().map(AsRef::as_ref)
    }

    /// Says on: with nothing, the stream has ended.
    pub(crate) fn say(&self, stream: u64, answer: Option<Answer>) {
        let Some(answer) = answer else {
            self.ended.store(stream, Ordering::SeqCst);
            if let Some(listener) = self.listener() {
                listener.stream_ended(stream);
            }
            return;
        };
        if let Some(listener) = self.listener() {
            listener.pushed(answer);
        }
    }

    /// The one listener of this kind, made when it is first needed. It hears at once of the last
    /// stream that ended, so that nothing is held for a stream that is gone. None: another kind
    /// listens.
    #[cfg(feature = "mariadb")]
    pub(crate) fn listen<T: Listener>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        let mut is_new = false;
        let listener = self.listener.get_or_init(|| {
            is_new = true;
            Box::new(make())
        });
        if is_new {
            listener.stream_ended(self.ended.load(Ordering::SeqCst));
        }
        (listener.as_ref() as &dyn Any).downcast_ref()
    }
}
