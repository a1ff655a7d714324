//! The service participant: one branch (transaction x at participant p) as a value.
//!
//! [`step`] is rows P1 to P13 of the protocol. It takes a state and an input and says, as a
//! [`Step`], what has to be done, in this order:
//!
//! 1. the work, if it asks for it; how the work ended is the next input;
//! 2. the [`Durable`] part, all of it in one durable step of the participant's own store. If that
//!    fails, the whole `Step` is dropped: the branch stays in the state it had;
//! 3. what was [`Held`] back is released, with the proof that the durable step is on disk.
//!
//! The state has to be read in the same durable step that writes the next one, because instances
//! with the same state id share it. It must never be kept in memory between two steps.
//!
//! There is no clock, no store and no work in here, and nothing is ever answered that is not
//! durable.

mod inquiry;
mod table;
#[cfg(test)]
mod tests;

use alloc::string::String;

use crate::command::Vote;
use crate::ids::Began;

pub use inquiry::inquiry_pause_ms;
pub use table::step;

/// Where a branch is. Only the last three are durable; the first two look the same after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BranchState {
    /// Nothing is recorded about it.
    None,
    /// Its work is under way, or done and not voted for. Lost in a crash.
    Working,
    /// It voted YES: it can commit and can abort, and does neither on its own.
    Prepared,
    /// It has applied its work.
    Committed,
    /// It has no effect and never will: the tombstone.
    Aborted,
}

/// What happens to a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BranchInput {
    /// The service begins work that it was asked for by other means; its vote comes later.
    Start,
    /// The coordinator asks for a vote.
    Prepare {
        /// The work came along. False: vote about what you have been asked by other means.
        has_work: bool,
        /// An outcome has been forgotten that this transaction cannot be told from: if nothing is
        /// recorded about it, it may have ended here long ago, and this is a late repeat.
        maybe_forgotten: bool,
    },
    /// The work is done and can be kept or undone, whatever happens.
    WorkDone,
    /// The work is done and changed nothing.
    WorkReadOnly,
    /// The work could not be done.
    WorkFailed {
        /// For people.
        reason: String,
        /// The same work may succeed later.
        retryable: bool,
    },
    /// The decision is COMMIT.
    Commit,
    /// The decision is ABORT, or there was never one to commit.
    Abort,
    /// It is time to ask for the decision.
    InquiryTimer,
    /// The service has started; the state was read from its store.
    Restart,
    /// The service does not want to wait any longer for the coordinator.
    Timeout,
    /// The stream to the coordinator ended.
    Disconnect,
    /// END is durable: the outcome need not be kept.
    Forget,
}

/// Whether the outcome of a transaction may have been forgotten (P2): `horizon` is where the latest
/// transaction of the same store began whose COMMIT was forgotten, and this one began no later. A
/// coordinator lets nobody forget an outcome before everything that began earlier is decided.
#[must_use]
pub fn maybe_forgotten(began: Began, horizon: Option<Began>) -> bool {
    horizon.is_some_and(|horizon| began.store == horizon.store && began <= horizon)
}

/// Which line of the protocol a step follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// Unknown, prepare with work.
    P1,
    /// Unknown, prepare without work; or the work fails.
    P2,
    /// Working, prepare.
    P3,
    /// Working, and it may still abort alone.
    P4,
    /// Prepared, prepare again.
    P5,
    /// Prepared, commit.
    P6,
    /// Prepared, abort.
    P7,
    /// Prepared, and nobody has said how it ends.
    P8,
    /// Unknown, abort.
    P9,
    /// Unknown, commit.
    P10,
    /// Committed, prepare or commit again.
    P11,
    /// Aborted, prepare or abort again.
    P12,
    /// The decision contradicts the outcome.
    P13,
    /// The sentence below the table: outcomes are kept until they may be forgotten.
    Forget,
    /// Nothing happens, for this reason.
    Ignored(&'static str),
}

/// What to do with the work before the vote. How it ended is the next input, in state Working;
/// what the work wrote is kept only by a step whose durable part is [`Durable::Prepare`], every
/// other step discards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Do it.
    Do,
    /// It has begun: bring it to its end, do not begin it again.
    Finish,
}

/// One durable step: what it does and the state that it records are written together or not at
/// all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durable {
    /// Keep what the work wrote and record Prepared.
    Prepare,
    /// Make the work effective and record Committed.
    Apply,
    /// Undo the work and record Aborted.
    Undo,
    /// Discard what is not recorded, if anything, and record Aborted.
    Tombstone,
    /// Remove the record of the outcome.
    Forget,
}

impl Durable {
    /// The state that the step records. None: it removes the record.
    #[must_use]
    pub fn records(self) -> Option<BranchState> {
        match self {
            Self::Prepare => Some(BranchState::Prepared),
            Self::Apply => Some(BranchState::Committed),
            Self::Undo | Self::Tombstone => Some(BranchState::Aborted),
            Self::Forget => None,
        }
    }
}

/// What the coordinator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A vote.
    Vote(Vote),
    /// NO once more, with the reason that is recorded with the tombstone, if there is one.
    NoAsRecorded,
    /// The branch has ended, in this way.
    Finished {
        /// True: it has applied its work.
        committed: bool,
    },
    /// A commit for something that is not known here.
    NotKnown,
    /// What was decided?
    Inquire,
}

/// Says that everything read and written in one durable step is on disk. A store makes it when,
/// and only when, its commit has returned; nothing else may.
#[derive(Debug)]
pub struct Synced(());

impl Synced {
    /// The step is on disk now.
    #[must_use]
    pub fn now() -> Self {
        Self(())
    }
}

/// An answer that reveals the state of a branch, and so waits until that state is durable. That
/// is true of a repeated answer as well: what it repeats may be as young as the step itself.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an answer that is never released leaves the coordinator waiting"]
pub struct Held(Answer);

impl Held {
    /// The answer, as the step is on disk.
    #[must_use]
    pub fn release(self, _proof: &Synced) -> Answer {
        self.0
    }
}

/// What an input leads to.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a step has to be carried out, or dropped as a whole"]
pub struct Step {
    /// The line of the protocol.
    pub row: Row,
    /// The state of the branch when all of this is done.
    pub next: BranchState,
    /// First: the work.
    pub work: Option<Work>,
    /// Second: what has to be durable.
    pub durable: Option<Durable>,
    /// Last: the answer.
    pub then: Option<Held>,
    /// A person should look, for this reason.
    pub attention: Option<&'static str>,
}
