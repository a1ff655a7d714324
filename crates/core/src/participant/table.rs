//! The transitions: one function per state, no arm that stands for more than it names.
//!
//! It must never make a branch leave Prepared by itself, and never let an outcome change.

use alloc::string::String;

use super::{Answer, BranchInput, BranchState, Durable, Held, Row, Step, Work};
use crate::command::Vote;

const NOT_ASKED: &str = "no work is under way";
const NOTHING_IN_DOUBT: &str = "nothing is in doubt";
const IN_DOUBT: &str = "in doubt: only the decision ends it";
const ENDED: &str = "the outcome stands";
const BEGUN: &str = "the branch has begun already";
const VIOLATED: &str = "agreement violated";

/// What `input` does to a branch in `state`.
pub fn step(state: BranchState, input: BranchInput) -> Step {
    match state {
        BranchState::None => none(&input),
        BranchState::Working => working(input),
        BranchState::Prepared => prepared(&input),
        BranchState::Committed => committed(&input),
        BranchState::Aborted => aborted(&input),
    }
}

fn none(input: &BranchInput) -> Step {
    use BranchState::{Aborted, None, Working};
    match input {
        BranchInput::Start => to(Row::P1, Working),
        BranchInput::Prepare { maybe_forgotten: true, has_work: true | false } => {
            // No tombstone: what was forgotten makes every repeat end here as well, and a
            // tombstone would contradict an outcome that was committed.
            to(Row::P2, None).then(no("too old: its outcome may have been forgotten here", true))
        }
        BranchInput::Prepare { maybe_forgotten: false, has_work: true } => {
            to(Row::P1, Working).work(Work::Do)
        }
        BranchInput::Prepare { maybe_forgotten: false, has_work: false } => {
            to(Row::P2, Aborted).durable(Durable::Tombstone).then(no("no work is known here", true))
        }
        BranchInput::WorkDone | BranchInput::WorkReadOnly | BranchInput::WorkFailed { .. } => {
            ignored(None, NOT_ASKED)
        }
        BranchInput::Commit => to(Row::P10, None).then(Answer::NotKnown),
        BranchInput::Abort => {
            to(Row::P9, Aborted).durable(Durable::Tombstone).then(finished(false))
        }
        BranchInput::InquiryTimer | BranchInput::Restart => ignored(None, NOTHING_IN_DOUBT),
        BranchInput::Timeout | BranchInput::Disconnect => ignored(None, NOT_ASKED),
        BranchInput::Forget => ignored(None, NOTHING_IN_DOUBT),
    }
}

fn working(input: BranchInput) -> Step {
    use BranchState::{Aborted, None, Prepared, Working};
    match input {
        BranchInput::Start => ignored(Working, BEGUN),
        // The second half of it is `WorkDone`: until the work is at its end there is nothing to
        // record. Work that comes along a second time is not begun a second time.
        BranchInput::Prepare { has_work: _, maybe_forgotten: _ } => {
            to(Row::P3, Working).work(Work::Finish)
        }
        BranchInput::WorkDone => {
            to(Row::P1, Prepared).durable(Durable::Prepare).then(Answer::Vote(Vote::Yes))
        }
        BranchInput::WorkReadOnly => to(Row::P1, None).then(Answer::Vote(Vote::ReadOnly)),
        BranchInput::WorkFailed { reason, retryable } => {
            to(Row::P2, Aborted).durable(Durable::Tombstone).then(no(reason, retryable))
        }
        BranchInput::Commit => to(Row::P10, Working).then(Answer::NotKnown),
        BranchInput::Abort => {
            to(Row::P4, Aborted).durable(Durable::Tombstone).then(finished(false))
        }
        BranchInput::InquiryTimer => ignored(Working, NOTHING_IN_DOUBT),
        BranchInput::Restart | BranchInput::Timeout | BranchInput::Disconnect => {
            to(Row::P4, Aborted).durable(Durable::Tombstone)
        }
        BranchInput::Forget => ignored(Working, "there is no outcome yet"),
    }
}

fn prepared(input: &BranchInput) -> Step {
    use BranchState::{Aborted, Committed, Prepared};
    match input {
        BranchInput::Start => ignored(Prepared, BEGUN),
        BranchInput::Prepare { has_work: _, maybe_forgotten: _ } => {
            to(Row::P5, Prepared).then(Answer::Vote(Vote::Yes))
        }
        BranchInput::WorkDone | BranchInput::WorkReadOnly | BranchInput::WorkFailed { .. } => {
            ignored(Prepared, NOT_ASKED)
        }
        BranchInput::Commit => to(Row::P6, Committed).durable(Durable::Apply).then(finished(true)),
        BranchInput::Abort => to(Row::P7, Aborted).durable(Durable::Undo).then(finished(false)),
        BranchInput::InquiryTimer | BranchInput::Restart => {
            to(Row::P8, Prepared).then(Answer::Inquire)
        }
        BranchInput::Timeout | BranchInput::Disconnect | BranchInput::Forget => {
            ignored(Prepared, IN_DOUBT)
        }
    }
}

fn committed(input: &BranchInput) -> Step {
    use BranchState::{Committed, None};
    match input {
        BranchInput::Prepare { has_work: _, maybe_forgotten: _ } => {
            to(Row::P11, Committed).then(Answer::Vote(Vote::Yes))
        }
        BranchInput::Commit => to(Row::P11, Committed).then(finished(true)),
        // Refused by telling what stands: the coordinator finds the contradiction as well.
        BranchInput::Abort => to(Row::P13, Committed).then(finished(true)).attention(VIOLATED),
        BranchInput::Forget => to(Row::Forget, None).durable(Durable::Forget),
        BranchInput::Start
        | BranchInput::WorkDone
        | BranchInput::WorkReadOnly
        | BranchInput::WorkFailed { .. }
        | BranchInput::InquiryTimer
        | BranchInput::Restart
        | BranchInput::Timeout
        | BranchInput::Disconnect => ignored(Committed, ENDED),
    }
}

fn aborted(input: &BranchInput) -> Step {
    use BranchState::{Aborted, None};
    match input {
        BranchInput::Prepare { has_work: _, maybe_forgotten: _ } => {
            to(Row::P12, Aborted).then(Answer::NoAsRecorded)
        }
        BranchInput::Abort => to(Row::P12, Aborted).then(finished(false)),
        BranchInput::Commit => to(Row::P13, Aborted).then(finished(false)).attention(VIOLATED),
        BranchInput::Forget => to(Row::Forget, None).durable(Durable::Forget),
        BranchInput::Start
        | BranchInput::WorkDone
        | BranchInput::WorkReadOnly
        | BranchInput::WorkFailed { .. }
        | BranchInput::InquiryTimer
        | BranchInput::Restart
        | BranchInput::Timeout
        | BranchInput::Disconnect => ignored(Aborted, ENDED),
    }
}

fn to(row: Row, next: BranchState) -> Step {
    Step { row, next, work: None, durable: None, then: None, attention: None }
}

fn ignored(state: BranchState, reason: &'static str) -> Step {
    to(Row::Ignored(reason), state)
}

fn finished(committed: bool) -> Answer {
    Answer::Finished { committed }
}

fn no(reason: impl Into<String>, retryable: bool) -> Answer {
    Answer::Vote(Vote::No { reason: reason.into(), retryable })
}

impl Step {
    fn work(mut self, work: Work) -> Self {
        self.work = Some(work);
        self
    }

    fn durable(mut self, durable: Durable) -> Self {
        self.durable = Some(durable);
        self
    }

    fn then(mut self, answer: Answer) -> Self {
        self.then = Some(Held(answer));
        self
    }

    fn attention(mut self, reason: &'static str) -> Self {
        self.attention = Some(reason);
        self
    }
}
