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
        "{}: a valid description of `{}` with {} ({size} bytes compiled)",
        workspace.shown(&path),
        description.name,
        match description.system.clients.len() {
            1 => "1 client".to_owned(),
            many => format!("{many} clients"),
        }
    );
    Ok(Success::Yes)
}
