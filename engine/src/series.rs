//! Attempts come in series of `attempts_max`: a vertex that somebody asks to try again has all of them anew.
//!
//! A series begins at the next multiple, so the number of an attempt tells its place in the series and nothing more is stored:
//! with three attempts 1, 2, 3 are the first series and 4, 5, 6 the next one, also where the first ended with 1.

/// The attempt with which the series after `attempts` attempts begins.
pub(crate) fn first_after(attempts: u32, attempts_max: u32) -> u32 {
    let attempts_max = attempts_max.max(1);
    attempts.div_ceil(attempts_max).saturating_mul(attempts_max).saturating_add(1)
}

/// Which attempt of its series that is, from 1.
pub(crate) fn number(attempt: u32, attempts_max: u32) -> u32 {
    attempt.saturating_sub(1) % attempts_max.max(1) + 1
}

/// Whether the series has another attempt after that one.
pub(crate) fn has_another(attempt: u32, attempts_max: u32) -> bool {
    number(attempt, attempts_max) < attempts_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_has_all_attempts_of_its_own() {
        assert_eq!([0, 1, 2, 3, 4].map(|attempts| first_after(attempts, 3)), [1, 4, 4, 4, 7]);
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(|attempt| number(attempt, 3)), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!([1, 2, 3, 4, 6].map(|attempt| has_another(attempt, 3)), [true, true, false, true, false]);
        assert_eq!([(0, 1), (1, 1), (7, 0)].map(|(attempts, max)| first_after(attempts, max)), [1, 2, 8]);
        assert!(!has_another(1, 1) && !has_another(5, 0));
    }
}
