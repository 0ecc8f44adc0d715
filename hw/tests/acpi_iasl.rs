//! Every field that `hw::acpi` decodes, of every table of real machines and of
//! tables built here, is what `iasl -d` says (Debian package acpica-tools).
//!
//! All that `iasl` prints must be accounted for: equal, or explained by a rule of [`RULES`].
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;
mod iasl;
mod machines;
mod tables;

use std::collections::BTreeMap;
use std::path::PathBuf;

use data_folder::say;
use iasl::ours::{Decoded, NO_MEANING, NOT_DECODED};
use iasl::relabel::{self, relabel};
use iasl::{Disassembly, Value};

/// Fields of no table that are decoded: who made it, its checksum (verified), and padding.
const FOR_PEOPLE: [&str; 11] = [
    "Checksum",
    "Oem ID",
    "Oem Table ID",
    "Oem Revision",
    "Asl Compiler ID",
    "Asl Compiler Revision",
    "Reserved",
    "Reserved1",
    "Reserved2",
    "Reserved3",
    "Table Revision",
];

const UNKNOWN_TO_IASL: &str = "iasl does not know the structure";
const BEHIND_UNKNOWN: &str = "iasl stops at a structure of a DMAR that it does not know";
const REFUSED: &str = "structure that breaks a rule and is refused";
const NAMES: &str = "who made the table, checksum, padding";

/// Every reason why a field need not be equal.
const RULES: [&str; 6] = [
    UNKNOWN_TO_IASL,
    BEHIND_UNKNOWN,
    REFUSED,
    NOT_DECODED,
    NO_MEANING,
    NAMES,
];

#[derive(Default)]
struct Tally {
    equal: usize,
    /// Fields that need not be equal, by rule.
    explained: BTreeMap<&'static str, usize>,
    different: Vec<String>,
}

impl Tally {
    fn explain(&mut self, rule: &'static str) {
        assert!(RULES.contains(&rule));
        *self.explained.entry(rule).or_default() += 1;
    }

    /// Compares what both say about a table.
    fn compare(&mut self, name: &str, signature: &[u8], ours: &Decoded, theirs: &Disassembly) {
        let mut rest = theirs.fields.clone();
        // Where the structure begins that holds an offset.
        let starts: Vec<usize> = theirs
            .fields
            .keys()
            .filter(|(_, name)| name == "Subtable Type")
            .map(|(offset, _)| *offset)
            .collect();
        let our_starts: Vec<usize> = ours
            .fields
            .iter()
            .filter(|field| field.name == "Subtable Type")
            .map(|field| field.offset)
            .collect();
        // Both are in order.
        let start_of = |offset: usize, starts: &[usize]| {
            let behind = starts.partition_point(|start| *start <= offset);
            Some(starts[behind.checked_sub(1)?])
        };
        let within = |offset: usize, of: &[usize]| {
            start_of(offset, &starts).is_some_and(|start| of.contains(&start))
        };
        let stopped = signature == b"DMAR" && !theirs.unknown.is_empty();
        for field in &ours.fields {
            let place = (field.offset, field.name.to_owned());
            match rest.remove(&place) {
                Some(value) if masked(&value, field.mask) == masked(&field.value, field.mask) => {
                    self.equal += 1;
                }
                // It prints an unknown type of a DMAR as 5.
                Some(_)
                    if field.name == "Subtable Type" && theirs.unknown.contains(&field.offset) =>
                {
                    self.explain(UNKNOWN_TO_IASL);
                }
                Some(value) => self.different.push(format!(
                    "{name}: {} at {}: {:x?}, iasl says {value:x?}",
                    field.name, field.offset, field.value
                )),
                None if within(field.offset, &theirs.unknown) && {
                    let start = start_of(field.offset, &our_starts);
                    start.is_some_and(|start| theirs.unknown.contains(&start))
                } =>
                {
                    self.explain(UNKNOWN_TO_IASL);
                }
                None if stopped && theirs.unknown.iter().all(|at| *at < field.offset) => {
                    self.explain(BEHIND_UNKNOWN);
                }
                None => self.different.push(format!(
                    "{name}: {} at {}: {:x?}, iasl says nothing",
                    field.name, field.offset, field.value
                )),
            }
        }
        let refused: Vec<usize> = ours.refused.iter().map(|e| e.offset as usize).collect();
        let passed_over = ours.passed_over.iter();
        let passed_over: BTreeMap<_, _> = passed_over
            .map(|(offset, name, rule)| ((*offset, *name), *rule))
            .collect();
        for ((offset, field), value) in rest {
            let passed_over = passed_over.get(&(offset, field.as_str()));
            if let Some(rule) = passed_over {
                self.explain(rule);
            } else if FOR_PEOPLE.contains(&field.as_str()) {
                self.explain(NAMES);
            } else if !ours.whole || within(offset, &refused) || refused.contains(&offset) {
                self.explain(REFUSED);
            } else if within(offset, &ours.other) {
                self.explain(NOT_DECODED);
            } else {
                self.different.push(format!(
                    "{name}: only iasl: {field} at {offset}: {value:x?}"
                ));
            }
        }
    }
}

/// The bits of a value that count.
fn masked(value: &Value, mask: u64) -> Value {
    match value {
        Value::Number(number) => Value::Number(number & mask),
        text => text.clone(),
    }
}

/// Tables of all kinds with records of all kinds.
fn built_here() -> Vec<(String, Vec<u8>)> {
    let tables = [
        tables::full_dmar(),
        tables::full_ivrs(),
        tables::full_madt(),
        tables::full_srat(),
        tables::slit(3, &[10, 20, 255, 20, 10, 30, 255, 30, 10]),
        tables::mcfg(&[(0xb000_0000, 0, 0, 255), (0x2_0000_0000, 1, 2, 3)]),
        tables::hpet(0, 0xfed0_0000),
    ];
    let named = tables
        .into_iter()
        .map(|table| ("built here".to_owned(), table));
    named.collect()
}

#[test]
fn every_field_is_what_iasl_says() {
    let mut all = built_here();
    if let Some(folder) = data_folder::find("comparison of real tables with iasl") {
        for signature in ["MCFG", "APIC", "DMAR", "IVRS", "SRAT", "SLIT"] {
            let files = machines::tables(&folder, signature);
            assert!(!files.is_empty(), "no {signature}");
            all.extend(files);
        }
    }
    let (mut relabelled, mut same) = (Vec::new(), 0);
    for (name, bytes) in &all {
        if let Some(known) = relabel(bytes) {
            same += relabel::same(bytes, &known);
            relabelled.push((format!("{name}, relabelled"), known));
        }
    }
    say(&format!(
        "{} tables with structures that iasl does not know are compared under a type that it knows, too: \
         both say the same in {same} places",
        relabelled.len()
    ));
    all.extend(relabelled);
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("iasl");
    let disassembled = match iasl::disassemble(&scratch, &all) {
        Ok(disassembled) => disassembled,
        Err(why) => {
            say(&format!("comparison with iasl: skipped: {why}"));
            return;
        }
    };
    let mut total = Tally::default();
    let mut kinds: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    for ((name, bytes), theirs) in all.iter().zip(&disassembled) {
        let ours = Decoded::of(bytes);
        for error in &ours.refused {
            say(&format!("{name}: {error}"));
        }
        let before = (total.equal, total.explained.values().sum::<usize>());
        total.compare(name, &bytes[..4], &ours, theirs);
        let kind = String::from_utf8_lossy(&bytes[..4]).into_owned();
        let (tables, equal, explained) = kinds.entry(kind).or_default();
        *tables += 1;
        *equal += total.equal - before.0;
        *explained += total.explained.values().sum::<usize>() - before.1;
    }
    for (kind, (tables, equal, explained)) in &kinds {
        let compared = equal + explained;
        say(&format!(
            "{kind}: {tables:3} tables, {compared:6} fields: {equal:6} equal, {explained:5} explained"
        ));
    }
    for (rule, count) in &total.explained {
        say(&format!("  {count:6} explained: {rule}"));
    }
    for line in &total.different {
        say(line);
    }
    assert_eq!(total.different.len(), 0);
    assert!(total.equal > 0);
}
