//! The last report: for programs as one JSON document, for people as lines.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

/// Kills, by victim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Kills {
    pub(crate) server: u32,
    pub(crate) postgres: u32,
    pub(crate) mariadb: u32,
    /// Both databases in the same instant.
    pub(crate) both: u32,
    pub(crate) application: u32,
}

impl Kills {
    pub(super) fn all(&self) -> u32 {
        self.server + self.postgres + self.mariadb + self.both + self.application
    }
}

/// Committed branches, by database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Markers {
    pub(crate) orders: i64,
    pub(crate) ledger: i64,
}

/// How it went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    /// Transfers whose end was told, and those that were under way when the application was killed
    /// and turned out to be committed.
    pub(crate) transfers: u64,
    pub(crate) committed: u64,
    pub(crate) failed: u64,
    /// Transfers of which the application did not get to know the end. They have one.
    pub(crate) unknown: u64,
    pub(crate) kills: Kills,
    pub(crate) markers: Markers,
    /// All accounts together, before and after.
    pub(crate) money_before: i64,
    pub(crate) money_after: i64,
    pub(crate) events: u64,
    /// Effects that are there more than once.
    pub(crate) duplicates: u64,
    /// Reads of all balances, and how many of them did not find all the money.
    pub(crate) reads: u64,
    pub(crate) wrong_sums: u64,
    pub(crate) reads_blocked: u64,
    /// Still prepared, at the end.
    pub(crate) in_doubt: u64,
    /// The longest that a branch was seen prepared, while things were being killed.
    pub(crate) longest_in_doubt_ms: u64,
    /// From the last restart until nothing was prepared or open.
    pub(crate) settled_ms: u64,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
    pub(crate) proofs: BTreeMap<&'static str, bool>,
}

impl Report {
    /// What was not proven.
    pub(crate) fn failed_proofs(&self) -> Vec<&'static str> {
        self.proofs.iter().filter(|(_, holds)| !**holds).map(|(name, _)| *name).collect()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let Kills { server, postgres, mariadb, both, application } = self.kills;
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<20}{value}");
        };
        line(
            "transfers",
            format!(
                "{} committed, {} failed, {} unknown to the application",
                self.committed, self.failed, self.unknown
            ),
        );
        line(
            "kills",
            format!(
                "{server} server, {postgres} PostgreSQL, {mariadb} MariaDB, {both} both, \
                 {application} application"
            ),
        );
        line(
            "markers",
            format!("{} PostgreSQL, {} MariaDB", self.markers.orders, self.markers.ledger),
        );
        line("events", self.events.to_string());
        line(
            "money",
            format!(
                "{} before, {} after; read {} times, wrong {} times, {} reads blocked",
                self.money_before,
                self.money_after,
                self.reads,
                self.wrong_sums,
                self.reads_blocked
            ),
        );
        line("longest in doubt", format!("{} ms, kills included", self.longest_in_doubt_ms));
        line("settled after", format!("{} ms; {} left in doubt", self.settled_ms, self.in_doubt));
        line("seconds", format!("{:.1}, seed {}", self.seconds, self.seed));
        for (name, holds) in &self.proofs {
            line(if *holds { "proven" } else { "NOT PROVEN" }, name.replace('_', " "));
        }
        text.truncate(text.trim_end().len());
        text
    }
}
