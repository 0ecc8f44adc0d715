//! ACPI tables of real machines: each is read, and each that names remapping units
//! gives a plan or is refused by name. What is read: `acpi_iasl.rs`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;
mod machines;

use std::path::PathBuf;

use data_folder::say;
use hw::acpi::plan::NoTopology;
use hw::acpi::{InterruptPlan, IommuPlan, Mcfg, ProximityPlan, Slit, TableError};
use portcullis_hw as hw;

/// Tables that are refused: firmware's mistakes, one a line, with the rule that is broken.
const REFUSED: [(&str, &str); 1] = [(
    // A unit whose registers are at address 0.
    "notebook.lenovo.thinkpad-e15-gen-2-20td0005mh.188eb681251a/DMAR.dat",
    "ACPI DMAR at byte 0x60: register base address is 0x0",
)];

/// Machines of which two units name the same functions. Nobody gets these functions.
const CONTESTED: [&str; 1] = [
    // Bus ff: a unit's range of buses from 60 on, and aliases of another's.
    "desktop.asustek-computer.rog-zenith-ii-extreme-alpha.bf6a37f4a7d0/IVRS.dat",
];

fn read(signature: &str, bytes: &[u8]) -> Result<(), TableError> {
    match signature {
        "MCFG" => Mcfg::parse(bytes)?
            .windows()
            .try_for_each(|w| w.map(|_| ())),
        "APIC" => InterruptPlan::from_bytes(bytes).map(|_| ()),
        "SRAT" => ProximityPlan::from_bytes(bytes).map(|_| ()),
        "SLIT" => Slit::parse(bytes).map(|_| ()),
        _ => IommuPlan::from_bytes(bytes).map(|_| ()),
    }
}

#[test]
fn every_table_of_a_real_machine_is_read() {
    let Some(folder) = data_folder::find("ACPI tables of real machines") else {
        return;
    };
    let (mut refused, mut read_whole) = (Vec::new(), 0);
    for signature in ["MCFG", "APIC", "DMAR", "IVRS", "SRAT", "SLIT"] {
        let tables = machines::tables(&folder, signature);
        assert!(!tables.is_empty(), "no {signature}");
        say(&format!("{signature}: {} tables", tables.len()));
        for (name, bytes) in tables {
            match read(signature, &bytes) {
                Ok(()) => read_whole += 1,
                Err(error) => {
                    say(&format!("{name}: {error}"));
                    refused.push((name, error.to_string()));
                }
            }
        }
    }
    // Of machines that are not in the list few may be refused: then the reader is at fault.
    let known = |name: &str| REFUSED.iter().find(|(machine, _)| *machine == name);
    let mut strange = 0;
    for (name, error) in &refused {
        match known(name) {
            Some((_, rule)) => assert_eq!(error, rule, "{name}"),
            None => strange += 1,
        }
    }
    assert!(
        strange * 50 <= read_whole,
        "{strange} of {} are refused",
        read_whole + strange
    );
}

#[test]
fn remapping_units_of_real_machines_give_a_plan_or_a_named_refusal() {
    let Some(folder) = data_folder::find("plans of remapping units") else {
        return;
    };
    for signature in ["DMAR", "IVRS"] {
        let (mut plans, mut units, mut scopes, mut reserved, mut refused) = (0, 0, 0, 0, 0);
        let (mut sources, mut contested) = (0, Vec::new());
        for (name, bytes) in machines::tables(&folder, signature) {
            let plan = match IommuPlan::from_bytes(&bytes) {
                Ok(plan) => plan,
                Err(error) => {
                    say(&format!("{name}: {error}"));
                    refused += 1;
                    continue;
                }
            };
            let claims = plan.claims(&NoTopology).unwrap();
            plans += 1;
            units += plan.units.len();
            scopes += plan.unit_scopes.len();
            reserved += plan.reserved.len();
            sources += plan.sources.len();
            if claims.contested().next().is_some() {
                contested.push(name.clone());
            }
            assert!(!plan.units.is_empty(), "{name}");
            // What a plan says can be shown, a line for each scope.
            let text = plan.show(&NoTopology).to_string();
            let lines = plan.units.len() + plan.unit_scopes.len() + plan.sources.len();
            assert!(text.lines().count() > lines, "{name}:\n{text}");
            assert!(
                text.lines().all(|line| line.trim_end() == line),
                "{name}:\n{text}"
            );
        }
        say(&format!(
            "{signature}: {plans} plans with {units} units, {scopes} scopes, {sources} sources, \
             {reserved} reserved regions; contested functions in {contested:?}; {refused} refused"
        ));
        assert!(plans > 0);
        let unexpected = contested
            .iter()
            .find(|name| !CONTESTED.contains(&name.as_str()));
        assert_eq!(unexpected, None);
    }
}

/// Where firmware's tables name the same thing they agree: a plan's IOAPICs are those of the MADT.
#[test]
fn plans_name_io_apics_that_the_machine_has() {
    let Some(folder) = data_folder::find("IOAPICs of plans and MADTs") else {
        return;
    };
    let (mut named, mut strange) = (0, 0);
    let machines = folder.join("acpi").read_dir().unwrap();
    for machine in machines.map(|machine| machine.unwrap().path()) {
        let file = |name: &str| std::fs::read(PathBuf::from(&machine).join(name));
        let (Ok(table), Ok(madt)) = (file("DMAR.dat").or(file("IVRS.dat")), file("APIC.dat"))
        else {
            continue;
        };
        let (Ok(plan), Ok(interrupts)) = (
            IommuPlan::from_bytes(&table),
            InterruptPlan::from_bytes(&madt),
        ) else {
            continue;
        };
        for source in &plan.sources {
            let hw::acpi::plan::SourceKind::IoApic(id) = source.kind else {
                continue;
            };
            named += 1;
            if !interrupts.io_apics.iter().any(|apic| apic.id == id) {
                strange += 1;
            }
        }
    }
    say(&format!(
        "{named} IOAPICs in plans, {strange} of them in no MADT"
    ));
    assert!(named > 0 && strange * 4 < named);
}
