//! [`Ui`]: progress for people. A step turns on a terminal while it lasts, and
//! leaves a line only if it did something.

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;
use std::time::{Duration, Instant};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ui {
    /// On the standard error output.
    #[default]
    Shown,
    /// Nowhere: several runs at once would garble each other's.
    Silent,
}

/// A step that is under way.
pub struct Step {
    name: String,
    ui: Ui,
    bar: ProgressBar,
    since: Instant,
}

impl Ui {
    /// Begins a step.
    #[must_use]
    pub fn step(self, name: impl Into<String>) -> Step {
        let name = name.into();
        let bar = match self {
            Self::Shown => ProgressBar::new_spinner(),
            Self::Silent => ProgressBar::hidden(),
        };
        // The template is constant; a wrong one would show the default style.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        Step {
            name,
            ui: self,
            bar,
            since: Instant::now(),
        }
    }

    /// Shows text as it is, whether silent or not: what a program said that did not succeed.
    pub fn show(self, text: &str) {
        anstream::eprintln!("{}", text.trim_end());
    }
}

impl Step {
    /// Says what is being done.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Ends the step. `did`: what it did; nothing is said of a step that found all done.
    pub fn done(self, did: Option<String>) {
        self.bar.finish_and_clear();
        if let (Some(did), Ui::Shown) = (did, self.ui) {
            let took = format!("{:.1} s", self.since.elapsed().as_secs_f64());
            anstream::eprintln!("  {}: {did} {}", self.name, took.dimmed());
        }
    }

    /// Ends a step that did not succeed.
    pub fn abandon(self) {
        self.bar.finish_and_clear();
    }
}
