//! Dumps in other forms: with text between the rows, of several machines in one file,
//! with ends of lines of another system, cut, and such as no program reads.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::Write as _;

use compare::report::Report;
use compare::{Error, lspci};

/// A function with an MSI capability.
const HEADER: &str = "\
00: 86 80 0e 10 07 04 10 00 02 00 00 02 00 00 00 00
10: 04 00 00 e0 01 00 00 00 00 00 00 00 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 86 80 01 00
30: 00 00 00 00 41 00 00 00 00 00 00 00 0b 01 00 00
40: 05 00 80 00 00 00 e0 fe 00 00 00 00 22 41 00 00
";

/// Compares a text; nothing without lspci.
fn compare(text: &str) -> Option<Result<Report, Error>> {
    if let Err(error) = lspci::version() {
        let _ = writeln!(std::io::stderr(), "forms of dumps: skipped: {error}");
        return None;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Some(compare::compare(file.path(), None))
}

/// All readings are the same, of so many functions.
fn is_equal(text: &str, functions: usize) {
    let Some(report) = compare(text) else {
        return;
    };
    let report = report.unwrap();
    let names = report.dumps.iter().flat_map(|dump| &dump.functions);
    assert_eq!(names.count(), functions, "{report}");
    let total = report.total();
    assert!(total.equal > 30 * functions, "{report}");
    assert_eq!(total.unexplained, 0, "{report}");
}

#[test]
fn domains_and_headings_of_all_kinds() {
    is_equal(
        &format!("00:01.0 Ethernet controller: what it is\n{HEADER}"),
        1,
    );
    is_equal(
        &format!("0001:00:01.0 x\n{HEADER}\n10000:e1:1f.7 x\n{HEADER}"),
        2,
    );
    is_equal(&format!("00:01.0\n{HEADER}\n"), 1);
}

#[test]
fn text_between_the_rows_and_other_ends_of_lines() {
    let long = "x".repeat(600);
    let text = format!("00:01.0 x\n\tSubsystem: {long}\n\tFlags: bus master\n\n{HEADER}");
    // An empty line ends a function.
    let text = text.replace("\n\n", "\n");
    is_equal(&text, 1);
    is_equal(&format!("00:01.0 x\n{HEADER}").replace('\n', "\r\n"), 1);
    is_equal(format!("00:01.0 x\n{HEADER}").trim_end(), 1);
}

#[test]
fn several_machines_in_one_file() {
    let one = format!("00:01.0 x\n{HEADER}\n");
    let other = one.replace("86 80 0e 10", "f4 1a 41 10");
    is_equal(&format!("{one}{other}{one}"), 3);
}

#[test]
fn headers_alone() {
    let header: String = HEADER
        .lines()
        .take(4)
        .map(|line| format!("{line}\n"))
        .collect();
    is_equal(&format!("00:01.0 x\n{header}"), 1);
}

#[test]
fn what_is_no_dump_is_an_error() {
    for text in ["", "what is this\n", "00:01.0 x\n00: zz\n", "00: 12 34\n"] {
        let Some(result) = compare(text) else {
            return;
        };
        assert!(matches!(result, Err(Error::Dump { .. })), "{text:?}");
    }
    let missing = compare::compare("no/such/file".as_ref(), None);
    assert!(matches!(missing, Err(Error::File { .. })));
}
