//! A short run of the fuzzer, in every `cargo test`; and that it finds what it should.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use fuzz::corpus::{Corpus, real_tables};
use fuzz::run::{Plan, input, replay, run};

/// About ten seconds without optimisation on two processors.
const INPUTS: u64 = 40_000;

fn corpus() -> Corpus {
    let mut corpus = Corpus::built();
    if let Some(folder) = real_tables() {
        corpus.add_real(&folder).unwrap();
    }
    corpus
}

#[test]
fn malformed_tables_are_refused_or_read() {
    let plan = Plan {
        inputs: INPUTS,
        seed: 7,
        workers: 2,
    };
    let outcome = run(corpus(), plan, |_| ()).unwrap_or_else(|failure| unreachable!("{failure:?}"));
    // The mutations reach behind header and checksum, and into plans.
    assert!(outcome.read > INPUTS / 4, "{outcome:?}");
    assert!(outcome.plans > INPUTS / 50, "{outcome:?}");
    let tables: BTreeSet<_> = outcome
        .reached
        .keys()
        .map(|(table, _)| table.as_str())
        .collect();
    for table in [
        "APIC", "DMAR", "HPET", "IVRS", "MCFG", "SLIT", "SRAT", "XSDT",
    ] {
        assert!(tables.contains(table), "{table} not reached");
    }
    for (table, rule) in [
        ("DMAR", "type of a device scope"),
        ("DMAR", "device in a path"),
        ("DMAR", "segment with two units for all other devices"),
        ("DMAR", "register base address of two units"),
        ("DMAR", "character in a device's name"),
        ("IVRS", "second register base address of a unit"),
        ("IVRS", "range without an end, from device"),
        ("IVRS", "end of a range without a start, at device"),
        ("IVRS", "format of a _UID"),
        ("IVRS", "record beyond the end"),
        ("SRAT", "type of a device handle"),
        ("SRAT", "record too short"),
        ("SLIT", "number of localities"),
    ] {
        let reached = outcome
            .reached
            .keys()
            .any(|(t, r)| (t.as_str(), *r) == (table, rule));
        assert!(
            reached,
            "{table}: {rule} not reached: {:#?}",
            outcome.reached
        );
    }
}

#[test]
fn an_input_is_the_same_again() {
    let corpus = Corpus::built();
    let of = |seed, index| input(&corpus, seed, index).0;
    assert_eq!(of(1, 5), of(1, 5));
    let some = |seed| (0..20).map(|index| of(seed, index)).collect::<Vec<_>>();
    assert_ne!(some(1), some(2));
    let different: BTreeSet<_> = (0..200).map(|index| of(1, index)).collect();
    assert!(different.len() > 190, "{}", different.len());
    assert_eq!(replay(&corpus, 1, 5), replay(&corpus, 1, 5));
}

#[test]
fn workers_share_the_inputs() {
    let total = |workers| {
        let plan = Plan {
            inputs: 1000,
            seed: 3,
            workers,
        };
        run(Corpus::built(), plan, |_| ()).unwrap()
    };
    assert_eq!(total(1), total(3));
}
