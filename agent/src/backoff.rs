//! How long to wait after a failure: doubles, with chance from a seed, so that a simulated run repeats exactly.

use chrono::TimeDelta;

/// The first wait, in milliseconds.
const BASE_MILLIS: u64 = 500;
/// The longest wait, in milliseconds.
const MAX_MILLIS: u64 = 30_000;

/// A growing wait.
#[derive(Debug, Clone)]
pub struct Backoff {
    state: u64,
    failures: u32,
}

impl Backoff {
    /// A wait that grows from its beginning; equal seeds give equal waits.
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed, failures: 0 }
    }

    /// How long to wait after one more failure: 50 to 100 % of twice the last one.
    pub fn after_failure(&mut self) -> TimeDelta {
        let whole = (BASE_MILLIS << self.failures.min(16)).min(MAX_MILLIS);
        self.failures = self.failures.saturating_add(1);
        let millis = whole / 2 + self.next() % (whole / 2 + 1);
        TimeDelta::milliseconds(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// It worked: the next failure waits short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): enough for spreading retries.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_repeat_with_their_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::seeded(seed);
            std::array::from_fn::<_, 12, _>(|_| backoff.after_failure().num_milliseconds())
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        for (failure, wait) in waits(7).into_iter().enumerate() {
            let whole = (500_i64 << failure.min(16)).min(30_000);
            assert!((whole / 2..=whole).contains(&wait), "failure {failure}: {wait}");
        }
    }
}
