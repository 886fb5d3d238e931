//! Whether memory grew while something went on, judged by the medians of quarters: single peaks are the machine's.

/// How much memory may grow from the second quarter to the last, as a share of it. The first is for warming up.
const GROWTH: f64 = 0.05;

/// A quarter of the samples, from 0.
pub(crate) fn quarter<T>(samples: &[T], number: usize) -> &[T] {
    let len = samples.len();
    &samples[len * number / 4..len * (number + 1) / 4]
}

/// The value in the middle; `None` without any.
pub(crate) fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Whether it is more than noise, where pages of `slack` bytes come and go.
pub(crate) fn has_grown(before: u64, after: u64, slack: u64) -> bool {
    after as f64 > before as f64 * (1.0 + GROWTH) + slack as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_no_growth() {
        assert!(!has_grown(100, 105, 0) && has_grown(100, 106, 0));
        assert!(!has_grown(100, 115, 10) && has_grown(100, 116, 10));
        assert!(!has_grown(100, 50, 0));
    }

    #[test]
    fn quarters_are_all_there_is() {
        let samples = [1, 2, 3, 4, 5, 6, 7];
        let all: Vec<i32> = (0..4).flat_map(|number| quarter(&samples, number).to_vec()).collect();
        assert_eq!(all, samples);
        assert_eq!(quarter(&samples, 3), [6, 7]);
        assert_eq!((median(vec![9, 1, 5]), median(Vec::new())), (Some(5), None));
    }
}
