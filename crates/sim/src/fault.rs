//! Bugs to plant: each changes what passes between the core and its world, or a rule that the
//! world keeps. The general checkers have to find every one of them.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The disk reports a group as durable when it has only been accepted.
    SyncNotWaitedFor,
    /// A crash loses a COMMIT that was durable.
    CommitLostInCrash,
    /// A crash loses an acknowledgement that was durable.
    AcknowledgementLostInCrash,
    /// After COMMIT one participant is told to abort.
    AbortSentAfterCommit,
    /// A commit goes to a durable state that never prepared.
    CommitSentToStranger,
    /// Services are told that they may forget when END is not even made.
    ForgetBeforeEnd,
    /// Services are told that they may forget while transactions that began before are undecided.
    ForgetTooSoon,
    /// A decision is sent once and never again.
    DecisionNotRepeated,
    /// A YES arrives as a NO.
    YesTakenForNo,
    /// The deadline's ticks never come.
    TicksLost,
    /// An event of a failed transaction is delivered.
    FailedEventDelivered,
    /// A delivery is dropped and acknowledged in the subscriber's name.
    DeliverySkipped,
    /// The event after the one that is delivered goes out at once, though it has the same key.
    TwoOfAKey,
    /// An event's bytes are changed when they are read.
    BytesChanged,
    /// A batch that is sent again is taken for a new one.
    DedupForgotten,
    /// A number stands for whatever batch comes under it.
    NumbersForAnything,
    /// A crash forgets the idempotency keys.
    KeysForgotten,
    /// A key finds the transaction of another key.
    KeysMixedUp,
    /// Status answers from an old copy.
    StaleStatus,
    /// Who waits until all have finished is told so at the decision.
    FinishedTooEarly,
    /// The commit's counts are not compared.
    CountsIgnored,
    /// A service votes YES before its branch is recorded.
    VoteBeforeRecord,
    /// A service applies a commit again when it is told again.
    CommitAppliedTwice,
    /// A prepared service that has waited for long aborts by itself.
    PreparedGivesUp,
    /// The look-up of a local transaction finds a marker that is not there.
    MarkerNotChecked,
    /// A database's vote is believed without asking the database.
    VoteNotVerified,
    /// The look-up of a local transaction reports a tombstone without writing it.
    TombstoneNotWritten,
    /// A restart writes ABORT after a COMMIT that is in the log.
    CommitAbortedByRestart,
    /// A begin is refused for want of a place and begins all the same.
    RefusedAndBegun,
    /// A reply is sent twice.
    ReplySentTwice,
    /// An acknowledged event is delivered again.
    DeliveredAfterAcknowledgement,
    /// The replay of the log skips a record.
    RecordSkippedInRecovery,
    /// The end of a stream counts as an attempt of everything that it had.
    AttemptsCountedAtStreamEnd,
    /// The end of a lease counts as an attempt of what waited in the stream.
    AttemptsCountedUnread,
    /// An opening takes the machine's clock as it is, whatever times are in the log.
    ClockTrusted,
    /// The time before an opening counts for ages at once.
    AbsenceBelieved,
    /// A service compares the times in ids to find out whether an outcome may be forgotten.
    HorizonByClock,
    /// A service that has got no prepare does not record with a commit when the transaction began.
    PlaceOnlyInPrepare,
    /// An owner row is judged by its epoch and its place in the log alone.
    OwnerByEpochAndLsn,
    /// COMMIT is decided though the owner row has not been confirmed since the server stood still, or
    /// since it was opened.
    DecidedBeforeClaimed,
}

impl Fault {
    /// Every planted bug.
    pub const ALL: &'static [Fault] = &[
        Self::SyncNotWaitedFor,
        Self::CommitLostInCrash,
        Self::AcknowledgementLostInCrash,
        Self::AbortSentAfterCommit,
        Self::CommitSentToStranger,
        Self::ForgetBeforeEnd,
        Self::ForgetTooSoon,
        Self::DecisionNotRepeated,
        Self::YesTakenForNo,
        Self::TicksLost,
        Self::FailedEventDelivered,
        Self::DeliverySkipped,
        Self::TwoOfAKey,
        Self::BytesChanged,
        Self::DedupForgotten,
        Self::NumbersForAnything,
        Self::KeysForgotten,
        Self::KeysMixedUp,
        Self::StaleStatus,
        Self::FinishedTooEarly,
        Self::CountsIgnored,
        Self::VoteBeforeRecord,
        Self::CommitAppliedTwice,
        Self::PreparedGivesUp,
        Self::MarkerNotChecked,
        Self::VoteNotVerified,
        Self::TombstoneNotWritten,
        Self::CommitAbortedByRestart,
        Self::RefusedAndBegun,
        Self::ReplySentTwice,
        Self::DeliveredAfterAcknowledgement,
        Self::RecordSkippedInRecovery,
        Self::AttemptsCountedAtStreamEnd,
        Self::AttemptsCountedUnread,
        Self::ClockTrusted,
        Self::AbsenceBelieved,
        Self::HorizonByClock,
        Self::PlaceOnlyInPrepare,
        Self::OwnerByEpochAndLsn,
        Self::DecidedBeforeClaimed,
    ];
}
