//! One open transaction: what the log says of it, and what is only in memory until the decision.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::bus::Staged;
use crate::command::{Caller, CommitRequest, Wait};
use crate::effects::Effects;
use crate::ids::{Lsn, Name, Now, SessionId, StateId, TransactionId};
use crate::output::{Outcome, PublicState, Reply};
use crate::record::{Begin, Note, Participant, ParticipantKind, Reason, ReasonCode, Record};
use crate::refusal::{Code, Refusal};
use crate::view::VoteKind;

use super::refusals::failed;

/// Where a transaction stands (the states of the specification's tables).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// BEGIN is appended, not accepted yet (a local one: not durable yet).
    Opening,
    /// Distributed: votes are awaited.
    Collecting,
    /// Local: its commit in the database is awaited.
    Local,
    /// Local: the database is being asked how it ended.
    Resolving,
    /// A decision is appended: COMMIT not durable yet, or ABORT not accepted yet.
    Deciding,
    /// COMMIT is durable; updaters are being told.
    Committing,
    /// ABORT is accepted; branches are being told.
    Failed,
    /// END is appended, not durable yet.
    Ended,
}

/// An open transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// What its BEGIN record says.
    pub(crate) begin: Begin,
    /// Where BEGIN is.
    pub(crate) begin_lsn: Lsn,
    /// The last record of its chain.
    pub(crate) last: Lsn,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// The stream that it fails with.
    pub(crate) owner: Option<SessionId>,
    /// Its participants.
    pub(crate) branches: Vec<Branch>,
    /// Its events and acknowledgements.
    pub(crate) staged: Staged,
    /// When it began, on the monotonic clock (after a restart: when it was recovered).
    pub(crate) begun_ms: u64,
    /// When it fails if it is not decided.
    pub(crate) deadline_ms: u64,
    /// It is among those that are counted as undecided.
    pub(crate) is_counted: bool,
    /// What the commit counted, once it was asked: then nothing can be added.
    pub(crate) asked: Option<Counts>,
    /// Local: its commit was reported by somebody who has not seen it succeed.
    pub(crate) was_asked: bool,
    /// Why it has to fail as soon as its BEGIN is accepted.
    pub(crate) doomed: Option<Reason>,
    /// Who began it and waits for its id, and whether that was a repetition.
    pub(crate) beginners: Vec<(Caller, bool)>,
    /// Who waits for its outcome.
    pub(crate) waiters: Vec<Waiter>,
    /// The decision, once it is appended.
    pub(crate) decision: Option<Decided>,
    /// Where END is, once it is appended.
    pub(crate) end_lsn: Option<Lsn>,
    /// Attempts to resolve a local transaction, and when the first was made.
    pub(crate) resolving: Option<Resolving>,
    /// Why a person should look.
    pub(crate) attention: Option<String>,
    /// The attention is that it takes long, and nothing else.
    pub(crate) is_late: bool,
    /// A branch was ended against the decision, or lost, or released.
    pub(crate) heuristic: bool,
    /// Which one and how, unless an operator has released it.
    pub(crate) why: String,
    /// Somebody has taken note of the attention that it asked for.
    pub(crate) noted: bool,
    /// What operators did about it.
    pub(crate) notes: Vec<Note>,
    /// Participants that an operator has released.
    pub(crate) released: Vec<Name>,
    /// Local: who waits for the marker to be looked up.
    pub(crate) checking: Vec<Waiter>,
    /// The record whose append was lost or is unknown, while the chain is being read.
    pub(crate) unplaced: Option<Arc<Record>>,
    /// Its entry in the timers.
    pub(crate) timer: Option<u64>,
}

/// What a commit counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) branches: u32,
    pub(crate) items: u32,
}

/// A decision that is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// None: COMMIT. Some: ABORT, and why.
    pub(crate) abort: Option<Reason>,
    /// Where it is.
    pub(crate) lsn: Lsn,
    /// When it was made.
    pub(crate) at: Now,
}

/// A local transaction whose end is being looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolving {
    pub(crate) since_ms: u64,
    pub(crate) attempts: u32,
    /// An attempt is under way; there is never a second one at once (L8).
    pub(crate) under_way: bool,
    pub(crate) next_ms: u64,
}

/// A caller that is answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) caller: Caller,
    pub(crate) wait: Wait,
    /// When it is answered with what stands then; none: not before the decision.
    pub(crate) until_ms: Option<u64>,
}

/// One participant's share.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) participant: Participant,
    /// What it is to do; until it has voted.
    pub(crate) work: Option<Bytes>,
    /// The durable state that it is bound to, from its first prepare or vote on. Of a database: the
    /// session that held it (see [`crate::ids::Holder`]).
    pub(crate) state_id: Option<StateId>,
    /// The stream that it was last sent to, while that lives. Of a database: the client's stream
    /// that will finish it on its own session.
    pub(crate) session: Option<SessionId>,
    /// The instance that it was last sent to.
    pub(crate) instance: Option<Name>,
    pub(crate) vote: Option<VoteKind>,
    /// A database: its caller says YES, and the database is being asked whether that is so.
    pub(crate) verifying: bool,
    /// It has ended as decided (or was released).
    pub(crate) finished: bool,
    /// What its service said when it could not finish it; shown until it has.
    pub(crate) trouble: Option<Box<str>>,
    /// Messages of the present phase that were sent.
    pub(crate) attempts: u32,
    /// All messages that were sent.
    pub(crate) sends: u32,
    /// When to send again.
    pub(crate) next_ms: Option<u64>,
    pub(crate) prepare_sent_ms: Option<u64>,
    pub(crate) voted_ms: Option<u64>,
    pub(crate) decision_sent_ms: Option<u64>,
    pub(crate) finished_ms: Option<u64>,
}

/// Bytes of work that branches still hold.
pub(crate) fn work_bytes(branches: &[Branch]) -> usize {
    branches.iter().filter_map(|b| b.work.as_ref()).map(Bytes::len).sum()
}

impl Branch {
    pub(crate) fn new(participant: Participant, work: Option<Bytes>) -> Self {
        Self {
            participant,
            work,
            state_id: None,
            session: None,
            instance: None,
            vote: None,
            verifying: false,
            finished: false,
            trouble: None,
            attempts: 0,
            sends: 0,
            next_ms: None,
            prepare_sent_ms: None,
            voted_ms: None,
            decision_sent_ms: None,
            finished_ms: None,
        }
    }

    pub(crate) fn is_service(&self) -> bool {
        self.participant.kind == ParticipantKind::Service
    }
}

impl Transaction {
    /// Notes a commit: what it counted, and who waits. Once one was asked nothing can be added any
    /// more, so its count stands, and a repeat that counted otherwise is stale: it waits with the
    /// others, as it would after the decision (C13).
    pub(crate) fn commit_requested(&mut self, caller: Caller, commit: &CommitRequest) {
        self.asked.get_or_insert(Counts { branches: commit.branches, items: commit.items });
        self.waiters.push(Waiter { caller, wait: commit.wait, until_ms: None });
    }

    pub(crate) fn new(begin: Begin, now: Now) -> Self {
        Self {
            begin_lsn: Lsn(0),
            last: Lsn(0),
            phase: Phase::Opening,
            owner: None,
            branches: Vec::new(),
            staged: Staged::default(),
            begun_ms: now.mono_ms,
            deadline_ms: now.mono_ms + begin.deadline_ms,
            asked: None,
            was_asked: false,
            doomed: None,
            beginners: Vec::new(),
            is_counted: false,
            waiters: Vec::new(),
            decision: None,
            end_lsn: None,
            resolving: None,
            attention: None,
            is_late: false,
            heuristic: false,
            why: String::new(),
            noted: false,
            notes: Vec::new(),
            released: Vec::new(),
            checking: Vec::new(),
            unplaced: None,
            timer: None,
            begin,
        }
    }

    pub(crate) fn id(&self) -> TransactionId {
        self.begin.id
    }

    pub(crate) fn is_local(&self) -> bool {
        self.begin.local.is_some()
    }

    /// The database of a local transaction.
    pub(crate) fn local_database(&self) -> Option<&Name> {
        self.begin.local.as_ref().and_then(|_| self.begin.participants.first()).map(|p| &p.name)
    }

    /// Undecided, and nobody has asked to commit it: it can still grow.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Collecting) && self.asked.is_none()
    }

    /// A person should look at it, and nobody has yet.
    pub(crate) fn needs_attention(&self) -> bool {
        self.attention.is_some() && !self.noted
    }

    /// Why a step on it is refused: what made it fail, or else `what`.
    pub(crate) fn closed(&self, what: &str) -> Refusal {
        match self.decision.as_ref().and_then(|decided| decided.abort.as_ref()) {
            Some(reason) => failed(self.id(), reason),
            None => Refusal::new(Code::Closed, format!("{} {what}", self.id())),
        }
    }

    /// Nothing was decided yet.
    pub(crate) fn is_undecided(&self) -> bool {
        self.decision.is_none()
    }

    /// COMMIT is appended, and not durable yet.
    pub(crate) fn is_committing_undurably(&self) -> bool {
        self.phase == Phase::Deciding && self.decision.as_ref().is_some_and(|d| d.abort.is_none())
    }

    /// The databases in it.
    pub(crate) fn databases(&self) -> Vec<Name> {
        let local = self.local_database().into_iter();
        let branches = self.branches.iter().filter(|b| !b.is_service());
        local.chain(branches.map(|b| &b.participant.name)).cloned().collect()
    }

    pub(crate) fn branch(&self, name: &Name) -> Option<usize> {
        self.branches.iter().position(|b| b.participant.name == *name)
    }

    /// An operator has released a participant: it is not waited for any more.
    pub(crate) fn release(&mut self, name: &Name) {
        self.heuristic = true;
        if !self.released.contains(name) {
            self.released.push(name.clone());
        }
        if let Some(at) = self.branch(name) {
            self.branches[at].finished = true;
        }
    }

    pub(crate) fn remaining_ms(&self, now: Now) -> u64 {
        self.deadline_ms.saturating_sub(now.mono_ms)
    }

    /// The public state (C17): never ahead of what is durable.
    pub(crate) fn public_state(&self, durable: Lsn) -> PublicState {
        match (&self.decision, self.phase) {
            // A restart's own abort cannot be anything else, and may have been told before (I4).
            (Some(Decided { abort: Some(reason), .. }), Phase::Deciding)
                if reason.code == ReasonCode::CoordinatorRestarted =>
            {
                PublicState::Failed
            }
            (None, _) | (Some(_), Phase::Deciding) => PublicState::Preparing,
            // A crash may still give the key to another transaction (I10).
            (Some(Decided { abort: Some(_), .. }), _)
                if self.begin.key.is_some() && self.begin_lsn > durable =>
            {
                PublicState::Preparing
            }
            (Some(Decided { abort: Some(_), .. }), _) => PublicState::Failed,
            (Some(_), Phase::Ended) if self.end_lsn.is_some_and(|lsn| lsn <= durable) => {
                PublicState::Committed
            }
            (Some(_), _) => PublicState::Committing,
        }
    }

    /// The outcome as it may be told now.
    pub(crate) fn outcome(&self, durable: Lsn) -> Outcome {
        let state = self.public_state(durable);
        let reason = match state {
            PublicState::Failed => self.decision.as_ref().and_then(|d| d.abort.clone()),
            PublicState::Preparing | PublicState::Committing | PublicState::Committed => None,
        };
        let finished = match state {
            PublicState::Committing => self.phase == Phase::Ended && !self.heuristic,
            PublicState::Committed => true,
            PublicState::Preparing | PublicState::Failed => false,
        };
        Outcome { id: self.id(), state, reason, heuristic: self.heuristic, finished }
    }

    /// Answers the waiters that `due` picks with what stands.
    pub(crate) fn answer_waiters(
        &mut self,
        effects: &mut Effects,
        mut due: impl FnMut(&Waiter) -> bool,
    ) {
        if !self.waiters.iter().any(&mut due) {
            return;
        }
        let begun = self.waits_for();
        let outcome = self.outcome(effects.durable().max(begun));
        self.waiters.retain(|waiter| {
            let answer = due(waiter);
            if answer {
                let reply = Reply::Outcome(outcome.clone());
                effects.reply_when_durable(begun, waiter.caller, reply);
            }
            !answer
        });
    }

    /// The record that its begin's answers wait for. With a key that is BEGIN: until it is
    /// durable a crash may give the key to another transaction with another outcome (I10).
    pub(crate) fn waits_for(&self) -> Lsn {
        if self.begin.key.is_some() { self.begin_lsn } else { Lsn(0) }
    }

    /// When something has to be done about it next.
    pub(crate) fn next_wake(&self, attention_ms: u64) -> Option<u64> {
        let deadline = match self.phase {
            // It has passed already; what is left to wait for is the log.
            Phase::Opening if self.doomed.is_some() => None,
            Phase::Opening | Phase::Collecting | Phase::Local => Some(self.deadline_ms),
            Phase::Resolving => self.resolving.as_ref().filter(|r| !r.under_way).map(|r| r.next_ms),
            Phase::Committing => {
                let decided = self.decision.as_ref().map(|d| d.at.mono_ms + attention_ms);
                decided.filter(|_| self.attention.is_none())
            }
            Phase::Deciding | Phase::Failed | Phase::Ended => None,
        };
        let sends = self.branches.iter().filter_map(|b| b.next_ms);
        let waiters = self.waiters.iter().filter_map(|w| w.until_ms);
        deadline.into_iter().chain(sends).chain(waiters).min()
    }
}
