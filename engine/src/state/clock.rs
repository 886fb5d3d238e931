//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use ringwire_codec::http::HttpDate;

use crate::base::timer::{TICKS_PER_SECOND, Tick};

/// The time of day as answers have it, read once a second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Option<(Tick, HttpDate)>,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "HTTP wants the time of day (RFC 9110 §6.6.1): once a second, on no message's path"
    )]
    pub(crate) fn date(&mut self, now: Tick) -> HttpDate {
        let second = now / TICKS_PER_SECOND;
        match self.last {
            Some((last, date)) if last == second => date,
            _ => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let date = HttpDate::from_unix(since_1970.as_secs());
                self.last = Some((second, date));
                date
            }
        }
    }
}
