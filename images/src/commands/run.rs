//! `./x run`: builds a system, boots it in QEMU, judges what it says. `./x build`: the first of these.

use super::Success;
use crate::build::{self, Bootable};
use crate::description::{Description, Diagnostic, LoadError, Rule};
use crate::error::Error;
use crate::judge::{Digests, Metrics, Outcome, Verdict, judge};
use crate::qemu::{self, Run};
use crate::report::{self, Account, Files, Shown};
use crate::symbols;
use crate::transcript::Line;
use crate::ui::Ui;
use crate::workspace::Workspace;
use std::path::Path;

/// How much is shown while a system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// What is meant for people.
    ForPeople,
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// Builds a system and leaves it for another emulator or computer.
///
/// # Errors
/// The description is not valid, or something cannot be built.
pub fn build(workspace: &Workspace, system: &str) -> Result<Success, Error> {
    let description = super::load(workspace, &workspace.description(system))?;
    let bootable = build::bootable(workspace, &description, Ui::Shown)?;
    anstream::println!("kernel: {}", workspace.shown(&bootable.kernel.multiboot));
    anstream::println!("image:  {}", workspace.shown(&bootable.image));
    Ok(Success::Yes)
}

/// Builds, boots and judges a system.
///
/// # Errors
/// It cannot be built or booted. A run that fails is no error but [`Success::No`].
pub fn run(workspace: &Workspace, system: &str, lines: Lines) -> Result<Success, Error> {
    let path = workspace.description(system);
    let description = super::load(workspace, &path)?;
    let bootable = build::bootable(workspace, &description, Ui::Shown)?;
    let mut show = |line: &Line| {
        let shown = match lines {
            Lines::All => true,
            Lines::ForPeople => !line.is_for_judge(),
            Lines::None => false,
        };
        if shown {
            anstream::println!("{}", Shown(line));
        }
    };
    let judged = Judged::boot(
        workspace,
        &description,
        &bootable,
        &Metrics::new(),
        &mut show,
    )
    .map_err(|error| placed(error, &description, &path))?;
    anstream::println!("{}", judged.account(workspace, &description, &bootable));
    Ok(match judged.verdict.outcome {
        Outcome::Pass => Success::Yes,
        Outcome::Fail | Outcome::Timeout => Success::No,
    })
}

/// What QEMU says of a device or object, at its place in the description.
fn placed(error: Error, description: &Description, path: &Path) -> Error {
    let Error::Qemu { said, .. } = &error else {
        return error;
    };
    let machine = &description.machine;
    let items = machine.devices.iter().chain(&machine.objects);
    let Some(item) = items
        .chain(&machine.globals)
        .find(|item| said.contains(&item.value))
    else {
        return error;
    };
    let Ok(source_text) = std::fs::read_to_string(path) else {
        return error;
    };
    let found = vec![Diagnostic {
        rule: Rule::BadQemuDevice,
        message: said.clone(),
        span: item.span.clone(),
        help: None,
    }];
    Error::Description(LoadError::Refused {
        path: path.to_owned(),
        source_text,
        found,
    })
}

/// A run and what it came to.
pub struct Judged {
    /// The run.
    pub run: Run,
    /// The judgement.
    pub verdict: Verdict,
    /// Its report.
    pub files: Files,
}

impl Judged {
    /// Boots what was built, judges the run and writes its report. `earlier` are
    /// the figures of earlier runs, of which the best count.
    ///
    /// # Errors
    /// QEMU cannot be run, or the report cannot be written.
    pub fn boot(
        workspace: &Workspace,
        description: &Description,
        bootable: &Bootable,
        earlier: &Metrics,
        on_line: &mut dyn FnMut(&Line),
    ) -> Result<Self, Error> {
        let run = qemu::run(description, bootable, on_line)?;
        let digests: Digests = bootable
            .disks
            .iter()
            .map(|disk| (disk.id.clone(), disk.sha256.clone()))
            .collect();
        let verdict = judge(
            description,
            &run.transcript,
            &digests,
            &run.ending,
            run.took,
            &run.done,
            earlier,
        );
        let files = report::write(
            workspace,
            &description.name,
            &bootable.kernel,
            &verdict,
            &run,
        )?;
        Ok(Self {
            run,
            verdict,
            files,
        })
    }

    /// The account for people.
    #[must_use]
    pub fn account(
        &self,
        workspace: &Workspace,
        description: &Description,
        bootable: &Bootable,
    ) -> String {
        let faults = symbols::faults(description, &bootable.programs, &self.run.transcript);
        Account {
            workspace,
            description,
            kernel: &bootable.kernel,
            run: &self.run,
            verdict: &self.verdict,
            faults: &faults,
            files: &self.files,
        }
        .to_string()
    }
}
