//! `./x lint`: formatting, and clippy without any finding, of host packages and of programs.

use super::Success;
use crate::build;
use crate::error::Error;
use crate::kernel::{Build, KernelSpec};
use crate::programs::cargo;
use crate::ui::Ui;
use crate::workspace::Workspace;
use owo_colors::OwoColorize;
use std::process::{Command, Stdio};

/// Checks everything, and says what is not as it should be.
///
/// # Errors
/// Cargo cannot be run, or the kernel that programs are checked for cannot be built.
pub fn lint(workspace: &Workspace) -> Result<Success, Error> {
    let mut format = cargo(workspace, "fmt");
    format.args(["--all", "--check"]);

    let mut host = cargo(workspace, "clippy");
    host.args(["--quiet", "--all-targets", "--", "-D", "warnings"]);

    let spec = KernelSpec::new(Build::Release, 1);
    let (_, recipe) = build::kernel(workspace, &spec, Ui::Shown)?;
    let mut programs = recipe.cargo(workspace, "clippy");
    programs.arg("--quiet");
    for package in &workspace.on_kernel {
        programs.args(["--package", workspace.id(package)]);
    }
    programs.args(["--", "-D", "warnings"]);

    let mut all = Success::Yes;
    for (what, command) in [
        ("formatting", format),
        ("clippy, host packages", host),
        ("clippy, programs", programs),
    ] {
        if !succeeds(command)? {
            all = Success::No;
            anstream::println!("{} {what}", "FAIL".red().bold());
        } else {
            anstream::println!("{}   {what}", "ok".green());
        }
    }
    Ok(all)
}

/// Runs a command whose output goes where this program's goes.
///
/// # Errors
/// It cannot be started.
pub fn succeeds(mut command: Command) -> Result<bool, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .status()
        .map(|status| status.success())
        .map_err(Error::spawn(program))
}
