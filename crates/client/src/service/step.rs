//! One durable step of a service, from the first message to the proof that it is on disk.
//!
//! Everything that decides is read in the step. It changes nothing outside of it: what is to
//! be scheduled and reported is noted, and answers are held back, until the step is committed.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Began, Now, StoreId, TransactionId};
use handfast_core::output::ToService;
use handfast_core::participant::{
    Answer, BranchInput, BranchState, Durable, Held, Row, Step, Work, maybe_forgotten, step,
};

use handfast_core::reason::clipped;

use super::handler::{Handler, No, Prepared};
use super::schedule::{Decision, Schedule};
use super::store::{Branch, CommitError, Recorded, StoreStep};

/// A durable step under way.
pub(super) struct DurableStep<'a, St, H> {
    step: St,
    handler: &'a H,
    schedule: &'a Schedule,
    now: Now,
    /// Present: handlers are not called; each call counts as failed, for this reason.
    veto: Option<&'a str>,
    /// Read once, of the store that the messages are of.
    horizon: Option<(StoreId, Option<Began>)>,
    /// Finishes that failed in this very step.
    failed: BTreeSet<TransactionId>,
    held: Vec<HeldFor>,
    notes: Vec<Note>,
}

/// An answer about a branch.
struct HeldFor {
    id: TransactionId,
    held: Held,
    /// The reason that is recorded with a tombstone.
    recorded_no: Option<No>,
}

/// What a step that is on disk leads to.
pub(super) struct Done {
    /// To send.
    pub(super) commands: Vec<Command>,
    /// To schedule and to report.
    pub(super) notes: Vec<Note>,
}

/// What is to be done once the step is on disk.
#[derive(Debug)]
pub(super) enum Note {
    /// The branch voted YES.
    Prepared(TransactionId),
    /// The branch is not prepared, or not any more.
    Ended(TransactionId),
    /// An inquiry goes out.
    Inquired(TransactionId),
    /// The coordinator says when to inquire again.
    Pending(TransactionId, u64),
    /// The decision could not be carried out.
    FinishFailed { id: TransactionId, decision: Decision, error: String },
    /// The handler panicked in `prepare`.
    Panicked(TransactionId, String),
    /// A person should look.
    Attention(TransactionId, &'static str),
    /// Some outcomes were forgotten.
    Forgot,
}

/// Why nothing of a prepare is kept.
enum Unkept {
    ReadOnly,
    No(No),
    Panicked(String),
}

impl<'a, St, H> DurableStep<'a, St, H>
where
    St: StoreStep,
    H: Handler<St::Db>,
{
    pub(super) fn new(step: St, handler: &'a H, schedule: &'a Schedule, now: Now) -> Self {
        Self {
            step,
            handler,
            schedule,
            now,
            veto: None,
            horizon: None,
            failed: BTreeSet::new(),
            held: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn with_veto(mut self, veto: Option<&'a str>) -> Self {
        self.veto = veto;
        self
    }

    /// Takes in one message of the coordinator.
    pub(super) fn message(&mut self, message: &ToService) -> Result<(), St::Error> {
        match message {
            ToService::Prepare { id, began, work, remaining_ms: _ } => {
                self.prepare(*id, *began, work.as_deref())
            }
            ToService::Commit { id, began } => self.decided(*id, Decision::Commit(*began)),
            ToService::Abort { id } => self.decided(*id, Decision::Abort),
            ToService::Pending { id, retry_after_ms } => {
                self.notes.push(Note::Pending(*id, *retry_after_ms));
                Ok(())
            }
            ToService::Forget { ids } => self.forget(ids),
        }
    }

    /// Asks for the decision if the branch is still in doubt.
    pub(super) fn inquire(&mut self, id: TransactionId) -> Result<(), St::Error> {
        let known = self.step.load(id)?;
        let taken = step(state_of(known.as_ref()), BranchInput::InquiryTimer);
        self.notes.push(match taken.row {
            Row::P8 => Note::Inquired(id),
            _ => Note::Ended(id),
        });
        self.answer(id, taken, known.as_ref());
        Ok(())
    }

    /// Makes the step durable, and only then says what to answer and what to note.
    pub(super) fn commit(self) -> Result<Done, CommitError<St::Error>> {
        let proof = self.step.commit()?;
        let release =
            |HeldFor { id, held, recorded_no }| command(id, held.release(&proof), recorded_no);
        Ok(Done { commands: self.held.into_iter().map(release).collect(), notes: self.notes })
    }

    fn prepare(
        &mut self,
        id: TransactionId,
        began: Began,
        work: Option<&[u8]>,
    ) -> Result<(), St::Error> {
        let known = self.step.load(id)?;
        let state = state_of(known.as_ref());
        let maybe_forgotten = known.is_none() && self.maybe_forgotten(began)?;
        let input = BranchInput::Prepare { has_work: work.is_some(), maybe_forgotten };
        let taken = step(state, input);
        let work = work.unwrap_or_default();
        match taken.work {
            None => self.carry_out(id, Some(began), taken, known, work, None),
            Some(Work::Do | Work::Finish) => {
                let ended = self.do_work(id, work)?;
                let no = match &ended {
                    BranchInput::WorkFailed { reason, retryable } => {
                        Some(No { reason: reason.clone(), retryable: *retryable })
                    }
                    _ => None,
                };
                self.carry_out(id, Some(began), step(taken.next, ended), known, work, no)
            }
        }
    }

    fn decided(&mut self, id: TransactionId, decision: Decision) -> Result<(), St::Error> {
        let known = self.step.load(id)?;
        let (input, began) = match decision {
            Decision::Commit(began) => (BranchInput::Commit, Some(began)),
            Decision::Abort => (BranchInput::Abort, None),
        };
        let taken = step(state_of(known.as_ref()), input);
        self.carry_out(id, began, taken, known, &[], None)
    }

    fn forget(&mut self, ids: &[TransactionId]) -> Result<(), St::Error> {
        // The latest of each store; there is hardly ever more than one.
        let mut horizons: BTreeMap<StoreId, Began> = BTreeMap::new();
        let mut forgot = false;
        for id in ids {
            let known = self.step.load(*id)?;
            let state = state_of(known.as_ref());
            let taken = step(state, BranchInput::Forget);
            if taken.durable == Some(Durable::Forget) {
                self.step.forget(*id)?;
                forgot = true;
                let began = known.and_then(|branch| branch.began);
                if let (BranchState::Committed, Some(began)) = (state, began) {
                    let horizon = horizons.entry(began.store).or_insert(began);
                    *horizon = began.max(*horizon);
                }
            }
        }
        for horizon in horizons.into_values() {
            self.step.raise_horizon(horizon)?;
            self.horizon = None;
        }
        if forgot {
            self.notes.push(Note::Forgot);
        }
        Ok(())
    }

    /// A commit was forgotten of a transaction that began no earlier than this one. So this one
    /// may have been committed and forgotten as well, and to do its work could be to do it twice.
    fn maybe_forgotten(&mut self, began: Began) -> Result<bool, St::Error> {
        let horizon = match self.horizon {
            Some((store, read)) if store == began.store => read,
            _ => self.step.horizon(began.store)?,
        };
        self.horizon = Some((began.store, horizon));
        Ok(maybe_forgotten(began, horizon))
    }

    /// Lets the handler prepare, and says how that ended.
    fn do_work(&mut self, id: TransactionId, work: &[u8]) -> Result<BranchInput, St::Error> {
        if let Some(veto) = self.veto {
            return Ok(failed(No::new(veto)));
        }
        let handler = self.handler;
        let kept = self.step.attempt(|db| {
            // What a panicking handler wrote is undone; its own memory is its own concern.
            match catch_unwind(AssertUnwindSafe(|| handler.prepare(db, id, work))) {
                Ok(Ok(Prepared::Yes)) => Ok(()),
                Ok(Ok(Prepared::ReadOnly)) => Err(Unkept::ReadOnly),
                Ok(Err(no)) => Err(Unkept::No(no)),
                Err(panic) => Err(Unkept::Panicked(panic_message(&*panic))),
            }
        })?;
        Ok(match kept {
            Ok(()) => BranchInput::WorkDone,
            Err(Unkept::ReadOnly) => BranchInput::WorkReadOnly,
            Err(Unkept::No(no)) => failed(no),
            Err(Unkept::Panicked(message)) => {
                let no = No::new(format!("the service panicked: {message}"));
                self.notes.push(Note::Panicked(id, message));
                failed(no)
            }
        })
    }

    /// Does what the protocol says, in its order. `began` comes with a prepare and with a commit. If a
    /// decision cannot be carried out, its step is dropped as a whole: the branch stays as it is and
    /// nothing is answered.
    fn carry_out(
        &mut self,
        id: TransactionId,
        began: Option<Began>,
        taken: Step,
        known: Option<Branch>,
        work: &[u8],
        no: Option<No>,
    ) -> Result<(), St::Error> {
        let decision = began.map_or(Decision::Abort, Decision::Commit);
        let recorded = match taken.durable {
            None => None,
            Some(Durable::Prepare) => Some(Recorded::Prepared { work: work.to_vec() }),
            Some(Durable::Apply) => {
                if !self.finish(id, decision, known.as_ref())? {
                    return Ok(());
                }
                Some(Recorded::Committed)
            }
            Some(Durable::Undo) => {
                if !self.finish(id, decision, known.as_ref())? {
                    return Ok(());
                }
                Some(Recorded::Aborted { no: None })
            }
            Some(Durable::Tombstone) => Some(Recorded::Aborted { no }),
            Some(Durable::Forget) => {
                self.step.forget(id)?;
                None
            }
        };
        let known = match recorded {
            None => known,
            Some(recorded) => {
                let began = known.and_then(|branch| branch.began).or(began);
                let branch = Branch { recorded, began, at_unix_ms: self.now.wall_ms };
                self.step.save(id, &branch)?;
                Some(branch)
            }
        };
        match taken.next {
            BranchState::Prepared if taken.durable.is_some() => {
                self.notes.push(Note::Prepared(id));
            }
            BranchState::Prepared | BranchState::Working => {}
            BranchState::None | BranchState::Committed | BranchState::Aborted => {
                self.notes.push(Note::Ended(id));
            }
        }
        if let Some(reason) = taken.attention {
            self.notes.push(Note::Attention(id, reason));
        }
        self.answer(id, taken, known.as_ref());
        Ok(())
    }

    /// Lets the handler finish a prepared branch. False: it is to be tried again later.
    fn finish(
        &mut self,
        id: TransactionId,
        decision: Decision,
        known: Option<&Branch>,
    ) -> Result<bool, St::Error> {
        if self.failed.contains(&id) || self.schedule.waits(id, self.now.mono_ms) {
            return Ok(false);
        }
        let Some(Branch { recorded: Recorded::Prepared { work }, .. }) = known else {
            unreachable!("only a prepared branch is applied or undone");
        };
        let handler = self.handler;
        let finished = match self.veto {
            Some(veto) => Err(veto.to_owned()),
            None => self.step.attempt(|db| {
                let finish = AssertUnwindSafe(|| match decision {
                    Decision::Commit(_) => handler.commit(db, id, work),
                    Decision::Abort => handler.abort(db, id, work),
                });
                match catch_unwind(finish) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(panic) => Err(format!("panicked: {}", panic_message(&*panic))),
                }
            })?,
        };
        let Err(error) = finished else { return Ok(true) };
        self.failed.insert(id);
        self.notes.push(Note::FinishFailed { id, decision, error });
        Ok(false)
    }

    fn answer(&mut self, id: TransactionId, taken: Step, known: Option<&Branch>) {
        if let Some(held) = taken.then {
            let recorded_no = match known.map(|branch| &branch.recorded) {
                Some(Recorded::Aborted { no }) => no.clone(),
                Some(Recorded::Prepared { .. } | Recorded::Committed) | None => None,
            };
            self.held.push(HeldFor { id, held, recorded_no });
        }
    }
}

fn state_of(known: Option<&Branch>) -> BranchState {
    known.map_or(BranchState::None, |branch| branch.recorded.state())
}

fn command(id: TransactionId, answer: Answer, recorded_no: Option<No>) -> Command {
    match answer {
        Answer::Vote(vote) => Command::Vote { id, vote },
        Answer::NoAsRecorded => {
            let No { reason, retryable } =
                recorded_no.unwrap_or_else(|| No::retryable("the branch was aborted before"));
            Command::Vote { id, vote: Vote::No { reason, retryable } }
        }
        Answer::Finished { committed } => Command::Finished { id, committed },
        Answer::NotKnown => Command::NotKnown { id },
        Answer::Inquire => Command::Inquire { id },
    }
}

fn failed(no: No) -> BranchInput {
    let No { mut reason, retryable } = no;
    reason = clipped(reason);
    BranchInput::WorkFailed { reason, retryable }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
