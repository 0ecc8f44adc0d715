//! Configuration spaces of real machines, loaded into the simulation: headers,
//! BARs, enumeration. That what is read is what `lspci` reads: the package `compare`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use data_folder::say;
use hw::bar::{self, Slot, Space};
use hw::capability::*;
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
        list.find::<BridgeSubsystem, _>(machine, at)?.is_some(),
        list.find::<EnhancedAllocation, _>(machine, at)?.is_some(),
        list.find::<Express, _>(machine, at)?.is_some(),
        list.find::<Msi, _>(machine, at)?.is_some(),
        list.find::<Msix, _>(machine, at)?.is_some(),
        list.find::<VitalProductData, _>(machine, at)?.is_some(),
        list.find_extended::<AccessControl, _>(machine, at)?
            .is_some(),
        list.find_extended::<AddressTranslation, _>(machine, at)?
            .is_some(),
        list.find_extended::<AlternativeRouting, _>(machine, at)?
            .is_some(),
        list.find_extended::<Containment, _>(machine, at)?.is_some(),
        list.find_extended::<DesignatedVendor, _>(machine, at)?
            .is_some(),
        list.find_extended::<ErrorReporting, _>(machine, at)?
            .is_some(),
        list.find_extended::<PageRequest, _>(machine, at)?.is_some(),
        list.find_extended::<Pasid, _>(machine, at)?.is_some(),
        list.find_extended::<ResizableBars, _>(machine, at)?
            .is_some(),
        list.find_extended::<SerialNumber, _>(machine, at)?
            .is_some(),
        list.find_extended::<SrIov, _>(machine, at)?.is_some(),
        list.find_extended::<VfResizableBars, _>(machine, at)?
            .is_some(),
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
    let (mut sizes, mut roms, mut places) = (0, 0, 0);
    for (file, mut machine) in dumps(&folder) {
        let Ok(text) = std::fs::read_to_string(file.with_extension("regions.tsv")) else {
            continue;
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let regions = machine.regions(&text);
        assert_eq!(lines.clone().count(), regions.len());
        for (region, line) in regions.iter().zip(lines) {
            let header = Header::read(&machine, region.at).unwrap();
            let bars = bar::probe(&mut machine, region.at, &header).unwrap();
            let what = format!("{} {} {}", name(&file), region.name, region.bar);
            let Ok(index) = region.bar.parse::<u8>() else {
                let found = bars.rom().map(|rom| rom.size);
                assert_eq!(found, Some(region.size), "{what}");
                roms += 1;
                continue;
            };
            // Ports of a time before BARs have a size that no BAR has.
            if region.size == 1 {
                continue;
            }
            let slot = &bars.slots()[usize::from(index)];
            let Slot::Bar(bar) = slot else {
                unreachable!("{what}: {slot:?}");
            };
            assert_eq!(bar.size, region.size, "{what}");
            sizes += 1;
            let seen = line.split('\t').nth(3).unwrap();
            // Of an IDE controller in its old mode the system knows ports that no register has.
            let is_placed = bar.address != 0;
            if let Some((space, address)) = kind(seen).filter(|_| is_placed) {
                // A host bridge may add to an address, in large steps.
                let below_256_mib = |address: u64| address & 0xfff_ffff;
                let ours = (bar.space, below_256_mib(bar.address));
                assert_eq!(ours, (space, below_256_mib(address)), "{what}: {seen}");
                places += 1;
            }
        }
    }
    say(&format!(
        "compared the sizes of {sizes} BARs and {roms} ROMs, kind and address of {places} BARs"
    ));
    assert!(sizes > 0 && roms > 0 && places > 0);
}

/// Kind and address of a region, from what an operating system printed: `Memory at f0 (64-bit,
/// prefetchable)`, or a line of Linux's `resource` file: start, end and flags.
fn kind(seen: &str) -> Option<(Space, u64)> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let memory = |wide: bool, prefetchable: bool| match wide {
        true => Space::Memory64 { prefetchable },
        false => Space::Memory32 { prefetchable },
    };
    let words: Vec<_> = seen.split_whitespace().collect();
    match words[..] {
        ["resource", start, _, flags] => {
            // The lowest four bits are the register's.
            let flags = number(flags)?;
            let space = match flags & 1 != 0 {
                true => Space::Io,
                false => memory(flags & 4 != 0, flags & 8 != 0),
            };
            Some((space, number(start)?))
        }
        ["I/O", "ports", "at", address, ..] => Some((Space::Io, number(address)?)),
        ["Memory", "at", address, width, kind, ..] => {
            let space = memory(width == "(64-bit,", kind == "prefetchable)");
            Some((space, number(address)?))
        }
        _ => None,
    }
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
