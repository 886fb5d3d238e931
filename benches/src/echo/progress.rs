//! The line on the terminal that says what a run is doing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::units::show_count;

/// A live line on the standard error; nothing where that is no terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A line, or nothing when `shown` is false.
    pub(crate) fn new(shown: bool) -> Self {
        let bar = if shown { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {msg}");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())))
    }

    /// Connections are made.
    pub(crate) fn connecting(&self, opened: u64, failed: u64, asked: u64) {
        self.show(&format!("connecting: {opened} of {asked}"), failed);
    }

    /// Messages flow.
    pub(crate) fn running(&self, what: &str, left: Duration, rate: f64, failed: u64) {
        let left = left.as_secs_f64();
        self.show(&format!("{what}: {left:.1} s left, {} messages/s", show_count(rate)), failed);
    }

    /// Anything, and how many failures there were.
    pub(crate) fn show(&self, text: &str, failed: u64) {
        if self.0.is_hidden() {
            return;
        }
        let failed = if failed > 0 { format!(", {failed} FAILED") } else { String::new() };
        self.0.set_message(format!("{text}{failed}"));
        self.0.tick();
    }

    /// A line that stays, above the live one, or by itself where there is none.
    pub(crate) fn say(&self, text: &str) {
        self.0.suspend(|| crate::output::note(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
