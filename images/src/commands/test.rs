//! `./x test`: host tests, then every scenario: the descriptions in `systems/` that have a `[scenario]`.

use super::lint::succeeds;
use super::run::Judged;
use super::{Success, load, show_error};
use crate::build::{self, Bootable};
use crate::description::Description;
use crate::description::demand::{Expect, Scenario};
use crate::error::Error;
use crate::judge::{Metrics, Outcome};
use crate::kernel::{Build, KernelSpec};
use crate::programs::cargo;
use crate::ui::Ui;
use crate::workspace::Workspace;
use owo_colors::OwoColorize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Machines that run at the same time.
const AT_ONCE: usize = 2;
/// Packages of the bindings that have tests for the host; they need a kernel's constants.
const BINDINGS: [&str; 3] = ["sel4-sys", "sel4", "sel4-rt"];

/// A scenario that is built.
struct Ready {
    scenario: Scenario,
    description: Description,
    bootable: Bootable,
}

/// What came of the scenarios.
#[derive(Default)]
struct Tally {
    passed: AtomicUsize,
    failed: AtomicUsize,
    skipped: usize,
}

/// Runs all tests, or, with a filter, the scenarios whose names contain it.
///
/// # Errors
/// Cargo cannot be run, or `systems/` cannot be read. Tests that fail are no error but [`Success::No`].
pub fn test(workspace: &Workspace, filter: Option<&str>) -> Result<Success, Error> {
    build::check_kernel(workspace)?;
    let host = match filter {
        Some(_) => true,
        None => host_tests(workspace)?,
    };
    let tally = scenarios(workspace, filter.unwrap_or_default())?;
    let (passed, failed) = (tally.passed.into_inner(), tally.failed.into_inner());
    if !host {
        anstream::println!("\n{} host tests", "FAIL".red().bold());
    }
    let skipped = match tally.skipped {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    anstream::println!("\n{passed} passed, {failed} failed{skipped}");
    Ok(match host && failed == 0 && passed > 0 {
        true => Success::Yes,
        false => Success::No,
    })
}

fn host_tests(workspace: &Workspace) -> Result<bool, Error> {
    let mut packages = cargo(workspace, "test");
    // All that fails is worth knowing.
    packages.arg("--no-fail-fast");
    let packages = succeeds(packages)?;
    let (_, recipe) = build::kernel(workspace, &KernelSpec::new(Build::Debug, 1), Ui::Shown)?;
    let mut bindings = cargo(workspace, "test");
    bindings.env("SEL4_CONSTANTS", recipe.constants());
    for package in BINDINGS {
        bindings.args(["--package", workspace.id(package)]);
    }
    Ok(succeeds(bindings)? && packages)
}

fn scenarios(workspace: &Workspace, filter: &str) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut together = Vec::new();
    let mut alone = Vec::new();
    anstream::println!("\nscenarios");
    for path in descriptions(workspace)? {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.contains(filter) {
            continue;
        }
        let ready = match prepare(workspace, &path) {
            Ok(Some(ready)) => ready,
            Ok(None) => {
                tally.skipped += 1;
                continue;
            }
            Err(error) => {
                show_error(Some(workspace), &error);
                tally.count(&name, false, Duration::ZERO, "could not be built");
                continue;
            }
        };
        // What is timed does not share the processor.
        let timed = ready.scenario.best_of > 1
            || ready
                .description
                .expects
                .iter()
                .any(|expect| matches!(expect, Expect::Metric(_)));
        match timed && !ready.description.machine.icount {
            true => alone.push(ready),
            false => together.push(ready),
        }
    }
    let queue = Mutex::new(together.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(ready) = take(&queue) {
                    tally.run(workspace, &ready);
                }
            });
        }
    });
    for ready in &alone {
        tally.run(workspace, ready);
    }
    Ok(tally)
}

fn take(queue: &Mutex<impl Iterator<Item = Ready>>) -> Option<Ready> {
    // A poisoned lock means another worker panicked, which ends the program anyway.
    queue.lock().ok()?.next()
}

/// The descriptions in `systems/`, by name.
fn descriptions(workspace: &Workspace) -> Result<Vec<PathBuf>, Error> {
    let folder = workspace.root.join("systems");
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    };
    list().map_err(Error::file("list", &folder))
}

/// Builds a scenario; `None` if the description is none, or one that is not run, or not on this kernel.
fn prepare(workspace: &Workspace, path: &std::path::Path) -> Result<Option<Ready>, Error> {
    let description = load(workspace, path)?;
    let Some(scenario) = description.scenario.filter(|scenario| scenario.run) else {
        return Ok(None);
    };
    let lacks = build::kernel_lacks(workspace, &description);
    if !lacks.is_empty() {
        let word = "skip".yellow();
        anstream::println!(
            "  {word}  {:24}          {}",
            description.name,
            lacks.join("; ")
        );
        return Ok(None);
    }
    let bootable = build::bootable(workspace, &description, Ui::Shown)?;
    Ok(Some(Ready {
        scenario,
        description,
        bootable,
    }))
}

impl Tally {
    fn count(&self, name: &str, passed: bool, took: Duration, detail: &str) {
        let (counter, word) = match passed {
            true => (&self.passed, "pass".green().to_string()),
            false => (&self.failed, "FAIL".red().bold().to_string()),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let took = format!("{:5.1} s", took.as_secs_f64());
        anstream::println!("  {word}  {name:24} {took}  {detail}");
    }

    fn run(&self, workspace: &Workspace, ready: &Ready) {
        let start = Instant::now();
        let name = &ready.description.name;
        match best(workspace, ready) {
            Ok(judged) => {
                let passed = judged.verdict.outcome == Outcome::Pass;
                let checks = judged.verdict.checks.len();
                let failed = judged.verdict.failures().count();
                let detail = format!("{} of {checks} checks", checks - failed);
                if !passed {
                    let account = judged.account(workspace, &ready.description, &ready.bootable);
                    anstream::println!("{account}");
                }
                self.count(name, passed, start.elapsed(), &detail);
            }
            Err(error) => {
                show_error(Some(workspace), &error);
                self.count(name, false, start.elapsed(), "could not be run");
            }
        }
    }
}

/// Runs a scenario as often as it asks for; the best of each figure counts.
fn best(workspace: &Workspace, ready: &Ready) -> Result<Judged, Error> {
    let mut earlier = Metrics::new();
    let mut runs = 0;
    loop {
        let judged = Judged::boot(
            workspace,
            &ready.description,
            &ready.bootable,
            &earlier,
            &mut |_| (),
        )?;
        runs += 1;
        if runs >= ready.scenario.best_of || judged.verdict.fails_for_good() {
            return Ok(judged);
        }
        earlier = judged.verdict.metrics;
    }
}
