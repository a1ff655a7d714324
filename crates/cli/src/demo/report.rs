//! The last report: for programs as one JSON document, for people as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use super::evidence::Evidence;
use super::plan::Plan;
use super::proof::{Proof, amount, prove};

/// How it went. Money is in cents.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    transfers: usize,
    committed: usize,
    failed: usize,
    money_before: i64,
    money_after: i64,
    events: usize,
    duplicates: usize,
    redelivered: u64,
    retried: u64,
    in_doubt: u64,
    kills: u32,
    restarts: u32,
    joined: u32,
    left: u32,
    seconds: f64,
    seed: u64,
    proofs: BTreeMap<&'static str, bool>,
    #[serde(skip)]
    details: Vec<Proof>,
}

/// What has happened to the parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Happened {
    pub(super) seed: u64,
    pub(super) kills: u32,
    pub(super) restarts: u32,
    pub(super) joined: u32,
    pub(super) left: u32,
    pub(super) seconds: f64,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        money_before: i64,
        evidence: &Evidence,
        happened: Happened,
    ) -> Self {
        let details = prove(plan, money_before, evidence);
        let ended = || plan.transfers.iter().filter_map(|t| evidence.ended(t.number));
        Self {
            ok: details.iter().all(|proof| proof.holds),
            transfers: plan.transfers.len(),
            committed: ended().filter(|ended| ended.committed).count(),
            failed: ended().filter(|ended| !ended.committed).count(),
            money_before,
            money_after: evidence.money(),
            events: evidence.events(),
            duplicates: evidence.duplicates(plan),
            redelivered: evidence.redelivered,
            retried: ended().map(|ended| u64::from(ended.attempts - 1)).sum(),
            in_doubt: evidence.in_doubt(plan),
            kills: happened.kills,
            restarts: happened.restarts,
            joined: happened.joined,
            left: happened.left,
            seconds: (happened.seconds * 1_000.0).round() / 1_000.0,
            seed: happened.seed,
            proofs: details.iter().map(|proof| (proof.name, proof.holds)).collect(),
            details,
        }
    }

    /// The titles of the proofs that failed.
    pub(crate) fn failed_proofs(&self) -> Vec<&'static str> {
        self.details.iter().filter(|proof| !proof.holds).map(|proof| proof.title).collect()
    }

    /// For people. `colour`: escape codes are welcome.
    pub(crate) fn text(&self, colour: bool) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["", "proof", "figures"]);
        for Proof { title, figures, holds, .. } in &self.details {
            let mark = if *holds { "✓" } else { "✗" };
            table.add_row([mark, title, figures.as_str()]);
        }
        let mut text = table.to_string();
        if colour {
            text = text.replace('✓', "\x1b[32m✓\x1b[0m").replace('✗', "\x1b[31m✗\x1b[0m");
        }
        let Self { transfers, committed, failed, kills, restarts, joined, left, .. } = self;
        let Self { redelivered, retried, duplicates, seconds, seed, .. } = self;
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "\n{transfers} transfers in {seconds:.1} s: {committed} committed, {failed} failed.\n\
             {kills} kills, {restarts} restarts, {joined} joined, {left} left; {retried} \
             transactions were tried again.\n\
             {redelivered} events came again and were ignored, {duplicates} duplicates.\n\
             {} was there before and {} after. Seed {seed}.",
            amount(self.money_before),
            amount(self.money_after),
        );
        text
    }
}
