//! Drives a service's branches: messages of the coordinator in, answers out.
//!
//! A batch of messages is one durable step. Nothing is answered before the step is on disk; if it
//! fails, nothing is answered at all. No state of a branch is kept in memory between two steps,
//! because other processes may share the store.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::slice;

use handfast_core::command::Command;
use handfast_core::ids::{Now, StateId};
use handfast_core::output::ToService;
use handfast_core::reason::clipped;

use super::handler::Handler;
use super::report::Report;
use super::schedule::{Decision, Schedule};
use super::step::{Done, DurableStep, Note};
use super::store::{CommitError, ServiceStore, StoreStep};

/// Most branches that one call asks about.
const PAGE: u32 = 1_000;
/// Outcomes younger than this are not asked about, in milliseconds: repeats of what led to them
/// may still be under way.
const OUTCOME_MS: u64 = 60_000;

/// A service as a participant: its handler, its store, its timers.
///
/// 1. When a stream to the coordinator is up, attach with [`Driver::state_id`] and call
///    [`Driver::start`].
/// 2. Hand each batch of messages to [`Driver::process`].
/// 3. When [`Driver::next_deadline_ms`] is reached, call [`Driver::tick`].
///
/// Each call returns commands to send: votes, reports of the end, "not known", inquiries, and
/// requests to forget. They may be sent over any stream of this state id, once or often, or be
/// lost. An error of a call is a fault of the store: end the stream, and connect again later.
///
/// A service that was asked to work by other means votes by handing itself the `Prepare` with the
/// work, and sending the vote that comes back.
pub struct Driver<S, H> {
    store: S,
    handler: H,
    schedule: Schedule,
    report: Box<dyn FnMut(Report) + Send>,
}

impl<S, H> Driver<S, H>
where
    S: ServiceStore,
    H: Handler<S::Db>,
{
    /// A driver that calls `report` for what a person should know.
    pub fn new(store: S, handler: H, report: impl FnMut(Report) + Send + 'static) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self { store, handler, schedule: Schedule::new(seed), report: Box::new(report) }
    }

    /// Spreads its timers by this seed, so that a run can be repeated.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.schedule = Schedule::new(seed);
        self
    }

    /// What the service announces when it attaches.
    #[must_use]
    pub fn state_id(&self) -> StateId {
        self.store.state_id()
    }

    /// The store, for the service's own reading between two calls.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The service has started, or is connected again: asks about everything in doubt (P8). What
    /// does not fit into one call is due at once.
    ///
    /// # Errors
    /// The store failed.
    pub fn start(&mut self, now: Now) -> Result<Vec<Command>, S::Error> {
        self.schedule.restart(now.mono_ms);
        self.tick(now)
    }

    /// Takes in messages of the coordinator, in one durable step, and says what to answer.
    ///
    /// # Errors
    /// The store failed. Nothing may be answered; whether the step took place is not known, and
    /// the coordinator's repeats will tell.
    pub fn process(&mut self, now: Now, messages: &[ToService]) -> Result<Vec<Command>, S::Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        match self.pass(now, messages, None) {
            Ok(commands) => Ok(commands),
            Err(CommitError::Fault(error)) => Err(error),
            Err(CommitError::Refused(_)) => self.process_singly(now, messages),
        }
    }

    /// Does what is due without a message: failed finishes again, inquiries, requests to forget.
    ///
    /// # Errors
    /// The store failed.
    pub fn tick(&mut self, now: Now) -> Result<Vec<Command>, S::Error> {
        let retries = self.schedule.due_retries(now.mono_ms, PAGE as usize);
        let again = retries.into_iter().map(|(id, retry)| match retry.decision {
            Decision::Commit(began) => ToService::Commit { id, began },
            Decision::Abort => ToService::Abort { id },
        });
        let mut commands = self.process(now, &again.collect::<Vec<_>>())?;
        if self.schedule.next_ms() <= now.mono_ms {
            commands.extend(self.housekeeping(now)?);
        }
        Ok(commands)
    }

    /// When to call [`Driver::tick`], on the clock of [`Now::mono_ms`].
    #[must_use]
    pub fn next_deadline_ms(&self) -> u64 {
        self.schedule.next_ms()
    }

    fn pass(
        &mut self,
        now: Now,
        messages: &[ToService],
        veto: Option<&str>,
    ) -> Result<Vec<Command>, CommitError<S::Error>> {
        let step = self.store.open_step().map_err(CommitError::Fault)?;
        let mut step = DurableStep::new(step, &self.handler, &self.schedule, now).with_veto(veto);
        for message in messages {
            step.message(message).map_err(CommitError::Fault)?;
        }
        let Done { mut commands, notes } = step.commit()?;
        commands.extend(self.take_notes(now, notes));
        Ok(commands)
    }

    /// Something that one of the handlers wrote is refused at commit. Each message gets a step of
    /// its own, and the one at fault counts as failed, so that it does not hold up the others.
    fn process_singly(
        &mut self,
        now: Now,
        messages: &[ToService],
    ) -> Result<Vec<Command>, S::Error> {
        let mut commands = Vec::new();
        for message in messages.iter().map(slice::from_ref) {
            let mut ended = self.pass(now, message, None);
            if let Err(CommitError::Refused(error)) = &ended {
                ended = self.pass(now, message, Some(&error.to_string()));
            }
            match ended {
                Ok(answers) => commands.extend(answers),
                Err(CommitError::Refused(error) | CommitError::Fault(error)) => return Err(error),
            }
        }
        Ok(commands)
    }

    fn housekeeping(&mut self, now: Now) -> Result<Vec<Command>, S::Error> {
        let page = PAGE as usize;
        let mut step = self.store.open_step()?;
        if self.schedule.sweep.due_ms <= now.mono_ms {
            let prepared = step.prepared(self.schedule.sweep.after, PAGE)?;
            self.schedule.swept(&prepared, page, now.mono_ms);
        }
        let mut outcomes = None;
        if self.schedule.forget.due_ms <= now.mono_ms {
            let before = now.wall_ms.saturating_sub(OUTCOME_MS);
            outcomes = Some(step.outcomes(before, self.schedule.forget.after, PAGE)?);
        }
        let mut step = DurableStep::new(step, &self.handler, &self.schedule, now);
        for id in self.schedule.due_inquiries(now.mono_ms, page) {
            step.inquire(id)?;
        }
        let Done { mut commands, notes } = step.commit().map_err(|error| match error {
            CommitError::Refused(error) | CommitError::Fault(error) => error,
        })?;
        commands.extend(self.take_notes(now, notes));
        if let Some(outcomes) = outcomes {
            self.schedule.asked_to_forget(&outcomes, page, now.mono_ms);
            if !outcomes.is_empty() {
                let outcomes = outcomes.iter().map(|o| (o.key.id, o.began)).collect();
                commands.push(Command::MayForget { outcomes });
            }
        }
        Ok(commands)
    }

    /// What the coordinator is to hear of them: it shows people what a transaction waits for.
    fn take_notes(&mut self, now: Now, notes: Vec<Note>) -> Vec<Command> {
        let mut commands = Vec::new();
        for note in notes {
            match note {
                Note::Prepared(id) => self.schedule.prepared(id, now.mono_ms),
                Note::Ended(id) => self.schedule.ended(id),
                Note::Inquired(id) => self.schedule.inquired(id, now.mono_ms),
                Note::Pending(id, retry_after_ms) => {
                    self.schedule.pending(id, now.mono_ms, retry_after_ms);
                }
                Note::Forgot => self.schedule.forgot(now.mono_ms),
                Note::FinishFailed { id, decision, error } => {
                    let (attempts, retry_in_ms) = self.schedule.failed(id, decision, now.mono_ms);
                    let commit = matches!(decision, Decision::Commit(_));
                    let reason = clipped(error.clone());
                    commands.push(Command::NotFinished { id, reason });
                    (self.report)(Report::FinishFailed {
                        id,
                        commit,
                        attempts,
                        retry_in_ms,
                        error,
                    });
                }
                Note::Panicked(id, message) => {
                    (self.report)(Report::PreparePanicked { id, message });
                }
                Note::Attention(id, reason) => (self.report)(Report::Attention { id, reason }),
            }
        }
        commands
    }
}

impl<S, H> fmt::Debug for Driver<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}
