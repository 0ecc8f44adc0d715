//! Configuration spaces of real machines, loaded into the simulation: headers,
//! BARs, enumeration, and capability lists compared with what `lspci` says.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_folder::say;
use hw::bar;
use hw::capability::{
    AdvancedFeatures, CapabilityError, CapabilityList, Express, Msi, Msix, PowerManagement,
};
use hw::enumeration::{Fault, Found, enumerate};
use hw::{BusRange, Header, Sbdf};
use portcullis_hw as hw;
use sim::config::Machine;

fn dumps(folder: &Path) -> Vec<(PathBuf, Machine)> {
    let mut files: Vec<_> = folder
        .join("pci")
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|name| name == "hex"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let mut machine = Machine::from_lspci(&std::fs::read_to_string(&file).unwrap())
                .unwrap_or_else(|error| unreachable!("{}: {error}", file.display()));
            if let Ok(regions) = std::fs::read_to_string(file.with_extension("regions.tsv")) {
                machine.apply_regions(&regions).unwrap();
            }
            (file, machine)
        })
        .collect()
}

fn name(file: &Path) -> std::path::Display<'_> {
    Path::new(file.file_name().unwrap()).display()
}

/// Decodes every family that is in the list.
fn decode(machine: &Machine, at: Sbdf, list: &CapabilityList) -> Result<usize, CapabilityError> {
    let found = [
        list.find::<PowerManagement, _>(machine, at)?.is_some(),
        list.find::<AdvancedFeatures, _>(machine, at)?.is_some(),
        list.find::<Express, _>(machine, at)?.is_some(),
        list.find::<Msi, _>(machine, at)?.is_some(),
        list.find::<Msix, _>(machine, at)?.is_some(),
    ];
    Ok(found.iter().filter(|found| **found).count())
}

#[test]
fn every_function_of_a_real_machine_is_read() {
    let Some(folder) = data_folder::find("configuration spaces of real machines") else {
        return;
    };
    let (mut functions, mut capabilities, mut decoded, mut sized) = (0, 0, 0, 0);
    for (file, mut machine) in dumps(&folder) {
        for at in machine.addresses().collect::<Vec<_>>() {
            functions += 1;
            let header = Header::read(&machine, at);
            let header = header.unwrap_or_else(|e| unreachable!("{} {at}: {e}", name(&file)));
            let list = CapabilityList::read(&machine, at, header.layout);
            // Of some machines only the first 64 bytes are known: their lists end there.
            let known = machine.snapshot(at).len() > 64;
            let faults = list.fault.iter().chain(&list.extended_fault);
            for fault in faults.filter(|_| known) {
                say(&format!("{} {at}: {fault}", name(&file)));
            }
            capabilities += list.entries.len() + list.extended.len();
            match decode(&machine, at, &list) {
                Ok(count) => decoded += count,
                Err(error) => say(&format!("{} {at}: {error}", name(&file))),
            }
            let before = machine.snapshot(at);
            let bars = bar::probe(&mut machine, at, &header).unwrap();
            assert_eq!(machine.snapshot(at), before, "{} {at}", name(&file));
            sized += bars.iter().count();
        }
    }
    say(&format!(
        "{functions} functions: {capabilities} capabilities, {decoded} decoded, {sized} BARs"
    ));
    assert!(functions > 0 && decoded > 0);
}

#[test]
fn bars_have_the_sizes_that_the_machine_saw() {
    let Some(folder) = data_folder::find("BAR sizes of real machines") else {
        return;
    };
    let mut compared = 0;
    for (file, mut machine) in dumps(&folder) {
        let Ok(regions) = std::fs::read_to_string(file.with_extension("regions.tsv")) else {
            continue;
        };
        for line in regions.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t');
            let at: Sbdf = fields.next().unwrap().parse().unwrap();
            let Ok(index) = fields.next().unwrap().parse::<u8>() else {
                continue;
            };
            let size = fields.next().unwrap().trim_start_matches("0x");
            let size = u64::from_str_radix(size, 16).unwrap();
            let header = Header::read(&machine, at).unwrap();
            // Registers that are not implemented were printed as a size of one.
            if index >= header.layout.bar_count() || size == 1 {
                continue;
            }
            let bars = bar::probe(&mut machine, at, &header).unwrap();
            let slot = &bars.slots()[usize::from(index)];
            let found = bars.get(index).map(|bar| bar.size);
            assert_eq!(found, Some(size), "{} {at} {index}: {slot:?}", name(&file));
            compared += 1;
        }
    }
    say(&format!("compared the sizes of {compared} BARs"));
    assert!(compared > 0);
}

#[test]
fn enumeration_finds_the_functions_of_whole_machines() {
    let Some(folder) = data_folder::find("enumeration of real machines") else {
        return;
    };
    for (file, machine) in dumps(&folder) {
        let present: BTreeSet<_> = machine.addresses().collect();
        let segments: BTreeSet<_> = present.iter().map(|at| at.segment()).collect();
        let mut found = BTreeSet::new();
        let mut faults: Vec<(Sbdf, Fault)> = Vec::new();
        for segment in segments {
            let end = enumerate(&machine, segment, BusRange::ALL, |event| {
                match event {
                    Found::Function(function) => assert!(found.insert(function.at)),
                    Found::Fault { at, fault } => faults.push((at, fault)),
                    Found::Host(_) => {}
                }
                ControlFlow::Continue(())
            });
            assert!(end.is_continue());
        }
        for (at, fault) in &faults {
            say(&format!("{} {at}: {fault}", name(&file)));
        }
        // A dump may be an extract: functions without function 0, or without the bridge above.
        let missed: Vec<_> = present.difference(&found).collect();
        if !missed.is_empty() {
            say(&format!(
                "{}: not reachable in this dump: {missed:?}",
                name(&file)
            ));
        }
        let whole = name(&file).to_string().contains("tree-");
        assert!(!whole || missed.is_empty());
    }
}

/// Offsets of capabilities, as `lspci -v` lists them, by function.
fn lspci(file: &Path) -> BTreeMap<Sbdf, Vec<u16>> {
    let run = Command::new("lspci")
        .arg("-F")
        .arg(file)
        .args(["-D", "-vv", "-n"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let mut functions = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(at) = line
            .split(' ')
            .next()
            .and_then(|word| word.parse::<Sbdf>().ok())
        {
            functions.insert(at, Vec::new());
            current = Some(at);
        } else if let Some(rest) = line.strip_prefix("\tCapabilities: [") {
            let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            let offsets = functions.get_mut(&current.unwrap()).unwrap();
            offsets.push(u16::from_str_radix(&digits, 16).unwrap());
        }
    }
    functions
}

#[test]
fn capability_lists_are_those_that_lspci_prints() {
    let Some(folder) = data_folder::find("comparison with lspci") else {
        return;
    };
    if Command::new("lspci").arg("--version").output().is_err() {
        say("comparison with lspci: skipped: lspci is not installed (Debian package pciutils)");
        return;
    }
    let (mut functions, mut offsets) = (0, 0);
    for (file, machine) in dumps(&folder) {
        for (at, theirs) in lspci(&file) {
            // lspci shows nothing of functions whose dump ends before the lists.
            if machine.snapshot(at).len() == 64 {
                continue;
            }
            let header = Header::read(&machine, at).unwrap();
            let list = CapabilityList::read(&machine, at, header.layout);
            let conventional = list.entries.iter().map(|entry| u16::from(entry.offset));
            let extended = list.extended.iter().map(|entry| entry.offset);
            let ours: Vec<_> = conventional.chain(extended).collect();
            assert_eq!(ours, theirs, "{} {at}: {list:?}", name(&file));
            functions += 1;
            offsets += ours.len();
        }
    }
    say(&format!(
        "compared {offsets} capabilities of {functions} functions with lspci"
    ));
    assert!(offsets > 0);
}
