//! Isolation groups of real machines.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;
#[path = "../../../hw/tests/data_folder/mod.rs"]
mod data_folder;
mod ring_rules;

use std::collections::BTreeSet;

use hw::Sbdf;
use pci_core::groups::{Functions, Kind, ring};
use ring_rules::consistent;
use sim::config::Machine;

/// A real machine's groups: whatever it is made of, two functions are together exactly if one of the
/// rules says so, read anew from the registers.
fn check_machine(name: &str, text: &str) -> (usize, usize) {
    let machine = Machine::from_lspci(text).unwrap();
    let mut info = common::pci_info();
    info.ecam.clear();
    let segments: BTreeSet<u16> = machine.addresses().map(Sbdf::segment).collect();
    for segment in segments {
        let window = system::info::EcamWindow {
            vaddr: 0,
            paddr: 0,
            segment,
            first_bus: 0,
            last_bus: 255,
        };
        // A machine with more segments than a shard has windows is looked at in part.
        let _ = info.ecam.push(window);
    }
    let booted = common::Booted::with(common::World::new(machine), info, vec![]);
    let shard = booted.shard.borrow();
    let functions = shard.devices();
    consistent(functions);
    let mut groups = BTreeSet::new();
    let of = |place: u32| *functions.node(place).unwrap();
    for (place, node) in functions
        .iter()
        .map(|(index, device)| (index.number(), device.node))
    {
        groups.insert(node.group());
        let member = |other: u32| of(other).group() == node.group();
        if let Some(parent) = node.parent() {
            let above = of(parent);
            assert!(above.behind.unwrap().contains(node.at.bus()), "{name}");
            let conventional = matches!(
                above.kind,
                Kind::Conventional | Kind::ToConventional | Kind::Never
            );
            assert!(!conventional || member(parent), "{name}: {}", node.at);
            let closed = above.kind == Kind::DownstreamPort && !above.isolates;
            assert!(!closed || member(parent), "{name}: {}", node.at);
        } else if node.behind.is_none() {
            // On a root bus only a function of the same device is with it.
            for other in ring(functions, place).map(of) {
                let same = (other.at.bus(), other.at.device()) == (node.at.bus(), node.at.device());
                let below = other.parent().is_some() || other.behind.is_some();
                assert!(same || below, "{name}: {} with {}", node.at, other.at);
            }
        }
    }
    (functions.len() as usize, groups.len())
}

#[test]
fn groups_of_real_machines_follow_the_rules() {
    let Some(folder) = data_folder::find("groups_of_real_machines_follow_the_rules") else {
        return;
    };
    let (mut machines, mut functions, mut groups) = (0, 0, 0);
    for entry in std::fs::read_dir(folder.join("pci")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let (here, apart) = check_machine(&name, &text);
        machines += 1;
        functions += here;
        groups += apart;
    }
    data_folder::say(&format!(
        "isolation groups: {machines} machines, {functions} functions, {groups} groups"
    ));
    assert!(machines > 0);
}
