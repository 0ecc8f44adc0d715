//! What a run has to show: `[[expect]]` and `[scenario]`.

use super::rule::Rule;
use super::section::{Placed, Section};
use super::values::{self, Wrong};

/// An expectation.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// A named check of a PD.
    Check(ExpectedCheck),
    /// A figure within bounds.
    Metric(ExpectedMetric),
}

/// A check that has to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCheck {
    /// The PD that says it.
    pub pd: Placed<String>,
    /// The check's name.
    pub check: Placed<String>,
    /// Result that it has to have.
    pub result: ExpectedResult,
    /// What its detail has to equal.
    pub equals: Option<Placed<DiskDigest>>,
}

/// The result that a check has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedResult {
    /// It passes.
    Pass,
    /// It fails: the run shows that the check can see what it is for.
    Fail,
    /// It never comes: the system hangs, crashes or fails before.
    Never,
}

/// `disk:<id>:sha256`: the digest of a disk's contents, which the check's
/// detail has to hold as `sha256=<hexadecimal>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDigest {
    /// The disk.
    pub disk: String,
}

/// A metric that has to come, with bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedMetric {
    /// Its name.
    pub metric: String,
    /// It has to be below this.
    pub below: Option<f64>,
    /// It has to be above this.
    pub above: Option<f64>,
}

/// A description that `./x test` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Is it run?
    pub run: bool,
    /// How often; the best figure of each metric counts, every run has to pass.
    pub best_of: u8,
}

/// Reads one `[[expect]]`, which may name several checks or metrics.
pub fn read_expect(mut section: Section<'_, '_>) -> Vec<Expect> {
    let pd = section.text("pd");
    let mut checks = section.texts("checks");
    checks.extend(section.text("check"));
    let result = section.choice(
        "result",
        &[
            ("pass", ExpectedResult::Pass),
            ("fail", ExpectedResult::Fail),
            ("never", ExpectedResult::Never),
        ],
    );
    let equals = section.parsed("equals", digest);
    let mut metrics = section.texts("metrics");
    metrics.extend(section.text("metric"));
    let below = section.figure("below");
    let above = section.figure("above");
    let span = section.span();
    let with_result = result.is_some() || equals.is_some();
    let with_bound = below.is_some() || above.is_some();
    let expects = match pd {
        Some(pd) if !checks.is_empty() && metrics.is_empty() && !with_bound => checks
            .into_iter()
            .map(|check| {
                Expect::Check(ExpectedCheck {
                    pd: pd.clone().map(str::to_owned),
                    check: check.map(str::to_owned),
                    result: result
                        .as_ref()
                        .map_or(ExpectedResult::Pass, |result| result.value),
                    equals: equals.clone(),
                })
            })
            .collect(),
        None if checks.is_empty() && !metrics.is_empty() && !with_result => metrics
            .into_iter()
            .map(|metric| {
                Expect::Metric(ExpectedMetric {
                    metric: metric.value.to_owned(),
                    below: below.as_ref().map(|bound| bound.value),
                    above: above.as_ref().map(|bound| bound.value),
                })
            })
            .collect(),
        _ => {
            section.findings().add(
                Rule::BadExpect,
                span,
                "an expectation has `pd` with `check` or `checks`, or it has `metric` or `metrics`",
            );
            Vec::new()
        }
    };
    section.finish();
    expects
}

fn digest(text: &str) -> Result<DiskDigest, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["disk", disk, "sha256"] => Ok(DiskDigest {
            disk: values::name(disk)?.to_owned(),
        }),
        _ => Err(Wrong {
            rule: Rule::BadEquals,
            message: format!("`{text}` is not of the form disk:<id>:sha256"),
        }),
    }
}

/// Reads `[scenario]`.
pub fn read_scenario(mut section: Section<'_, '_>) -> Scenario {
    let run = section.flag("run").is_none_or(|flag| flag.value);
    let best_of = section
        .number("best_of", 1..=20)
        .map_or(1, |count| count.value as u8);
    section.finish();
    Scenario { run, best_of }
}
