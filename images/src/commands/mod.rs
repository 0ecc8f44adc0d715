//! What the command line offers, a file each.

pub mod bench;
pub mod check;
pub mod compare;
pub mod fuzz;
pub mod lint;
pub mod plan;
pub mod run;
pub mod test;

use crate::description::{self, Description, LoadError};
use crate::error::Error;
use crate::workspace::Workspace;
use std::path::Path;

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// All is as it should be.
    Yes,
    /// Something is not, and has been told.
    No,
}

/// Loads a description and shows its warnings.
///
/// # Errors
/// As [`description::load`].
pub fn load(workspace: &Workspace, path: &Path) -> Result<Description, Error> {
    let (accepted, text) = description::load(path, &workspace.programs)?;
    let shown = workspace.shown(path).to_string();
    anstream::eprint!("{}", description::render(&shown, &text, &accepted.warnings));
    Ok(accepted.description)
}

/// Shows an error; a refused description with every place in it.
pub fn show_error(workspace: Option<&Workspace>, error: &Error) {
    use owo_colors::OwoColorize;
    if let Error::Description(LoadError::Refused {
        path,
        source_text,
        found,
    }) = error
    {
        let shown = match workspace {
            Some(workspace) => workspace.shown(path).to_string(),
            None => path.display().to_string(),
        };
        anstream::eprint!("{}", description::render(&shown, source_text, found));
    }
    anstream::eprintln!("{}: {error}", "error".red().bold());
}
