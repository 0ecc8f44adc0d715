//! The dump that a client prints for `lspci -F`, and what `lspci` reads in it.

use crate::topology::{self, Function, Functions};
use crate::transcript::Line;
use std::io::Write;
use std::process::Command;

/// The dump begins after this line.
const BEGIN: &str = "--- for lspci -F";
/// And ends before this one.
const END: &str = "---";

/// The newest dump that a PD printed.
#[must_use]
pub fn of(lines: &[Line], pd: &str) -> String {
    let of_pd = || {
        lines
            .iter()
            .filter(|line| line.pd.as_deref() == Some(pd))
            .map(|line| line.text.as_str())
    };
    let begin = of_pd().rposition_of(BEGIN).map_or(usize::MAX, |at| at + 1);
    let mut dump = String::new();
    for line in of_pd().skip(begin).take_while(|line| *line != END) {
        dump.push_str(line);
        dump.push('\n');
    }
    dump
}

trait PositionOf<'a>: Iterator<Item = &'a str> + Sized {
    /// Where the last line with this text is.
    fn rposition_of(self, text: &str) -> Option<usize> {
        let found = self.enumerate().filter(|(_, line)| *line == text);
        found.map(|(at, _)| at).last()
    }
}

impl<'a, I: Iterator<Item = &'a str>> PositionOf<'a> for I {}

/// The functions that `lspci` finds in a dump.
///
/// # Errors
/// It cannot be run, or does not read the dump.
pub fn read(dump: &str) -> Result<Functions, String> {
    let failed = |error: std::io::Error| format!("lspci cannot be given the dump: {error}");
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(dump.as_bytes()).map_err(failed)?;
    let output = Command::new("lspci")
        .args(["-D", "-n", "-F"])
        .arg(file.path())
        .output()
        .map_err(|error| format!("cannot run lspci: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("lspci does not read the dump: {}", said.trim()));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| function(line).ok_or_else(|| format!("lspci said `{line}`")))
        .collect()
}

/// `0000:00:03.0 00ff: 1234:11e8 (rev 10)`
fn function(line: &str) -> Option<((u8, u8, u8), Function)> {
    let mut words = line.split_whitespace();
    let address = topology::address(words.next()?)?;
    let class = words.next()?.strip_suffix(':')?.to_owned();
    let ids = words.next()?.to_owned();
    Some((
        address,
        Function {
            ids,
            class,
            ..Function::default()
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::Transcript;

    #[test]
    fn the_newest_dump_of_the_pd_is_taken() {
        let transcript = Transcript::from_text(
            "a| --- for lspci -F\na| old\na| ---\na| --- for lspci -F\nb| other\na| one\n\
             a| two\na| ---\na| after\n",
        );
        assert_eq!(of(&transcript.lines, "a"), "one\ntwo\n");
        assert_eq!(of(&transcript.lines, "c"), "");
    }

    #[test]
    fn a_line_of_lspci_is_a_function() {
        let (address, function) = function("0000:80:03.1 0604: 1b36:000c (rev 01)").unwrap();
        assert_eq!(address, (0x80, 3, 1));
        assert_eq!(function.class, "0604");
        assert_eq!(function.ids, "1b36:000c");
        assert_eq!(super::function("pcilib: error"), None);
    }
}
