//! How far a long command is: a bar on a terminal, log lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines that tell of the progress where there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The progress of one chain.
pub(super) struct Progress {
    bar: ProgressBar,
    reported: Instant,
}

impl Progress {
    /// Out of `length` of the things that `unit` names.
    pub fn new(chain: &str, unit: &str, length: u64) -> anyhow::Result<Self> {
        let template = format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} left");
        let style = ProgressStyle::with_template(&template)?;
        let bar = ProgressBar::new(length).with_style(style);
        bar.set_prefix(chain.to_owned());
        Ok(Self { bar, reported: Instant::now() })
    }

    /// A line of its own, above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// So much is done; `log` writes it down with how much there is, where there is no bar, now and then.
    pub fn at(&mut self, done: u64, log: impl FnOnce(Option<u64>)) {
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            log(self.bar.length());
        }
    }

    /// The end has moved.
    pub fn of(&self, length: u64) {
        self.bar.set_length(length);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
