//! What came of a run, in a sentence.

use std::collections::BTreeMap;

use super::{Tone, Verdict};
use crate::bottleneck::Bottleneck;
use crate::disturbance::Disturbance;
use crate::units::show_count;

/// Errors first, then what disturbed, then whose limit the figures are.
pub(crate) fn verdict(
    bottleneck: Bottleneck,
    disturbance: Option<Disturbance>,
    errors: &BTreeMap<String, u64>,
) -> Verdict {
    let count: u64 = errors.values().sum();
    if count > 0 {
        let most = errors.iter().max_by_key(|(_, count)| **count);
        let kind = most.map(|(kind, _)| kind.as_str()).unwrap_or_default();
        let text = format!("{} errors, most of them: {kind}.", show_count(count as f64));
        return Verdict { tone: Tone::Bad, text };
    }
    let (tone, text) = match bottleneck {
        Bottleneck::Server => (Tone::Good, "The server was the limit: the figures are its own."),
        Bottleneck::Both => {
            (Tone::Careful, "Server and load were full alike: a faster load might show more.")
        }
        Bottleneck::Generator => (
            Tone::Bad,
            "The load was the limit: rates and latencies are its own, not the server's.",
        ),
        Bottleneck::Disturbed => {
            (Tone::Bad, "Other programs took the CPU of load or server: the figures do not count.")
        }
        Bottleneck::Neither => (
            Tone::Good,
            "Neither server nor load was full: latencies count, and rates are those asked for.",
        ),
        Bottleneck::Unknown => {
            (Tone::Careful, "Whether the server was the limit is not known: --server-pid tells.")
        }
    };
    let mut text = text.to_owned();
    if let Some(found) = disturbance.filter(|found| found.is_worth_telling()) {
        text += &format!(" Meanwhile {found}.");
    }
    Verdict { tone, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_before_speed() {
        let none = BTreeMap::new();
        let fine = verdict(Bottleneck::Server, None, &none);
        assert_eq!(fine.tone, Tone::Good);
        let errors = [("reset".to_owned(), 2), ("unanswered".to_owned(), 7)].into();
        let bad = verdict(Bottleneck::Server, None, &errors);
        assert_eq!(
            (bad.tone, bad.text.as_str()),
            (Tone::Bad, "9 errors, most of them: unanswered.")
        );
        let stolen = Some(Disturbance { stolen: 0.25, other_cpus: Some(0.5) });
        let disturbed = verdict(Bottleneck::Disturbed, stolen, &none);
        assert_eq!(disturbed.tone, Tone::Bad);
        assert!(
            disturbed.text.contains("25.0 %") && disturbed.text.contains("0.50 CPUs"),
            "{disturbed:?}"
        );
    }
}
