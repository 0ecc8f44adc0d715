//! Functions that nobody built, read by both sides: whatever the registers hold, the
//! readings are the same or explained. The differences that a fault in a decoder
//! would make are found with it, since every bit of every field comes up.
//!
//! `PORTCULLIS_SEEDS=first..last` runs other seeds than the usual ones.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "random/mod.rs"]
mod generate;

use std::io::Write as _;

use compare::report::Report;
use compare::{compare, lspci};
use generate::{Random, dump};

/// Says something even if the test passes: the harness captures only `print!` and `eprint!`.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Functions in a dump.
const FUNCTIONS: u64 = 200;

#[test]
fn random_functions_are_read_as_lspci_reads_them() {
    if let Err(error) = lspci::version() {
        return say(&format!("random functions: skipped: {error}"));
    }
    let seeds = std::env::var("PORTCULLIS_SEEDS").unwrap_or("0..3".to_owned());
    let (first, last) = seeds.split_once("..").unwrap();
    let mut report = Report::default();
    for seed in first.parse::<u64>().unwrap()..last.parse().unwrap() {
        let mut file = tempfile::Builder::new()
            .prefix(&format!("seed-{seed}-"))
            .tempfile()
            .unwrap();
        let text = dump(&mut Random::new(seed), FUNCTIONS);
        file.write_all(text.as_bytes()).unwrap();
        let found = compare(file.path(), None).unwrap();
        if found.total().unexplained != 0 {
            // For a look at it.
            let (_, path) = file.keep().unwrap();
            say(&format!("kept {}", path.display()));
        }
        report.add(found);
    }
    say(&report.to_string());
    let gave_up = report
        .explained()
        .filter(|(_, _, found)| found.rule.name == "lspci gives up");
    for (_, _, found) in gave_up.take(8) {
        say(&found.difference.to_string());
    }
    let total = report.total();
    assert!(total.equal > 0);
    assert_eq!(total.unexplained, 0);
}
