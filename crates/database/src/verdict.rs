//! What a marker says about a branch that is no longer listed as prepared.
//!
//! The order list, marker, decide is the proof: a branch that was not listed has ended, and a
//! marker looked for after that is visible if it ever will be. Looked for before, it could be
//! missed while somebody else commits.

use crate::participant::{End, Finished, Outcome};

pub(crate) fn of_ended(end: End, marker: Option<Outcome>) -> Finished {
    match (end, marker) {
        (End::Commit, Some(Outcome::Committed)) => Finished::Done,
        (End::Commit, Some(Outcome::Aborted)) => Finished::Heuristic(
            "decided to commit, but a tombstone stands in its place: it was rolled back".to_owned(),
        ),
        (End::Commit, None) => Finished::Heuristic(
            "decided to commit, but it is neither prepared nor marked: somebody rolled it back"
                .to_owned(),
        ),
        (End::Abort, Some(Outcome::Committed)) => Finished::Heuristic(
            "decided to abort, but its marker is visible: somebody committed it".to_owned(),
        ),
        (End::Abort, Some(Outcome::Aborted) | None) => Finished::Done,
    }
}
