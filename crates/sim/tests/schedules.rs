//! Thousands of random schedules, each healed at its end.

use handfast_sim::rows::Rows;
use handfast_sim::trace::Detail;
use handfast_sim::world::run;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_seed_ends_healed_and_finished() {
    let seeds = number("HANDFAST_SEEDS").unwrap_or(2_000);
    let first = number("HANDFAST_FIRST_SEED").unwrap_or(0);
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
    eprintln!(
        "{seeds} seeds, {inputs} inputs, {transactions} transactions, {events} events, {crashes} crashes\n{rows}"
    );
}

#[test]
fn replay() {
    let Some(seed) = number("HANDFAST_SEED") else { return };
    let whole = std::env::var_os("HANDFAST_LINES").is_some();
    match run(seed, None, if whole { Detail::All } else { Detail::Lines }) {
        Ok(report) => eprintln!("seed {seed} holds: {report:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
