//! The judge: from a transcript and the description's demands to a [`Verdict`].
//!
//! It believes only what came: a check that was expected and never said is a
//! failure, and so is a line it does not understand.

mod unfinished;

pub use unfinished::lacking;

use crate::description::demand::{Expect, ExpectedCheck, ExpectedMetric, ExpectedResult};
use crate::description::{Description, ROOT};
use crate::host::Done;
use crate::transcript::{Departure, Event, Transcript, When};
use std::collections::BTreeMap;
use std::time::Duration;
use system::model::End;
use unfinished::{given_up, last_words};

/// Name of the metric that the host takes: from QEMU's start to the first device in a client's hands.
pub const BOOT_METRIC: &str = "boot_to_first_assign_ms";
/// Name of the host's metric for the whole run.
pub const RUN_METRIC: &str = "run_ms";
/// Detail of an expected check that did not come.
pub const NEVER_SAID: &str = "expected, and never said";
/// Checks of figures are named so.
const METRIC: &str = "metric.";
/// The root task's verdict, as an expectation names it.
const END: &str = "end";
/// Under this name the judge's own checks are reported.
const HOST: &str = "host";

/// How the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QEMU ended by itself.
    Exited,
    /// The tool stopped it, because all that was expected had come.
    Stopped,
    /// The tool stopped it: a client was gone without what was expected of it.
    GivenUp,
    /// It was still running when its time was over.
    TimedOut,
}

/// What can become of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything expected came, and nothing failed.
    Pass,
    /// Something failed or is missing.
    Fail,
    /// The machine did not come to an end.
    Timeout,
}

/// A check as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// `<pd>.<check>`.
    pub name: String,
    /// Is it as it should be?
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// The judgement of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// Every check, in the order they came; those that never came at the end.
    pub checks: Vec<Check>,
    /// Every figure.
    pub metrics: Metrics,
}

/// Figures by name.
pub type Metrics = BTreeMap<String, f64>;

impl Verdict {
    /// The checks that are not as they should be.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }

    /// Would another run, with better figures, fail all the same?
    #[must_use]
    pub fn fails_for_good(&self) -> bool {
        self.failures().any(|check| !check.name.starts_with(METRIC))
    }
}

/// Digests of the disks: SHA-256 in hexadecimal, by id.
pub type Digests = BTreeMap<String, String>;

/// Has everything come that a system which never ends is expected to say?
#[must_use]
pub fn is_settled(description: &Description, transcript: &Transcript) -> bool {
    !description.expects.is_empty()
        && !stops_short(description)
        && description.expects.iter().all(|expect| {
            transcript
                .events
                .iter()
                .any(|(_, pd, event)| match (expect, event) {
                    (Expect::Check(expect), Event::Check { name, .. }) => {
                        *pd == expect.pd.value && *name == expect.check.value
                    }
                    (Expect::Metric(expect), Event::Metric { key, .. }) => *key == expect.metric,
                    (Expect::Metric(expect), Event::Assigned { .. }) => {
                        expect.metric == BOOT_METRIC
                    }
                    _ => false,
                })
        })
}

/// Judges a run. `earlier` are the figures of earlier runs of the same system:
/// the least of each counts.
#[must_use]
pub fn judge(
    description: &Description,
    transcript: &Transcript,
    digests: &Digests,
    ending: &Ending,
    took: Duration,
    done: &[Done],
    earlier: &Metrics,
) -> Verdict {
    let mut checks = said(description, transcript);
    let mut metrics = metrics(description, transcript, took);
    for (name, value) in &mut metrics {
        *value = earlier.get(name).map_or(*value, |best| best.min(*value));
    }
    for expect in &description.expects {
        match expect {
            Expect::Check(expect) if is_bad_end(expect) => {}
            Expect::Check(expect) => demand_check(expect, digests, &mut checks),
            Expect::Metric(expect) => checks.push(demand_metric(expect, &metrics)),
        }
    }
    if !stops_short(description) {
        departures(description, transcript, &mut checks);
        // What was lost cannot be counted.
        if !ends_badly(description) {
            figures(transcript, &mut checks);
        }
    }
    steps(description, done, &mut checks);
    if !transcript.errors.is_empty() {
        let words: Vec<String> = transcript.errors.iter().map(ToString::to_string).collect();
        checks.push(host("protocol", false, words.join("; ")));
    }
    checks.push(end(description, transcript, ending));
    let outcome = if *ending == Ending::TimedOut && !stops_short(description) {
        Outcome::Timeout
    } else if checks.iter().all(|check| check.ok) {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    Verdict {
        outcome,
        checks,
        metrics,
    }
}

fn host(name: &str, ok: bool, detail: impl Into<String>) -> Check {
    Check {
        name: format!("{HOST}.{name}"),
        ok,
        detail: detail.into(),
    }
}

/// Is the system expected to hang or crash? Then some check is never to come.
fn stops_short(description: &Description) -> bool {
    description.expects.iter().any(
        |expect| matches!(expect, Expect::Check(expect) if expect.result == ExpectedResult::Never),
    )
}

/// Is this the demand that the root task ends the run as failed?
fn is_bad_end(expect: &ExpectedCheck) -> bool {
    expect.pd.value == ROOT && expect.check.value == END && expect.result == ExpectedResult::Fail
}

/// Is the run to come to its end, and to have failed then? All else that is expected has to come.
fn ends_badly(description: &Description) -> bool {
    description
        .expects
        .iter()
        .any(|expect| matches!(expect, Expect::Check(expect) if is_bad_end(expect)))
}

/// The checks that were said. One said more than once has passed if it always did.
fn said(description: &Description, transcript: &Transcript) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for (_, pd, event) in &transcript.events {
        let Event::Check {
            name,
            passed,
            detail,
        } = event
        else {
            continue;
        };
        let wanted = description
            .expects
            .iter()
            .find_map(|expect| match expect {
                Expect::Check(expect) if expect.pd.value == *pd && expect.check.value == *name => {
                    Some(expect.result)
                }
                _ => None,
            })
            .unwrap_or(ExpectedResult::Pass);
        let check = Check {
            name: format!("{pd}.{name}"),
            ok: match wanted {
                ExpectedResult::Pass => *passed,
                ExpectedResult::Fail => !*passed,
                ExpectedResult::Never => false,
            },
            detail: match (wanted, passed) {
                (ExpectedResult::Pass, _) => detail.clone(),
                (ExpectedResult::Fail, false) => format!("failed, as it should here: {detail}"),
                (ExpectedResult::Fail, true) => format!("passed, and should fail here: {detail}"),
                (ExpectedResult::Never, _) => format!("came, and should not here: {detail}"),
            },
        };
        match checks.iter_mut().find(|other| other.name == check.name) {
            Some(earlier) if earlier.ok => *earlier = check,
            Some(_) => {}
            None => checks.push(check),
        }
    }
    checks
}

fn demand_check(expect: &ExpectedCheck, digests: &Digests, checks: &mut Vec<Check>) {
    let name = format!("{}.{}", expect.pd.value, expect.check.value);
    let Some(check) = checks.iter_mut().find(|check| check.name == name) else {
        let never = expect.result == ExpectedResult::Never;
        checks.push(Check {
            name,
            ok: never,
            detail: match never {
                true => "never said, as it should be here".into(),
                false => NEVER_SAID.into(),
            },
        });
        return;
    };
    let Some(equals) = &expect.equals else { return };
    let digest = digests.get(&equals.value.disk);
    let said = check
        .detail
        .split_whitespace()
        .find_map(|word| word.strip_prefix("sha256="));
    if digest.is_none() || said != digest.map(String::as_str) {
        check.ok = false;
        check.detail = format!(
            "{} (the disk `{}` has sha256={})",
            check.detail,
            equals.value.disk,
            digest.map_or("unknown", String::as_str)
        );
    }
}

fn demand_metric(expect: &ExpectedMetric, metrics: &Metrics) -> Check {
    let mut bounds = Vec::new();
    bounds.extend(expect.below.map(|bound| format!("below {bound}")));
    bounds.extend(expect.above.map(|bound| format!("above {bound}")));
    let bounds = match bounds.as_slice() {
        [] => String::new(),
        _ => format!(", to be {}", bounds.join(" and ")),
    };
    let (ok, detail) = match metrics.get(&expect.metric) {
        Some(&value) => (
            expect.below.is_none_or(|bound| value < bound)
                && expect.above.is_none_or(|bound| value > bound),
            format!("{value}{bounds}"),
        ),
        None => (false, format!("never said{bounds}")),
    };
    Check {
        name: format!("{METRIC}{}", expect.metric),
        ok,
        detail,
    }
}

fn metrics(description: &Description, transcript: &Transcript, took: Duration) -> Metrics {
    let mut metrics = Metrics::new();
    for (_, pd, event) in &transcript.events {
        if let Event::Metric { key, value } = event {
            // The first PD has the plain name; the others are told apart by theirs.
            if metrics.contains_key(key) {
                metrics.insert(format!("{pd}.{key}"), *value);
            } else {
                metrics.insert(key.clone(), *value);
            }
        }
    }
    // With counted instructions, the host's clock says nothing about the guest.
    if !description.machine.icount {
        let first = transcript
            .events
            .iter()
            .find(|(_, _, event)| matches!(event, Event::Assigned { .. }));
        if let Some((at, _, _)) = first {
            metrics.insert(BOOT_METRIC.into(), milliseconds(*at));
        }
        metrics.insert(RUN_METRIC.into(), milliseconds(took));
    }
    metrics
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

fn departures(description: &Description, transcript: &Transcript, checks: &mut Vec<Check>) {
    for client in &description.system.clients {
        let how = transcript
            .events
            .iter()
            .find_map(|(_, _, event)| match event {
                Event::Gone { client: gone, how } if gone == client.name.as_str() => Some(how),
                _ => None,
            });
        let (ok, detail) = match how {
            Some(Departure::Exit(code)) => (*code == 0, format!("exit code {code}")),
            Some(Departure::Fault(what)) => (client.may_fault, format!("fault: {what}")),
            Some(Departure::Killed) => (client.may_fault, "killed".into()),
            Some(Departure::Stopped) => (!client.must_finish, "stopped at the end".into()),
            None if stops_short(description) || ends_badly(description) => continue,
            None if client.must_finish && description.system.end == End::Finished => {
                (false, "never ended".into())
            }
            None => continue,
        };
        checks.push(Check {
            name: format!("{}.exit", client.name),
            ok,
            detail,
        });
    }
}

/// Resources before and after, side by side.
#[must_use]
pub fn resources(transcript: &Transcript) -> BTreeMap<&str, (Option<u64>, Option<u64>)> {
    let mut table: BTreeMap<&str, (Option<u64>, Option<u64>)> = BTreeMap::new();
    for (_, _, event) in &transcript.events {
        if let Event::Figure { when, name, value } = event {
            let row = table.entry(name).or_default();
            match when {
                When::Before => row.0 = Some(*value),
                When::After => row.1 = Some(*value),
            }
        }
    }
    table
}

/// What the root task claims in `resources_returned`, recounted here.
fn figures(transcript: &Transcript, checks: &mut Vec<Check>) {
    let table = resources(transcript);
    if table.is_empty() {
        return;
    }
    if table.values().all(|(_, after)| after.is_none()) {
        checks.push(host(
            "figures",
            false,
            "no resources were counted after the last client",
        ));
        return;
    }
    let number = |value: Option<u64>| value.map_or("nothing".to_owned(), |value| value.to_string());
    let differing: Vec<String> = table
        .iter()
        .filter(|(_, (before, after))| before != after)
        .map(|(name, (before, after))| {
            format!(
                "{name}: {} before, {} after",
                number(*before),
                number(*after)
            )
        })
        .collect();
    checks.push(if differing.is_empty() {
        host("figures", true, format!("{} as before", table.len()))
    } else {
        host("figures", false, differing.join("; "))
    });
}

fn end(description: &Description, transcript: &Transcript, ending: &Ending) -> Check {
    let said = transcript
        .events
        .iter()
        .find_map(|(_, _, event)| match event {
            Event::End { passed, detail } => Some((*passed, detail)),
            _ => None,
        });
    match (said, ending) {
        // What breaks the system may break the client alone.
        (Some((passed, detail)), _) if stops_short(description) => {
            host("end", !passed, format!("{ROOT} said: {detail}"))
        }
        // A system that never came up shows nothing about what it was to stop at.
        (None, _) if stops_short(description) && !booted(transcript) => {
            host("end", false, "stopped before the servers were ready")
        }
        (None, Ending::TimedOut) if stops_short(description) => {
            host("end", true, "hung, as it should here")
        }
        (None, _) if stops_short(description) => host("end", true, "crashed, as it should here"),
        (_, Ending::TimedOut) => host("end", false, last_words(description, transcript)),
        (None, Ending::GivenUp) => host("end", false, given_up(description, transcript)),
        (Some((passed, detail)), _) if ends_badly(description) => {
            host("end", !passed, format!("{ROOT} said: {detail}"))
        }
        (Some((passed, detail)), _) => host("end", passed, format!("{ROOT} said: {detail}")),
        (None, Ending::Stopped) => host("end", true, "stopped when all that was expected had come"),
        (None, Ending::Exited) if description.system.end == End::Never => {
            host("end", false, "the machine stopped, and should not")
        }
        (None, Ending::Exited) => host("end", false, "the machine stopped without @end"),
    }
}

/// What the host did: a check a step, right if it was right each time.
fn steps(description: &Description, done: &[Done], checks: &mut Vec<Check>) {
    for (number, step) in description.steps.iter().enumerate() {
        let (pd, mark) = (&step.pd.value, &step.mark.value);
        let mut times = done.iter().filter(|done| done.step == number);
        let wrong = times.clone().find(|done| !done.ok);
        let count = times.clone().count();
        let detail = match wrong.or(times.next_back()) {
            Some(done) if count > 1 => format!("{} ({count} times)", done.detail),
            Some(done) => done.detail.clone(),
            None => NEVER_SAID.into(),
        };
        let ok = count > 0 && wrong.is_none();
        let name = format!("step-{}.{pd}.{mark}", number + 1);
        checks.push(host(&name, ok, detail));
    }
}

fn booted(transcript: &Transcript) -> bool {
    transcript
        .events
        .iter()
        .any(|(_, _, event)| matches!(event, Event::Booted { .. }))
}

#[cfg(test)]
mod tests;
