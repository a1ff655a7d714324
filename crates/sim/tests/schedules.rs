//! Thousands of random schedules, each healed at its end; the rows that they go through; and that
//! a seed says everything: the same seed twice gives equal traces.
#![expect(clippy::print_stderr, reason = "the figures of a run are for people")]

use std::fmt::Write;

use handfast_sim::rows::{ALL, Rows};
use handfast_sim::trace::Detail;
use handfast_sim::world::run;

/// Seeds of each half, unless `HANDFAST_SEEDS` names the number of all.
const HALF: u64 = 8_000;
/// Rows that only a log of several machines causes: see `lost_appends.rs`.
const ELSEWHERE: [&str; 2] = ["C3", "C9"];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn half(which: u64) {
    let seeds = number("HANDFAST_SEEDS").map_or(HALF, |all| all / 2);
    let first = number("HANDFAST_FIRST_SEED").unwrap_or(0) + which * seeds;
    let mut rows = Rows::default();
    let (mut inputs, mut transactions, mut events, mut crashes) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let report = run(seed, None, Detail::Off).unwrap_or_else(|failure| panic!("{failure}"));
        rows.add(&report.rows);
        inputs += report.inputs;
        transactions += report.transactions;
        events += report.events;
        crashes += u64::from(report.crashes);
    }
    let mut text = String::new();
    let _ =
        writeln!(text, "{seeds} seeds from {first}: {inputs} inputs, {transactions} transactions,");
    let _ = writeln!(text, "{events} events, {crashes} restarts of the server\n{rows}");
    eprintln!("{text}");
    if seeds >= HALF {
        for row in ALL.iter().filter(|row| !ELSEWHERE.contains(row)) {
            assert!(rows.count(row) > 0, "no seed went through row {row}");
        }
    }
}

#[test]
fn every_seed_ends_healed_and_finished() {
    half(0);
}

#[test]
fn every_other_seed_ends_healed_and_finished() {
    half(1);
}

#[test]
fn the_same_seed_twice_gives_equal_traces() {
    let seeds = number("HANDFAST_SEEDS").unwrap_or(2 * HALF) / 100;
    let mut digests = std::collections::HashSet::new();
    for seed in 0..seeds {
        let once = run(seed, None, Detail::Hash).unwrap_or_else(|failure| panic!("{failure}"));
        let again = run(seed, None, Detail::Hash).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(once, again, "seed {seed}");
        digests.insert(once.digest);
    }
    assert_eq!(digests.len() as u64, seeds, "different seeds, different traces");
}

/// Runs `HANDFAST_SEED` and reports it, with all lines of its trace if `HANDFAST_LINES` is set.
#[test]
fn replay() {
    let Some(seed) = number("HANDFAST_SEED") else { return };
    let whole = std::env::var_os("HANDFAST_LINES").is_some();
    match run(seed, None, if whole { Detail::All } else { Detail::Lines }) {
        Ok(report) => eprintln!("seed {seed} holds: {report:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
