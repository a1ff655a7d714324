//! Latencies: recorded in a histogram, told as percentiles.
//!
//! What is recorded decides what they mean. In an open loop a latency starts when the request was
//! due, not when it was sent: a server that stalls is charged for everything that had to wait
//! (no coordinated omission). In a closed loop nothing is due before the answer to what was asked
//! before, so a latency is how long one caller waited.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest that is told apart.
const LONGEST_NS: u64 = 600_000_000_000;

/// Latencies of a microsecond to ten minutes, each to three digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, LONGEST_NS, 3);
        Self(histogram.expect("the bounds are in order and three digits are few"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST_NS));
    }

    /// As numbers, to be sent to another process.
    pub(super) fn counts(&self) -> Vec<(u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }

    /// Takes in what another process has recorded.
    pub(super) fn add(&mut self, counts: &[(u64, u64)]) {
        for (value, count) in counts {
            self.0.saturating_record_n(*value, *count);
        }
    }

    /// None: nothing was recorded.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let us = |ns: u64| ns as f64 / 1_000.0;
        let at = |share: f64| us(self.0.value_at_quantile(share));
        (!self.0.is_empty()).then(|| Percentiles {
            samples: self.0.len(),
            mean: self.0.mean() / 1_000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: us(self.0.max()),
        })
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Percentiles {
    pub(super) samples: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

impl Percentiles {
    /// Headings of a table in milliseconds.
    pub(super) const HEADINGS: [&'static str; 5] =
        ["P50 MS", "P90 MS", "P99 MS", "P99.9 MS", "MAX MS"];

    /// Cells below [`Percentiles::HEADINGS`].
    pub(super) fn cells(of: Option<Self>) -> [String; 5] {
        let Some(Self { p50, p90, p99, p99_9, max, .. }) = of else {
            return Default::default();
        };
        [p50, p90, p99, p99_9, max].map(|us| format!("{:.2}", us / 1_000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_survive_the_way_to_another_process() {
        let mut here = Latencies::new();
        for us in 1..=1_000 {
            here.record(Duration::from_micros(us));
        }
        let mut there = Latencies::new();
        there.add(&here.counts());
        let found = there.percentiles().expect("there are some");
        assert_eq!(found.samples, 1_000);
        assert!((found.p50 - 500.0).abs() < 1.0 && (found.max - 1_000.0).abs() < 1.0, "{found:?}");
        assert_eq!(Latencies::new().percentiles(), None);
    }
}
