//! Histograms of times, to three digits.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time told apart; longer ones count as this.
const LONGEST: u64 = 120 * crate::clock::SECOND;

/// Times in nanoseconds.
pub(crate) struct Times(Histogram<u64>);

/// What is reported of them, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("three digits of two minutes fit"))
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// `None` when nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Summary> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        Some(Summary {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1e6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_thousandth() {
        let mut times = Times::new();
        assert_eq!(times.summary(), None);
        for micros in 1..=10_000_u64 {
            times.record(micros * 1_000);
        }
        let summary = times.summary().unwrap();
        for (is, should) in
            [(summary.p50, 5.0), (summary.p99, 9.9), (summary.p999, 9.99), (summary.max, 10.0)]
        {
            assert!((is - should).abs() / should < 0.002, "{is} is not {should}");
        }
    }

    #[test]
    fn what_is_beyond_measure_counts_as_the_longest() {
        let mut times = Times::new();
        times.record(u64::MAX);
        assert!(times.summary().unwrap().p50 >= 119_000.0);
        times.clear();
        assert_eq!(times.summary(), None);
    }
}
