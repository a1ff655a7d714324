//! One checker per invariant of the specification, by its name. Each is told what happens and
//! looks only at that and at the [`Facts`]: none looks into the core, and none knows of planted
//! bugs.
//!
//! I17 (corruption is loud) is a property of the journal's bytes and is checked there.

pub mod facts;
mod i01_agreement;
mod i02_commit_validity;
mod i03_non_triviality;
mod i04_stability;
mod i05_durability;
mod i06_no_early_release;
mod i07_no_innocent_dead;
mod i07_no_lost_event;
mod i08_no_phantom;
mod i09_exactly_once;
mod i10_idempotent_begin;
mod i11_order;
mod i12_fencing;
mod i13_liveness;
mod i14_independence;
mod i15_bounded;
mod i16_recovery;
mod i21_rising_time;

use std::fmt;

use handfast_core::ids::{Lsn, Name, TransactionId};
use handfast_core::input::Input;
use handfast_core::output::Output;
use handfast_core::participant::BranchState;
use handfast_core::record::Record;

pub use facts::Facts;
use facts::{Asked, Place};

/// One thing that a checker is told. The facts are as they are after it.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The server is given an input.
    Input(&'a Input),
    /// The server lets go of an output; a reply comes with what was asked.
    Output(&'a Output, Option<&'a Asked>),
    /// A record was appended.
    Appended(Lsn, &'a Record),
    /// The input was handled, and every output carried out.
    Handled,
    /// The server ended; the facts hold the log that survived.
    Crash,
    /// Two recoveries of the same log, as checkpoints: what is different, if anything.
    Recovered(Option<&'a str>),
    /// A branch of a service has moved in its durable store.
    Branch(&'a Place, TransactionId, BranchState, BranchState),
    /// The effect of a branch became visible, for so many times now.
    Effect(&'a Place, TransactionId, u32),
    /// A transaction's work became visible in a database.
    Visible(&'a Name, TransactionId),
    /// A transaction's branch was rolled back in a database that had it prepared.
    RolledBack(&'a Name, TransactionId),
    /// The healed world has come to rest, or not: what is left undone.
    End(Option<&'a str>),
}

/// A checker.
pub trait Invariant {
    /// Its number in the specification, such as `I1`.
    fn name(&self) -> &'static str;

    /// Looks at one thing that happened.
    ///
    /// # Errors
    /// What is wrong, if the invariant does not hold.
    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String>;
}

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violated: {}", self.invariant, self.what)
    }
}

/// All checkers.
pub struct Invariants {
    all: Vec<Box<dyn Invariant>>,
    /// The first violation.
    pub violation: Option<Violation>,
}

impl fmt::Debug for Invariants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checkers, violation: {:?}", self.all.len(), self.violation)
    }
}

impl Default for Invariants {
    fn default() -> Self {
        let all: Vec<Box<dyn Invariant>> = vec![
            Box::<i01_agreement::Agreement>::default(),
            Box::<i02_commit_validity::CommitValidity>::default(),
            Box::<i03_non_triviality::NonTriviality>::default(),
            Box::<i04_stability::Stability>::default(),
            Box::<i05_durability::Durability>::default(),
            Box::<i06_no_early_release::NoEarlyRelease>::default(),
            Box::<i07_no_lost_event::NoLostEvent>::default(),
            Box::<i07_no_innocent_dead::NoInnocentDead>::default(),
            Box::<i08_no_phantom::NoPhantom>::default(),
            Box::<i09_exactly_once::ExactlyOnce>::default(),
            Box::<i10_idempotent_begin::IdempotentBegin>::default(),
            Box::<i11_order::Order>::default(),
            Box::<i12_fencing::Fencing>::default(),
            Box::<i13_liveness::Liveness>::default(),
            Box::<i14_independence::Independence>::default(),
            Box::<i15_bounded::Bounded>::default(),
            Box::<i16_recovery::RecoveryIsAFold>::default(),
            Box::<i21_rising_time::RisingTime>::default(),
        ];
        Self { all, violation: None }
    }
}

impl Invariants {
    /// Shows something to every checker; the first violation stays.
    pub fn see(&mut self, facts: &Facts, seen: &Seen<'_>) {
        if self.violation.is_some() {
            return;
        }
        for checker in &mut self.all {
            if let Err(what) = checker.see(facts, seen) {
                self.violation = Some(Violation { invariant: checker.name(), what });
                return;
            }
        }
    }
}

/// The error of a check that does not hold.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
