//! What is left of a run: a JSON file for machines, the log, and an account for people.

mod account;

pub use account::{Account, Shown};

use crate::error::Error;
use crate::judge::{Check, Outcome, Verdict};
use crate::kernel::BuiltKernel;
use crate::qemu::Run;
use crate::workspace::Workspace;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The JSON file.
#[derive(Serialize)]
struct Json<'a> {
    system: &'a str,
    kernel: Kernel<'a>,
    outcome: Outcome,
    checks: &'a [Check],
    metrics: BTreeMap<&'a str, serde_json::Number>,
}

/// The kernel of a run.
#[derive(Serialize)]
struct Kernel<'a> {
    version: &'a str,
    variant: &'a str,
    /// Where it was installed, if it was not built here.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'a Path>,
}

/// The files that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The report.
    pub json: PathBuf,
    /// Everything that was printed, with the time of each line.
    pub log: PathBuf,
}

/// Writes report and log of a run to `reports/` in the target folder.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    workspace: &Workspace,
    system: &str,
    kernel: &BuiltKernel,
    verdict: &Verdict,
    run: &Run,
) -> Result<Files, Error> {
    let folder = workspace.output("reports")?;
    let files = Files {
        json: folder.join(format!("{system}.json")),
        log: folder.join(format!("{system}.log")),
    };
    let mut text = json(system, kernel, verdict);
    text.push('\n');
    std::fs::write(&files.json, text).map_err(Error::file("write", &files.json))?;
    std::fs::write(&files.log, log(run)).map_err(Error::file("write", &files.log))?;
    Ok(files)
}

fn json(system: &str, kernel: &BuiltKernel, verdict: &Verdict) -> String {
    let number = |value: f64| {
        // Whole figures without a fraction, as they were said.
        if value.fract() == 0.0 && value.abs() < 9e15 {
            Some(serde_json::Number::from(value as i64))
        } else {
            serde_json::Number::from_f64(value)
        }
    };
    let report = Json {
        system,
        kernel: Kernel {
            version: &kernel.version,
            variant: &kernel.variant,
            prefix: kernel.prefix.as_deref(),
        },
        outcome: verdict.outcome,
        checks: &verdict.checks,
        metrics: verdict
            .metrics
            .iter()
            .filter_map(|(key, value)| Some((key.as_str(), number(*value)?)))
            .collect(),
    };
    // Texts, booleans and numbers cannot fail to be JSON.
    serde_json::to_string_pretty(&report).unwrap_or_default()
}

fn log(run: &Run) -> String {
    let mut text = String::new();
    for line in &run.transcript.lines {
        let pd = line
            .pd
            .as_ref()
            .map_or(String::new(), |pd| format!("{pd}| "));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:>9.3} {pd}{}", line.at.as_secs_f64(), line.text);
    }
    for line in run.stderr.lines() {
        let _ = writeln!(text, "          qemu: {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ending;
    use crate::transcript::Transcript;
    use std::time::Duration;

    #[test]
    fn the_json_is_of_the_agreed_form() {
        let verdict = Verdict {
            outcome: Outcome::Timeout,
            checks: vec![Check {
                name: "edu.dma".into(),
                ok: false,
                detail: "said \"no\"".into(),
            }],
            metrics: BTreeMap::from([("a".into(), 4.0), ("b".into(), 0.5)]),
        };
        let mut kernel = BuiltKernel::example();
        let read = |kernel: &BuiltKernel| -> serde_json::Value {
            serde_json::from_str(&json("demo", kernel, &verdict)).unwrap()
        };
        let wanted = serde_json::json!({
            "system": "demo",
            "kernel": {"version": "5.0.0", "variant": "release-4"},
            "outcome": "timeout",
            "checks": [{"name": "edu.dma", "ok": false, "detail": "said \"no\""}],
            "metrics": {"a": 4, "b": 0.5}
        });
        assert_eq!(read(&kernel), wanted);
        kernel.prefix = Some("a".into());
        assert_eq!(read(&kernel)["kernel"]["prefix"], "a");
        assert_eq!(kernel.to_string(), "seL4 5.0.0 release-4 from a");
    }

    #[test]
    fn the_log_has_every_line_with_its_time() {
        let run = Run {
            transcript: Transcript::from_text("SeaBIOS\nroot| @end pass\n"),
            ending: Ending::Exited,
            took: Duration::ZERO,
            stderr: "warning: x\n".into(),
            done: Vec::new(),
        };
        assert_eq!(
            log(&run),
            "    0.001 SeaBIOS\n    0.002 root| @end pass\n          qemu: warning: x\n"
        );
    }
}
