//! Lines for the judge: named checks and figures, one line each, written to
//! the log so that none is lost.

use core::fmt;

use crate::Platform;

/// Whether a check held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held.
    Pass,
    /// It did not.
    Fail,
}

impl From<bool> for Verdict {
    fn from(ok: bool) -> Self {
        if ok { Self::Pass } else { Self::Fail }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        })
    }
}

/// Reports a named check with what was seen.
pub fn check<P: Platform>(
    platform: &P,
    name: &str,
    verdict: impl Into<Verdict>,
    detail: fmt::Arguments<'_>,
) {
    platform.log(format_args!("@check {name} {} {detail}", verdict.into()));
}

/// Reports a figure.
pub fn metric<P: Platform>(platform: &P, key: &str, value: u64) {
    platform.log(format_args!("@metric {key} {value}"));
}
