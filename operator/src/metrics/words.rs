//! Label values that come from outside of this room: at most so many, so that series stay bounded.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What stands for every value past the bound.
pub const OTHER: &str = "Other";

/// The values of one label that this process has given out.
#[derive(Debug)]
pub struct Words {
    seen: Mutex<BTreeSet<String>>,
    count_max: usize,
}

impl Words {
    /// Gives out `count_max` values at the most, and [`OTHER`].
    pub fn new(count_max: usize) -> Self {
        Self { seen: Mutex::default(), count_max }
    }

    /// The value itself as long as there is room, and from then on always or never the same.
    pub fn take(&self, word: &str) -> String {
        // Guards nothing but the set itself, which is whole at every point.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(word) {
            return word.to_owned();
        }
        if seen.len() >= self.count_max {
            return OTHER.to_owned();
        }
        seen.insert(word.to_owned());
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_bound_every_new_value_is_one_and_the_old_ones_stay() {
        let words = Words::new(2);
        let given: Vec<String> = ["a", "b", "c", "a", "d"].into_iter().map(|word| words.take(word)).collect();
        assert_eq!(given, ["a", "b", OTHER, "a", OTHER]);
    }
}
