//! Whose lack of CPU limited a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::disturbance::Disturbance;

/// A side that waited for a CPU this share of the time was disturbed, and so was a machine of which as much was stolen.
pub(crate) const DISTURBED: f64 = 0.05;

/// Whose lack of CPU limited the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bottleneck {
    /// The server: what the run is meant to find.
    Server,
    /// The load generator: messages per second say nothing of the server, CPU per message still does.
    Generator,
    /// Both were busy all the time.
    Both,
    /// Something else: another program had the CPU of one of them for a while, so the figures do not
    /// count.
    Disturbed,
    /// Neither: too few messages were in flight to keep one busy.
    Neither,
    /// The server's process is not known.
    Unknown,
}

impl Bottleneck {
    /// Time that was stolen from the machine counts as a disturbance too.
    pub(crate) fn disturbed_by(self, disturbance: Option<Disturbance>) -> Self {
        match disturbance {
            Some(found) if found.is_severe(DISTURBED) => Self::Disturbed,
            _ => self,
        }
    }

    /// In a table for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Server => "the server",
            Self::Generator => "THE GENERATOR: messages/s say nothing of the server",
            Self::Both => "server and generator alike",
            Self::Disturbed => "OTHER PROGRAMS that took the CPU: the figures do not count",
            Self::Neither => "neither: more connections or messages in flight would fill it",
            Self::Unknown => "unknown (--server-pid tells)",
        }
    }
}
