//! Rows C3 and C9: appends that are lost or unknown.
#![expect(clippy::print_stderr, reason = "the figures of a run are for people")]

use handfast_sim::cluster::{Hits, run};

fn all(events: bool) -> Hits {
    let mut hits = Hits::default();
    for seed in 0..5_000 {
        let one = run(seed, events).unwrap_or_else(|wrong| panic!("{wrong}"));
        hits.c3 += one.c3;
        hits.c9 += one.c9;
        hits.end += one.end;
        hits.transactions += one.transactions;
    }
    eprintln!("{hits:?}");
    hits
}

#[test]
fn what_stands_in_the_log_is_adopted() {
    let hits = all(false);
    assert!(hits.c3 > 1_000 && hits.c9 > 1_000 && hits.end > 1_000);
}

/// Not there yet, and known: an event gets its offset when its COMMIT is made, so a COMMIT that
/// finds its place later, behind one with higher offsets, breaks the order of offsets. One machine
/// never loses an append; before several do, offsets have to be given by the place in the log.
#[test]
#[should_panic(expected = "fell (I11)")]
fn a_commit_with_events_cannot_be_placed_later() {
    all(true);
}
