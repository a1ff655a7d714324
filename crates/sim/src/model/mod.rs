//! The model check: every schedule of a tiny world, on the real transition code, breadth first, so
//! that the schedule it reports is a shortest one. Each state is checked, and from each a healed
//! end has to be reached.

pub mod digest;
mod tiny;

use std::collections::{HashSet, VecDeque};

use crate::fault::Fault;
pub use tiny::{Action, Budget, Tiny};

/// What a search has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different states that were visited.
    pub states: usize,
    /// Transitions that were tried.
    pub transitions: u64,
    /// The longest of the shortest schedules.
    pub depth: usize,
    /// No state is left unvisited.
    pub complete: bool,
}

/// A schedule that leads to what must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// What is wrong.
    pub what: String,
    /// A shortest schedule.
    pub schedule: Vec<Action>,
}

/// Visits up to so many states.
///
/// # Errors
/// The first state that violates an invariant, or from which no healed end is reached.
pub fn explore(
    budget: Budget,
    fault: Option<Fault>,
    most: usize,
) -> Result<Explored, Box<Counterexample>> {
    let start = Tiny::new(budget, fault);
    // Of each state: the one before and the action between. Worlds wait in the queue only.
    let mut from: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut seen: HashSet<u64> = HashSet::from([start.digest()]);
    let mut queue: VecDeque<(usize, usize, Tiny)> = VecDeque::from([(0, 0, start)]);
    let (mut transitions, mut deepest) = (0, 0);
    while let Some((at, depth, world)) = queue.pop_front() {
        deepest = deepest.max(depth);
        for action in world.actions() {
            transitions += 1;
            let mut next = world.clone();
            next.act(action);
            let new = seen.insert(next.digest());
            if !new && next.violation().is_none() {
                continue;
            }
            from.push((at, Some(action)));
            let wrong = next.violation().map(str::to_string).or_else(|| next.clone().heals());
            if let Some(what) = wrong {
                return Err(Box::new(Counterexample { what, schedule: schedule(&from) }));
            }
            if seen.len() >= most {
                let states = seen.len();
                return Ok(Explored { states, transitions, depth: deepest, complete: false });
            }
            queue.push_back((from.len() - 1, depth + 1, next));
        }
    }
    Ok(Explored { states: seen.len(), transitions, depth: deepest, complete: true })
}

/// The way to the last state.
fn schedule(from: &[(usize, Option<Action>)]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut at = from.len() - 1;
    while let (before, Some(action)) = from[at] {
        actions.push(action);
        at = before;
    }
    actions.reverse();
    actions
}
