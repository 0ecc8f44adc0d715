//! `./x bench`: runs the systems that measure, and shows every figure beside its
//! goal and beside what the same work costs elsewhere.

use super::Success;
use super::run::Judged;
use crate::bench::{Figures, Rows, SYSTEM, Scaling, Table, chart, collect, json};
use crate::build;
use crate::error::Error;
use crate::judge::{Metrics, Outcome};
use crate::peers;
use crate::ui::Ui;
use crate::workspace::Workspace;
use std::path::PathBuf;

/// Names of the files, in the target folder's `reports`.
const JSON: &str = "bench.json";
const PEERS: &str = "bench-linux.json";
const CHART: &str = "bench.svg";
const SCALING: &str = "scaling.svg";

/// What the figures are shown beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// What is known of the peers.
    Known,
    /// Linux, measured now.
    Measured,
}

/// Measures, and writes table, JSON and chart. A goal that is missed is told and no failure; a run that fails is one.
///
/// # Errors
/// A system cannot be built or booted, or a file cannot be written.
pub fn bench(workspace: &Workspace, beside: Beside) -> Result<Success, Error> {
    let rows = Rows::load().map_err(|error| Error::Bench(error.to_string()))?;
    let mut figures = Figures::new();
    let mut success = Success::Yes;
    let mut metrics = Metrics::new();
    for system in rows.systems() {
        let (of_system, passed) = measure(workspace, &rows, system, &mut figures)?;
        metrics.extend(of_system);
        if passed == Success::No {
            success = Success::No;
        }
    }
    let scaling = Scaling::of(&metrics);
    let linux = match beside {
        Beside::Known => None,
        Beside::Measured => {
            let description = super::load(workspace, &workspace.description(SYSTEM))?;
            Some(peers::measure(workspace, &description, Ui::Shown)?)
        }
    };
    let of_linux = linux.as_ref().map(|measured| &measured.figures);
    let table = Table {
        rows: &rows,
        figures: &figures,
        linux: linux.as_ref(),
    };
    anstream::println!("\n{table}\n{scaling}");
    if let Some(measured) = of_linux {
        write(workspace, PEERS, &json(measured))?;
    }
    let drawing = chart(&rows, &figures, of_linux).map_err(Error::Bench)?;
    let figures = write(workspace, JSON, &json(&figures))?;
    write(workspace, SCALING, &scaling.chart().map_err(Error::Bench)?)?;
    let drawing = write(workspace, CHART, &drawing)?;
    anstream::println!(
        "figures: {}  chart: {}",
        workspace.shown(&figures),
        workspace.shown(&drawing)
    );
    Ok(success)
}

/// Boots a system and takes its rows; shows its account if it does not pass. All its figures.
fn measure(
    workspace: &Workspace,
    rows: &Rows,
    system: &str,
    figures: &mut Figures,
) -> Result<(Metrics, Success), Error> {
    let description = super::load(workspace, &workspace.description(system))?;
    let bootable = build::bootable(workspace, &description, Ui::Shown)?;
    let step = Ui::Shown.step(format!("measuring {}", description.name));
    let judged = Judged::boot(
        workspace,
        &description,
        &bootable,
        &Metrics::new(),
        &mut |line| {
            if let Some(metric) = line.text.strip_prefix("@metric ") {
                step.say(metric.split(['.', ' ']).next().unwrap_or(metric));
            }
        },
    )?;
    let before = figures.len();
    collect(rows, system, &judged.verdict.metrics, figures);
    step.done(Some(format!("{} rows", figures.len() - before)));
    let success = match judged.verdict.outcome {
        Outcome::Pass => Success::Yes,
        Outcome::Fail | Outcome::Timeout => {
            anstream::println!("{}", judged.account(workspace, &description, &bootable));
            Success::No
        }
    };
    Ok((judged.verdict.metrics, success))
}

fn write(workspace: &Workspace, name: &str, text: &str) -> Result<PathBuf, Error> {
    let path = workspace.output("reports")?.join(name);
    std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    Ok(path)
}
