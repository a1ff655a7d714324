//! What happens to the parts while the transfers run: decided by the seed, and bound to how many
//! transfers have ended rather than to a clock, so that every run has it in its middle.

use super::plan::Side;
use crate::harness::Random;

/// Whom a SIGKILL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Server,
    /// One of its instances.
    Service(Side),
    Subscriber,
    Client,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Kill(Target),
    /// Another instance of this service joins.
    Join(Side),
    /// An instance of this service is told to leave.
    Leave(Side),
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Once so many transfers have ended.
    pub(super) after: u32,
    pub(super) what: What,
}

/// The order of the kills; it starts again when there are more.
const TURNS: [Target; 6] = [
    Target::Server,
    Target::Service(Side::East),
    Target::Service(Side::West),
    Target::Subscriber,
    Target::Client,
    Target::Server,
];

/// The events in their order.
pub(super) fn script(random: &mut Random, transfers: u32, kills: u32) -> Vec<Event> {
    let mut events: Vec<_> = (0..kills)
        .map(|kill| {
            let target = TURNS[kill as usize % TURNS.len()];
            // Each kill has a share of the run to itself, and falls anywhere into it.
            let share = u64::from(transfers).saturating_mul(9) / (u64::from(kills) * 10);
            let after = u64::from(kill) * share + 1 + random.below(share.max(1));
            Event { after: at_most(after, transfers), what: What::Kill(target) }
        })
        .collect();
    let part = |tenths: u64| at_most(u64::from(transfers) * tenths / 10, transfers);
    events.push(Event { after: part(3), what: What::Join(Side::East) });
    events.push(Event { after: part(6), what: What::Leave(Side::East) });
    events.sort_by_key(|event| event.after);
    events
}

/// Before the last transfer has ended, so that there is something left to disturb.
fn at_most(after: u64, transfers: u32) -> u32 {
    u32::try_from(after).unwrap_or(u32::MAX).min(transfers.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_happens_while_transfers_run() {
        for (transfers, kills) in [(1, 0), (1, 9), (3, 4), (200, 4), (2_000, 6), (u32::MAX, 1_000)]
        {
            let events = script(&mut Random::new(7), transfers, kills);
            let killed = events.iter().filter(|e| matches!(e.what, What::Kill(_))).count();
            assert_eq!(killed, kills as usize);
            assert_eq!(events.len(), kills as usize + 2);
            assert!(events.iter().all(|event| event.after < transfers));
            assert!(events.is_sorted_by_key(|event| event.after));
        }
    }

    #[test]
    fn six_kills_reach_everybody() {
        let events = script(&mut Random::new(1), 2_000, 6);
        for target in TURNS {
            assert!(events.iter().any(|event| event.what == What::Kill(target)), "{target:?}");
        }
    }
}
