//! `./x compare DUMP`: what `hw` reads from a dump of configuration spaces against what `lspci` reads.

use super::Success;
use crate::error::Error;
use compare::report::Report;
use std::path::{Path, PathBuf};

/// Which differences are shown one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Those without a reason.
    Unexplained,
    /// All.
    Explained,
}

/// Compares dumps, with `regions` also the sizes of their BARs, and shows the report.
///
/// # Errors
/// A file cannot be read or makes no sense, or `lspci` is missing. A difference without a reason
/// is no error but [`Success::No`].
pub fn compare(dumps: &[PathBuf], regions: Option<&Path>, shown: Shown) -> Result<Success, Error> {
    let mut report = Report::default();
    anstream::println!(
        "{}",
        compare::lspci::version().map_err(compare::Error::Lspci)?
    );
    for dump in dumps {
        report.add(compare::compare(dump, regions)?);
    }
    if shown == Shown::Explained {
        for (path, function, found) in report.explained() {
            let (path, rule) = (path.display(), found.rule.name);
            anstream::println!("explained ({rule}): {path} {function} {}", found.difference);
        }
    }
    anstream::print!("{report}");
    Ok(match report.total().unexplained {
        0 => Success::Yes,
        _ => Success::No,
    })
}
