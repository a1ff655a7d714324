//! The proof: what the databases, the topic and the application's own words have to agree on.

use std::collections::{BTreeMap, BTreeSet};

use super::bank::{ACCOUNTS, LEDGER, ORDERS, START};
use super::part::End;
use super::report::Markers;

/// Everything that was left behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// What the application said.
    pub(super) told: BTreeMap<i64, End>,
    /// Transfers by their events: number, and kind of transfer.
    pub(super) events: Vec<(i64, String)>,
    /// Transfers that took effect in each database.
    pub(super) orders: Vec<i64>,
    pub(super) ledger: Vec<i64>,
    pub(super) markers: Markers,
    pub(super) sum: i64,
    pub(super) wrong_sums: u64,
    /// Prepared branches and open transactions.
    pub(super) in_doubt: u64,
    /// Whether that was in time.
    pub(super) settled_in_time: bool,
}

/// What is to be proven, and whether it holds.
pub(super) fn prove(evidence: &Evidence) -> BTreeMap<&'static str, bool> {
    let by_kind = |kinds: &[&str]| -> BTreeSet<i64> {
        let of_kind = evidence.events.iter().filter(|(_, kind)| kinds.contains(&kind.as_str()));
        of_kind.map(|(number, _)| *number).collect()
    };
    let all: BTreeSet<i64> = evidence.events.iter().map(|(number, _)| *number).collect();
    let (orders, ledger) = (by_kind(&["distributed", ORDERS]), by_kind(&["distributed", LEDGER]));
    let once = |effects: &[i64], expected: &BTreeSet<i64>| {
        effects.len() == expected.len() && effects.iter().all(|number| expected.contains(number))
    };
    let told = |end: End| evidence.told.iter().filter(move |(_, e)| **e == end).map(|(n, _)| n);
    let count = |set: &BTreeSet<i64>| i64::try_from(set.len()).unwrap_or(i64::MAX);
    BTreeMap::from([
        ("money_is_conserved", evidence.sum == 2 * ACCOUNTS * START),
        ("money_was_conserved_at_every_read", evidence.wrong_sums == 0),
        ("every_event_once", all.len() == evidence.events.len()),
        ("what_took_effect_in_postgresql_has_its_event_and_is_there_once", {
            once(&evidence.orders, &orders)
        }),
        ("what_took_effect_in_mariadb_has_its_event_and_is_there_once", {
            once(&evidence.ledger, &ledger)
        }),
        ("what_was_told_committed_is", told(End::Committed).all(|n| all.contains(n))),
        ("what_was_told_failed_is_not", told(End::Failed).all(|n| !all.contains(n))),
        (
            "markers_equal_commits",
            (evidence.markers.orders, evidence.markers.ledger) == (count(&orders), count(&ledger)),
        ),
        ("nothing_is_in_doubt", evidence.in_doubt == 0),
        ("in_time", evidence.settled_in_time),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Evidence {
        Evidence {
            told: BTreeMap::from([(1, End::Committed), (2, End::Failed), (3, End::Unknown)]),
            events: vec![(1, "distributed".into()), (3, ORDERS.into())],
            orders: vec![1, 3],
            ledger: vec![1],
            markers: Markers { orders: 2, ledger: 1 },
            sum: 2 * ACCOUNTS * START,
            settled_in_time: true,
            ..Evidence::default()
        }
    }

    #[test]
    fn what_is_sound_is_proven() {
        assert!(prove(&sound()).values().all(|holds| *holds), "{:?}", prove(&sound()));
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        type Break = fn(&mut Evidence);
        let broken: [(&str, Break); 10] = [
            ("money_is_conserved", |e| e.sum += 1),
            ("money_was_conserved_at_every_read", |e| e.wrong_sums = 1),
            ("every_event_once", |e| e.events.push((1, "distributed".into()))),
            ("what_took_effect_in_postgresql_has_its_event_and_is_there_once", |e| {
                e.orders.push(3);
            }),
            ("what_took_effect_in_mariadb_has_its_event_and_is_there_once", |e| {
                e.ledger.clear();
            }),
            ("what_was_told_committed_is", |e| {
                e.told.insert(9, End::Committed);
            }),
            ("what_was_told_failed_is_not", |e| {
                e.told.insert(1, End::Failed);
            }),
            ("markers_equal_commits", |e| e.markers.ledger = 0),
            ("nothing_is_in_doubt", |e| e.in_doubt = 1),
            ("in_time", |e| e.settled_in_time = false),
        ];
        for (proof, break_it) in broken {
            let mut evidence = sound();
            break_it(&mut evidence);
            assert!(!prove(&evidence)[proof], "{proof}");
        }
    }
}
