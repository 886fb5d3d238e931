//! The rule by which a row is fine, the table, and the JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bystander::{Answers, Question};
use super::ending::Ending;
use super::row::{Budget, Seen};
use crate::report::Table;
use crate::units::show_bytes;

/// How much a server's memory may grow: a share for all, and one for each peer, twice the usual longest message.
const GROWTH: u64 = 16 << 20;
const GROWTH_PER_PEER: u64 = 2 << 20;
/// The same for floods, where the server's budget is known: a quarter more than that above what it took at rest, and
/// this.
const FLOOD_ABOVE_BUDGET: u64 = 4 << 20;
/// Half of the answers to a bystander may take longer during a flood, on a machine that the flood shares.
const SLOW_IN_A_FLOOD_US: f64 = 50e3;
/// An answer to a bystander that takes longer is suspicious.
const SLOW_ANSWER_US: f64 = 1e6;

/// The result. JSON has these names.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) target: String,
    pub(super) machine: String,
    pub(super) peers: u16,
    pub(super) time_limit_seconds: f64,
    /// What bystanders ask.
    pub(super) question: Question,
    pub(super) rows: Vec<Row>,
    /// Kinds that nobody was left for.
    pub(super) skipped: Vec<String>,
}

/// A kind of peer.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) kind: String,
    /// How many peers parted so.
    endings: BTreeMap<String, u64>,
    /// From the first step of a peer to its end.
    shortest_seconds: f64,
    longest_seconds: f64,
    /// Over all peers, after an upgrade where there is one.
    sent_bytes: u64,
    received_bytes: u64,
    /// `None` where the server's process is not known.
    server_resident_before: Option<u64>,
    server_resident_peak: Option<u64>,
    bystander: Answers,
    pub(super) verdict: Verdict,
    pub(super) why: Vec<String>,
    /// Endings by their count, for the table.
    #[serde(skip)]
    text: String,
}

/// What a row comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Fine,
    /// The server stood it, but not as it should.
    Suspicious,
    /// A bystander was not answered, or the server died.
    Failed,
}

impl Report {
    /// Whether every bystander was answered, by a server that lives.
    pub(super) fn is_fine(&self) -> bool {
        self.rows.iter().all(|row| row.verdict < Verdict::Failed)
    }

    /// For people: a table, and below it what is not fine.
    pub(super) fn text(&self) -> String {
        let columns = [
            "peer",
            "the server",
            "after",
            "sent",
            "received",
            "RSS before, peak",
            "median answer",
            "worst answer",
            "verdict",
        ];
        let table = Table::new(&columns, self.rows.iter().map(Row::cells));
        let mut text = format!(
            "{}\n{}, {} peers of a kind at a time, {} s each at most\n\n{table}\n",
            self.machine, self.target, self.peers, self.time_limit_seconds
        );
        for row in &self.rows {
            for why in &row.why {
                text += &format!("{} {}: {why}\n", row.verdict.text(), row.kind);
            }
        }
        if !self.skipped.is_empty() {
            text += &format!(
                "not played, since the server answers no more: {}\n",
                self.skipped.join(", ")
            );
        }
        text
    }
}

impl Row {
    /// What was seen, and what is to be thought of it.
    pub(super) fn new(seen: Seen) -> Self {
        let (verdict, why) = judge(&seen);
        let name = |(ending, count): &(Ending, u64)| format!("{count} × {ending}");
        let text = seen.endings.iter().map(name).collect::<Vec<_>>().join(", ");
        let endings = seen.endings.iter().map(|(ending, count)| (ending.to_string(), *count));
        Self {
            kind: seen.kind.name(),
            endings: endings.collect(),
            shortest_seconds: seen.seconds.0,
            longest_seconds: seen.seconds.1,
            sent_bytes: seen.sent,
            received_bytes: seen.received,
            server_resident_before: seen.resident.map(|(before, _)| before),
            server_resident_peak: seen.resident.map(|(_, peak)| peak),
            bystander: seen.answers,
            verdict,
            why,
            text,
        }
    }

    fn cells(&self) -> Vec<String> {
        let bytes = |bytes: u64| show_bytes(bytes as f64);
        let resident = self.server_resident_before.zip(self.server_resident_peak);
        vec![
            self.kind.clone(),
            self.text.clone(),
            show_seconds(self.shortest_seconds, self.longest_seconds),
            bytes(self.sent_bytes),
            bytes(self.received_bytes),
            resident.map_or_else(
                || "unknown".to_owned(),
                |(before, peak)| format!("{}, {}", bytes(before), bytes(peak)),
            ),
            format!("{:.1} ms", self.bystander.median_us / 1e3),
            format!("{:.1} ms", self.bystander.worst_us / 1e3),
            self.verdict.text().to_owned(),
        ]
    }
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Suspicious => "suspicious",
            Self::Failed => "FAILED",
        }
    }
}

/// The rule of docs/load-generator.md.
fn judge(seen: &Seen) -> (Verdict, Vec<String>) {
    let mut found: Vec<(Verdict, String)> = Vec::new();
    if seen.is_dead {
        found.push((Verdict::Failed, "the server died".to_owned()));
    }
    if let Some(why) = &seen.answers.failure {
        found.push((Verdict::Failed, format!("a bystander was not answered: {why}")));
    }
    if let Some(why) = &seen.refused {
        found.push((Verdict::Failed, format!("a new connection was not answered: {why}")));
    }
    if seen.end.is_some_and(|end| !end.is_in_time) {
        found.push((Verdict::Failed, "the server did not end when it was told to".to_owned()));
    }
    if seen.end.is_some_and(|end| !end.was_full) {
        found.push((Verdict::Suspicious, "its log was not full, so this shows nothing".to_owned()));
    }
    if seen.answers.worst_us > SLOW_ANSWER_US {
        let worst = seen.answers.worst_us / 1e6;
        found.push((Verdict::Suspicious, format!("a bystander waited for {worst:.1} s")));
    }
    if seen.kind.is_flood() && seen.answers.median_us > SLOW_IN_A_FLOOD_US {
        let median = seen.answers.median_us / 1e3;
        let why = format!("a bystander waited for {median:.0} ms in the median");
        found.push((Verdict::Suspicious, why));
    }
    found.extend(judge_memory(seen).map(|why| (Verdict::Suspicious, why)));
    for (ending, count) in &seen.endings {
        if let Some(why) = strange(seen, ending) {
            found.push((Verdict::Suspicious, format!("{count} × {ending}: {why}")));
        }
    }
    let verdict = found.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Fine);
    (verdict, found.into_iter().map(|(_, why)| why).collect())
}

/// What is wrong with the server's memory.
fn judge_memory(seen: &Seen) -> Option<String> {
    let (before, peak) = seen.resident?;
    match seen.budget {
        Some(Budget { max_memory, at_rest }) if seen.kind.is_flood() => {
            let allowed = at_rest + max_memory / 4 * 5 + FLOOD_ABOVE_BUDGET;
            let (shown, most) = (show_bytes(peak as f64), show_bytes(allowed as f64));
            (peak > allowed).then(|| format!("its memory was {shown}, and may be {most}"))
        }
        // Without a budget many connections may take what they take.
        None if seen.kind.is_crowd() => None,
        _ => {
            let allowed = GROWTH + GROWTH_PER_PEER * u64::from(seen.peers);
            let grown = peak.saturating_sub(before);
            let (shown, enough) = (show_bytes(grown as f64), show_bytes(allowed as f64));
            (grown > allowed)
                .then(|| format!("its memory grew by {shown}, and {enough} would be enough"))
        }
    }
}

/// What is wrong with an ending.
fn strange(seen: &Seen, ending: &Ending) -> Option<&'static str> {
    match ending {
        Ending::Malformed => Some("a server sends frames"),
        Ending::NotOpened(_) => Some("others were not kept out by those there were"),
        Ending::WentOn if seen.kind.has_to_end() => Some("it should have been ended"),
        Ending::KeptOpen if seen.kind.has_to_end() => {
            Some("it should have been ended within the time limit")
        }
        _ => None,
    }
}

fn show_seconds(shortest: f64, longest: f64) -> String {
    let (shortest, longest) = (format!("{shortest:.2}"), format!("{longest:.2}"));
    if shortest == longest { format!("{longest} s") } else { format!("{shortest}–{longest} s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Failure;
    use crate::hostile::heard::Close;
    use crate::hostile::kinds::Kind;
    use crate::hostile::row::End;

    fn seen(kind: Kind, ending: Ending) -> Seen {
        Seen {
            kind,
            peers: 10,
            endings: vec![(ending, 10)],
            seconds: (0.1, 0.2),
            sent: 1000,
            received: 10,
            resident: Some((10 << 20, 40 << 20)),
            budget: None,
            answers: Answers {
                asked: 3,
                answered: 3,
                median_us: 1000.0,
                worst_us: 2000.0,
                failure: None,
            },
            refused: None,
            is_dead: false,
            end: None,
        }
    }

    fn closed() -> Ending {
        Ending::Closed(Close { code: Some(1002), reason: String::new() })
    }

    #[test]
    fn who_has_to_be_ended_is_not_kept() {
        for kind in [Kind::Silent, Kind::Unmasked, Kind::HugeLength, Kind::Bomb] {
            assert_eq!(judge(&seen(kind, closed())), (Verdict::Fine, Vec::new()), "{kind:?}");
            for ending in [Ending::WentOn, Ending::KeptOpen] {
                assert_eq!(judge(&seen(kind, ending)).0, Verdict::Suspicious, "{kind:?}");
            }
        }
        for kind in [Kind::SlowReader, Kind::SlowFrame, Kind::TinyFragments, Kind::PingFlood] {
            for ending in [Ending::WentOn, Ending::KeptOpen, Ending::Reset] {
                assert_eq!(judge(&seen(kind, ending)).0, Verdict::Fine, "{kind:?}");
            }
        }
        assert_eq!(judge(&seen(Kind::Bomb, Ending::Declined)).0, Verdict::Fine);
        let kept_out = Ending::NotOpened(Failure::ConnectRefused);
        assert_eq!(judge(&seen(Kind::PingFlood, kept_out)).0, Verdict::Suspicious);
    }

    #[test]
    fn memory_and_slow_answers_are_suspicious() {
        let mut grown = seen(Kind::Bomb, closed());
        // 16 MiB and 2 for each of ten peers.
        grown.resident = Some((10 << 20, 46 << 20));
        assert_eq!(judge(&grown).0, Verdict::Fine);
        grown.resident = Some((10 << 20, (46 << 20) + 1));
        let (verdict, why) = judge(&grown);
        assert_eq!(verdict, Verdict::Suspicious);
        assert!(why[0].contains("36 MiB would be enough"), "{why:?}");
        let mut slow = seen(Kind::Bomb, closed());
        slow.answers.worst_us = 1.5e6;
        assert_eq!(
            judge(&slow),
            (Verdict::Suspicious, vec!["a bystander waited for 1.5 s".into()])
        );
    }

    #[test]
    fn floods_have_limits_of_their_own() {
        use Kind::{BombVolume, HalfHeads, HalfMessages, HeadBurst, HelloBurst};
        for kind in [HeadBurst, HalfHeads, HelloBurst, HalfMessages, BombVolume] {
            let mut flood = seen(kind, Ending::EndOfStream);
            flood.budget = Some(Budget { max_memory: 16 << 20, at_rest: 4 << 20 });
            // 20 MiB and 8.
            flood.resident = Some((4 << 20, 28 << 20));
            assert_eq!(judge(&flood), (Verdict::Fine, Vec::new()));
            flood.resident = Some((4 << 20, (28 << 20) + 1));
            let (verdict, why) = judge(&flood);
            assert_eq!(verdict, Verdict::Suspicious);
            assert!(why[0].contains("may be 28 MiB"), "{why:?}");
            flood.resident = None;
            flood.answers.median_us = 51e3;
            let why = judge(&flood).1;
            assert_eq!(why, ["a bystander waited for 51 ms in the median"]);
        }
        // One that is not known is not judged.
        let mut crowd = seen(HeadBurst, Ending::EndOfStream);
        crowd.resident = Some((4 << 20, 500 << 20));
        assert_eq!(judge(&crowd).0, Verdict::Fine);
    }

    #[test]
    fn a_server_whose_log_is_full_ends_when_it_is_told_to() {
        let judge_end = |was_full, is_in_time| {
            let mut seen = seen(Kind::LogPipe, closed());
            seen.end = Some(End { was_full, is_in_time });
            judge(&seen).0
        };
        assert_eq!(judge_end(true, true), Verdict::Fine);
        assert_eq!(judge_end(true, false), Verdict::Failed);
        assert_eq!(judge_end(false, true), Verdict::Suspicious);
    }

    #[test]
    fn the_dead_and_the_deaf_fail() {
        let mut dead = seen(Kind::Bomb, closed());
        dead.is_dead = true;
        let mut deaf = seen(Kind::Bomb, closed());
        deaf.answers.failure = Some("no answer in 5 s".to_owned());
        let mut refused = seen(Kind::Bomb, closed());
        refused.refused = Some("connect refused".to_owned());
        for seen in [dead, deaf, refused] {
            let row = Row::new(seen);
            assert_eq!((row.verdict, row.why.len()), (Verdict::Failed, 1), "{row:?}");
        }
    }
}
