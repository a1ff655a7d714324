//! Refusals: answers that are part of the protocol. Nothing that a client sends is a panic.
//!
//! A code is stable for ever: programs decide by it, documentation has a page for it.

use alloc::string::String;
use core::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $retry:ident;)*) => {
        /// Why something was refused. `as_str` is the code that clients see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The stable text of the code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// Whether the same call may succeed later without any change by the caller.
            /// A refused call had no effect, so a retry is always safe.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Code::$variant => codes!(@$retry),)* }
            }
        }
    };
    (@later) => { true };
    (@final) => { false };
}

codes! {
    /// A value of the call is not well-formed.
    InvalidArgument = "invalid_argument", final;
    /// A message does not decode, or has more elements than its bytes can mean.
    Malformed = "malformed", final;
    /// An event, batch, work or reason is over its limit.
    TooLarge = "too_large", final;
    /// The transaction has as many branches or items as it may.
    TooMany = "too_many", final;
    /// The deadline is zero or over an hour.
    InvalidDeadline = "invalid_deadline", final;
    /// As many open transactions as configured.
    TooManyTransactions = "too_many_transactions", later;
    /// As many calls that belong to no stream are unanswered as configured.
    TooManyCalls = "too_many_calls", later;
    /// As many streams and calls of all connections are under way as configured.
    TooManyStreams = "too_many_streams", later;
    /// A message found no room, because as many bytes arrive as configured.
    ArrivingBytesFull = "arriving_bytes_full", later;
    /// A message has begun to arrive and was not complete in its time.
    Unfinished = "unfinished", later;
    /// As many producers are remembered as configured; they are forgotten when they are silent.
    TooManyProducers = "too_many_producers", later;
    /// The stream did not read what it had asked for, and was ended; it may be opened anew.
    TooSlow = "too_slow", later;
    /// As many bytes staged as configured, or as many bytes of work wait for a vote.
    StagedBytesFull = "staged_bytes_full", later;
    /// The store has no room for more work.
    NoSpace = "no_space", later;
    /// The server is about to stop.
    Draining = "draining", later;
    /// No such transaction is open, and the log is not asked or does not know it.
    UnknownTransaction = "unknown_transaction", final;
    /// The transaction takes no more branches or items: commit was asked, or it is decided.
    Closed = "closed", final;
    /// The same idempotency key was used for another request.
    KeyConflict = "key_conflict", final;
    /// The producer's number was used for another batch, or so long ago that nobody knows for which.
    SequenceConflict = "sequence_conflict", final;
    /// The participant is not in the transaction.
    NotAParticipant = "not_a_participant", final;
    /// The participant is in the transaction already.
    AlreadyEnlisted = "already_enlisted", final;
    /// A vote contradicts an earlier one that can no longer be changed.
    ContradictingVote = "contradicting_vote", final;
    /// A report of the branch's end contradicts the decision.
    ContradictingOutcome = "contradicting_outcome", final;
    /// A vote, report or inquiry came from a stream that has not attached as a participant.
    NotAttached = "not_attached", final;
    /// The branch is bound to another durable state of the participant.
    WrongState = "wrong_state", final;
    /// A local transaction takes no second database and no service.
    LocalTransaction = "local_transaction", final;
    /// No database of this name is registered.
    UnknownDatabase = "unknown_database", final;
    /// The database is registered, but may not be trusted with this.
    DatabaseRefused = "database_refused", later;
    /// The caller's own connection leads to another database than the one registered under the name.
    WrongDatabase = "wrong_database", final;
    /// The transaction is being resolved; ask again later.
    Pending = "pending", later;
    /// There is no marker: the local commit that is reported did not happen, or came too late.
    MarkerNotWritten = "marker_not_written", final;
    /// No topic of this name.
    UnknownTopic = "unknown_topic", final;
    /// A topic of this name exists with other settings.
    TopicExists = "topic_exists", final;
    /// The topic or subscription is being deleted.
    Deleting = "deleting", final;
    /// The topic keeps every event until it is acknowledged, and is full.
    TopicFull = "topic_full", later;
    /// No subscription of this name.
    UnknownSubscription = "unknown_subscription", final;
    /// A subscription of this name exists on another topic or with other settings.
    SubscriptionExists = "subscription_exists", final;
    /// As many topics, subscriptions or dead letters as configured.
    LimitReached = "limit_reached", final;
    /// The delivery's lease is over, or it was given to somebody else, or it was acknowledged.
    DeliveryExpired = "delivery_expired", final;
    /// The delivery is staged in a transaction and waits for its decision.
    DeliveryStaged = "delivery_staged", final;
    /// No such dead letter.
    UnknownDeadLetter = "unknown_dead_letter", final;
    /// It is in a place of the log that is damaged.
    Damaged = "damaged", final;
    /// The offset is outside what the topic holds.
    OffsetOutOfRange = "offset_out_of_range", final;
    /// The stream has not attached to a subscription.
    NotSubscribed = "not_subscribed", final;
    /// The store was opened in a way that forbids this.
    NotSupported = "not_supported", final;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refused call: it had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was wrong, for people, with the value at fault.
    pub detail: String,
}

impl Refusal {
    /// A refusal with a sentence for people.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct() {
        for (i, a) in Code::ALL.iter().enumerate() {
            for b in &Code::ALL[i + 1..] {
                assert_ne!(a.as_str(), b.as_str());
            }
        }
    }
}
