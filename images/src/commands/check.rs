//! `./x check SYSTEM.toml`: is the description valid?

use super::Success;
use crate::error::Error;
use crate::workspace::Workspace;

/// Reads the description and says what is wrong with it.
///
/// # Errors
/// It is not valid.
pub fn check(workspace: &Workspace, system: &str) -> Result<Success, Error> {
    let path = workspace.description(system);
    let description = super::load(workspace, &path)?;
    let size = description.compile().map_or(0, |bytes| bytes.len());
    anstream::println!(
        "{}: a valid description of `{}` with {} clients ({size} bytes compiled)",
        workspace.shown(&path),
        description.name,
        description.system.clients.len()
    );
    Ok(Success::Yes)
}
