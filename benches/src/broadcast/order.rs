//! Whether a subscriber gets all publications, once each, in their order.

use crate::echo::{self, Failure, Failures};

/// The newest missing publications, which are still known when they come late.
const MAX_MISSING: usize = 64;

/// Where one subscriber stands.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The number that comes next.
    next: u64,
    /// The last numbers that have been left out.
    missing: Vec<u64>,
}

/// What was wrong with the order of deliveries, over all subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disorder {
    /// Deliveries that did not come.
    pub(crate) lost: u64,
    /// Deliveries that had come before.
    pub(crate) doubled: u64,
    /// Deliveries that came after later ones.
    pub(crate) reordered: u64,
}

impl Order {
    /// The number that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Notes the delivery of a number.
    pub(crate) fn deliver(&mut self, number: u64, disorder: &mut Disorder) {
        if number >= self.next {
            let known = number.saturating_sub(MAX_MISSING as u64).max(self.next);
            self.missing.extend(known..number);
            self.missing.drain(..self.missing.len().saturating_sub(MAX_MISSING));
            disorder.lost += number - self.next;
            self.next = number + 1;
        } else if let Some(index) = self.missing.iter().position(|missing| *missing == number) {
            self.missing.remove(index);
            disorder.lost -= 1;
            disorder.reordered += 1;
        } else {
            disorder.doubled += 1;
        }
    }
}

impl Disorder {
    /// Counts them among the failures.
    pub(crate) fn report(self, failures: &mut Failures) {
        let kinds = [
            (Failure::Lost, self.lost),
            (Failure::Doubled, self.doubled),
            (Failure::Reordered, self.reordered),
        ];
        for (kind, count) in kinds {
            echo::count(failures, kind, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disorder(numbers: &[u64]) -> (u64, Disorder) {
        let (mut order, mut disorder) = (Order::default(), Disorder::default());
        for &number in numbers {
            order.deliver(number, &mut disorder);
        }
        (order.next(), disorder)
    }

    #[test]
    fn faults_are_told_apart() {
        let clean = Disorder::default();
        assert_eq!(disorder(&[0, 1, 2]), (3, clean));
        assert_eq!(disorder(&[0, 3]), (4, Disorder { lost: 2, ..clean }));
        assert_eq!(disorder(&[0, 0, 1]), (2, Disorder { doubled: 1, ..clean }));
        assert_eq!(disorder(&[1, 0, 2]), (3, Disorder { reordered: 1, ..clean }));
        let all = Disorder { lost: 1, doubled: 1, reordered: 2 };
        assert_eq!(disorder(&[3, 1, 1, 2]), (4, all));
        let late = Disorder { lost: 999, reordered: 1, ..clean };
        assert_eq!(disorder(&[1000, 999]).1, late);
        // What came that late counts as one too many.
        let too_late = Disorder { lost: 1000, doubled: 1, ..clean };
        assert_eq!(disorder(&[1000, 900]).1, too_late);
        let mut failures = Failures::default();
        all.report(&mut failures);
        clean.report(&mut failures);
        let expected =
            [("delivery doubled", 1), ("delivery lost", 1), ("delivery out of order", 2)];
        assert_eq!(failures, expected.map(|(text, n)| (text.to_owned(), n)).into());
    }
}
