//! `./x fuzz TARGET`: malformed input for the readers of what firmware says; the program is `fuzz`.

use super::Success;
use super::lint::succeeds;
use crate::error::Error;
use crate::programs::cargo;
use crate::workspace::Workspace;
use std::ffi::OsString;

/// Profile that finds overflows, and is fast.
const PROFILE: &str = "fuzz";

/// Runs the fuzzer with these arguments.
///
/// # Errors
/// Cargo cannot be run. What the fuzzer finds is no error but [`Success::No`].
pub fn fuzz(workspace: &Workspace, arguments: &[OsString]) -> Result<Success, Error> {
    let mut command = cargo(workspace, "run");
    command
        .args(["--quiet", "--profile", PROFILE, "--package", "fuzz", "--"])
        .args(arguments);
    Ok(match succeeds(command)? {
        true => Success::Yes,
        false => Success::No,
    })
}
