//! ACPI tables of real machines: all of them are read, and a sample is compared
//! field by field with what `iasl -d` says.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;

use std::path::{Path, PathBuf};
use std::process::Command;

use data_folder::say;
use hw::acpi::{
    Dmar, InterruptPlan, IommuPlan, Madt, MadtEntry, Mcfg, Remapping, Scope, ScopeKind,
};
use portcullis_hw as hw;

/// Every n-th table of a kind is compared with `iasl`, which is slow.
const SAMPLE: usize = 9;

/// Machines whose firmware is broken: a DMAR with a unit whose registers are at address 0.
const BROKEN: [(&str, &str); 1] = [(
    "notebook.lenovo.thinkpad-e15-gen-2-20td0005mh.188eb681251a",
    "ACPI DMAR at byte 0x60: register base address is 0x0",
)];

/// Files whose name begins with `signature`, in order.
fn tables(folder: &Path, signature: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = folder
        .join("acpi")
        .read_dir()
        .unwrap()
        .flat_map(|machine| machine.unwrap().path().read_dir().unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with(signature)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_table_of_a_real_machine_is_read() {
    let Some(folder) = data_folder::find("ACPI tables of real machines") else {
        return;
    };
    let mut counts = [0; 3];
    let mut refused = Vec::new();
    for (count, signature) in counts.iter_mut().zip(["MCFG", "DMAR", "APIC"]) {
        for file in tables(&folder, signature) {
            let bytes = std::fs::read(&file).unwrap();
            let outcome = match signature {
                "MCFG" => Mcfg::parse(&bytes)
                    .and_then(|mcfg| mcfg.windows().try_for_each(|w| w.map(|_| ()))),
                "DMAR" => IommuPlan::from_bytes(&bytes).map(|_| ()),
                _ => InterruptPlan::from_bytes(&bytes).map(|_| ()),
            };
            *count += 1;
            if let Err(error) = outcome {
                let machine = file.parent().unwrap().file_name().unwrap();
                refused.push((machine.display().to_string(), error.to_string()));
            }
        }
    }
    let [mcfg, dmar, apic] = counts;
    say(&format!(
        "read {mcfg} MCFG, {dmar} DMAR, {apic} MADT; refused {}",
        refused.len()
    ));
    for (machine, error) in &refused {
        say(&format!("{machine}: {error}"));
    }
    assert!(counts.iter().all(|count| *count > 0));
    let unexpected = refused
        .iter()
        .find(|(machine, error)| !BROKEN.contains(&(machine.as_str(), error.as_str())));
    assert_eq!(unexpected, None);
}

type Fields = Vec<(String, u64)>;

fn field(fields: &mut Fields, name: &str, value: impl Into<u64>) {
    fields.push((name.to_string(), value.into()));
}

fn scope(fields: &mut Fields, scope: &Scope) {
    let kind = match scope.kind {
        ScopeKind::Endpoint => 1,
        ScopeKind::Bridge => 2,
        ScopeKind::IoApic => 3,
        ScopeKind::Hpet => 4,
        ScopeKind::NameSpace => 5,
        ScopeKind::Other(other) => other,
    };
    field(fields, "Device Scope Type", kind);
    field(fields, "Enumeration ID", scope.enumeration_id);
    field(fields, "PCI Bus Number", scope.path.bus);
    for hop in &scope.path.hops {
        let path = u16::from(hop.device) << 8 | u16::from(hop.function);
        field(fields, "PCI Path", path);
    }
}

/// Fields of a table by the names that `iasl` gives them; `None` if the table has records that
/// this version of `iasl` does not know, or is one of the broken ones.
fn ours(bytes: &[u8]) -> Option<Fields> {
    let mut fields = Fields::new();
    let out = &mut fields;
    match &bytes[..4] {
        b"MCFG" => {
            for window in Mcfg::parse(bytes).unwrap().windows() {
                let window = window.unwrap();
                field(out, "Base Address", window.base);
                field(out, "Segment Group Number", window.segment);
                field(out, "Start Bus Number", window.buses.first());
                field(out, "End Bus Number", window.buses.last());
            }
        }
        b"DMAR" => {
            let dmar = Dmar::parse(bytes).unwrap();
            IommuPlan::from_bytes(bytes).ok()?;
            field(out, "Host Address Width", dmar.host_address_bits - 1);
            for structure in dmar.structures() {
                match structure.unwrap() {
                    Remapping::Drhd(unit) => {
                        field(out, "PCI Segment Number", unit.segment);
                        field(out, "Register Base Address", unit.base);
                        unit.scopes.iter().for_each(|s| scope(out, &s.unwrap()));
                    }
                    Remapping::Rmrr(region) => {
                        field(out, "PCI Segment Number", region.segment);
                        field(out, "Base Address", region.base);
                        field(out, "End Address (limit)", region.limit);
                        region.scopes.iter().for_each(|s| scope(out, &s.unwrap()));
                    }
                    Remapping::Atsr(ports) => {
                        field(out, "PCI Segment Number", ports.segment);
                        ports.scopes.iter().for_each(|s| scope(out, &s.unwrap()));
                    }
                    Remapping::Rhsa(domain) => {
                        field(out, "Base Address", domain.base);
                        field(out, "Proximity Domain", domain.domain);
                    }
                    Remapping::Andd(_) => {}
                    _ => return None,
                }
            }
        }
        _ => {
            let madt = Madt::parse(bytes).unwrap();
            field(out, "Local Apic Address", madt.local_apic_address);
            for entry in madt.entries() {
                match entry.unwrap() {
                    MadtEntry::LocalApic(apic) => field(out, "apic", apic.id),
                    MadtEntry::IoApic(apic) => {
                        field(out, "I/O Apic ID", apic.id);
                        field(out, "Address", apic.address);
                        field(out, "Interrupt", apic.first_gsi);
                    }
                    MadtEntry::Override(line) => {
                        field(out, "Source", line.source);
                        field(out, "Interrupt", line.gsi);
                    }
                    MadtEntry::LocalApicAddress(_) | MadtEntry::Other { kind: 0..=15, .. } => {}
                    MadtEntry::Other { .. } => return None,
                }
            }
        }
    }
    Some(fields)
}

/// The same fields, from the text that `iasl` wrote.
fn theirs(text: &str, names: &[&str]) -> Fields {
    let mut fields = Fields::new();
    for line in text.lines().filter(|line| line.starts_with('[')) {
        let (Some((_, rest)), true) = (line.split_once(']'), line.contains(" : ")) else {
            continue;
        };
        let (name, value) = rest.split_once(" : ").unwrap();
        let name = match name.trim() {
            "Local Apic ID" | "Processor x2Apic ID" => "apic",
            name => name,
        };
        if !names.contains(&name) {
            continue;
        }
        let value = value.split_whitespace().next().unwrap().replace(',', "");
        field(&mut fields, name, u64::from_str_radix(&value, 16).unwrap());
    }
    fields
}

const NAMES: [(&str, &[&str]); 3] = [
    (
        "MCFG",
        &[
            "Base Address",
            "Segment Group Number",
            "Start Bus Number",
            "End Bus Number",
        ],
    ),
    (
        "DMAR",
        &[
            "Host Address Width",
            "PCI Segment Number",
            "Register Base Address",
            "Base Address",
            "End Address (limit)",
            "Proximity Domain",
            "Device Scope Type",
            "Enumeration ID",
            "PCI Bus Number",
            "PCI Path",
        ],
    ),
    (
        "APIC",
        &[
            "Local Apic Address",
            "apic",
            "I/O Apic ID",
            "Address",
            "Interrupt",
            "Source",
        ],
    ),
];

#[test]
fn a_sample_of_tables_is_read_as_iasl_reads_it() {
    let Some(folder) = data_folder::find("comparison with iasl") else {
        return;
    };
    if Command::new("iasl").arg("-v").output().is_err() {
        say("comparison with iasl: skipped: iasl is not installed (Debian package acpica-tools)");
        return;
    }
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("iasl");
    std::fs::create_dir_all(&scratch).unwrap();
    let (mut compared, mut unknown) = (0, 0);
    for (signature, names) in NAMES {
        for file in tables(&folder, signature).iter().step_by(SAMPLE) {
            let bytes = std::fs::read(file).unwrap();
            let Some(ours) = ours(&bytes) else {
                unknown += 1;
                continue;
            };
            let table = scratch.join(format!("{signature}.dat"));
            std::fs::write(&table, &bytes).unwrap();
            let run = Command::new("iasl").arg("-d").arg(&table).output().unwrap();
            assert!(run.status.success(), "{run:?}");
            let text = std::fs::read(table.with_extension("dsl")).unwrap();
            let theirs = theirs(&String::from_utf8_lossy(&text), names);
            assert_eq!(ours, theirs, "{}", file.display());
            compared += 1;
        }
    }
    say(&format!(
        "compared {compared} tables with iasl; {unknown} left out"
    ));
    assert!(compared > 0);
}
