//! A measured figure and the goal that it has to meet.

use std::{fmt, time::Duration};

/// One line of the table.
pub struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
}

#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl Figure {
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, goal: None }
    }

    #[must_use]
    pub fn at_least(self, least: f64) -> Self {
        Self { goal: Some(Goal::AtLeast(least)), ..self }
    }

    #[must_use]
    pub fn at_most(self, most: f64) -> Self {
        Self { goal: Some(Goal::AtMost(most)), ..self }
    }

    /// `None` without a goal.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.goal?.is_met(self.value))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, unit, goal } = self;
        let digits = match value.abs() {
            0.0..10.0 => 2,
            10.0..1000.0 => 1,
            _ => 0,
        };
        let goal = match goal {
            None => String::new(),
            Some(Goal::AtLeast(least)) => format!("at least {least}"),
            Some(Goal::AtMost(most)) => format!("at most {most}"),
        };
        let verdict = match self.is_met() {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        write!(f, "{what:<68} {value:>10.digits$} {unit:<12} {goal:<17} {verdict}")
    }
}

/// How many a second.
pub fn per_second(count: u64, took: Duration) -> f64 {
    float(count) / took.as_secs_f64()
}

/// Of 10^6 bytes.
pub fn megabytes(bytes: u64) -> f64 {
    float(bytes) / 1e6
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a measured count needs no more than 52 bits")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// In milliseconds.
pub fn percentile(mut durations: Vec<Duration>, percent: usize) -> f64 {
    durations.sort_unstable();
    let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
    durations.get(index).copied().map_or(0.0, milliseconds)
}

/// The middle one; of an even number, the lower of the two in the middle.
pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations.get((durations.len() - 1) / 2).copied().unwrap_or_default()
}
