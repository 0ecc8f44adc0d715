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
}

/// `disk:<id>:sha256`: the digest of a disk's contents, which the check's
/// detail has to hold as `sha256=<hexadecimal>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDigest {
    /// The disk.
    pub disk: String,
}

/// A metric with bounds.
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

/// Reads one `[[expect]]`.
pub fn read_expect(mut section: Section<'_, '_>) -> Option<Expect> {
    let pd = section.text("pd");
    let check = section.text("check");
    let result = section.choice(
        "result",
        &[
            ("pass", ExpectedResult::Pass),
            ("fail", ExpectedResult::Fail),
        ],
    );
    let equals = section.parsed("equals", digest);
    let metric = section.text("metric");
    let below = section.figure("below");
    let above = section.figure("above");
    let span = section.span();
    let for_check = pd.is_some() || check.is_some() || result.is_some() || equals.is_some();
    let for_metric = metric.is_some() || below.is_some() || above.is_some();
    let expect = match (pd, check, metric) {
        (Some(pd), Some(check), None) if !for_metric => Some(Expect::Check(ExpectedCheck {
            pd: pd.map(str::to_owned),
            check: check.map(str::to_owned),
            result: result.map_or(ExpectedResult::Pass, |result| result.value),
            equals,
        })),
        (None, None, Some(metric)) if !for_check && (below.is_some() || above.is_some()) => {
            Some(Expect::Metric(ExpectedMetric {
                metric: metric.value.to_owned(),
                below: below.map(|bound| bound.value),
                above: above.map(|bound| bound.value),
            }))
        }
        _ => {
            section.findings().add(
                Rule::BadExpect,
                span,
                "an expectation has `pd` and `check`, or `metric` and a bound (`below`, `above`)",
            );
            None
        }
    };
    section.finish();
    expect
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
