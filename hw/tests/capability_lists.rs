//! The walks over both capability lists: honest functions, broken lists, and
//! any bytes at all.

mod functions;

use functions::{EXPRESS, full, machine};
use hw::capability::{
    AdvancedFeatures, CapabilityList, Express, ExtendedWalk, Msi, Msix, PowerManagement, Walk,
    WalkFault, id,
};
use hw::header::Layout;
use portcullis_hw as hw;
use proptest::prelude::*;
use sim::config::{Endpoint, Misbehaviour, Space};

fn list(function: impl Into<Space>) -> CapabilityList {
    let (machine, at) = machine(function);
    CapabilityList::read(&machine, at, Layout::Endpoint)
}

#[test]
fn both_lists_are_found_in_order() {
    let list = list(full());
    let ids: Vec<_> = list
        .entries
        .iter()
        .map(|e| (e.id, e.offset, e.name()))
        .collect();
    let expected = [
        (1, 0x40, "power management"),
        (5, 0x48, "MSI"),
        (0x10, 0x58, "PCI Express"),
        (0x11, 0x94, "MSI-X"),
    ];
    assert_eq!(ids, expected);
    let extended: Vec<_> = list
        .extended
        .iter()
        .map(|e| (e.id, e.version, e.offset, e.name()))
        .collect();
    let expected = [
        (1, 2, 0x100, "advanced error reporting"),
        (3, 1, 0x144, "device serial number"),
    ];
    assert_eq!(extended, expected);
    assert_eq!((list.fault, list.extended_fault), (None, None));
    assert_eq!(list.offset_of(id::MSIX), Some(0x94));
    assert_eq!(list.extended_offset_of(3), Some(0x144));
    assert_eq!(list.offset_of(id::ADVANCED_FEATURES), None);
}

#[test]
fn a_function_without_list_costs_one_read() {
    let (machine, at) = machine(Endpoint::new(1, 2));
    let before = machine.reads();
    let list = CapabilityList::read(&machine, at, Layout::Endpoint);
    assert_eq!(list, CapabilityList::default());
    assert_eq!(machine.reads() - before, 1);
}

#[test]
fn extended_capabilities_need_an_express_capability() {
    let list = list(
        Endpoint::new(1, 2)
            .power_management(false)
            .extended(3, 1, &[0; 8]),
    );
    assert_eq!(list.entries.len(), 1);
    assert!(list.extended.is_empty());
}

#[test]
fn a_loop_ends_the_walk_and_keeps_what_was_found() {
    let list = list(full().link_last_to(0x48));
    assert_eq!(list.entries.len(), 4);
    assert_eq!(
        list.fault,
        Some(WalkFault::Cycle {
            from: 0x95,
            to: 0x48
        })
    );
    // The other list is not concerned.
    assert_eq!(list.extended.len(), 2);
}

#[test]
fn a_capability_that_points_at_itself_is_a_loop() {
    let list = list(
        Endpoint::new(1, 2)
            .power_management(true)
            .link_last_to(0x40),
    );
    assert_eq!(list.entries.len(), 1);
    assert_eq!(
        list.fault,
        Some(WalkFault::Cycle {
            from: 0x41,
            to: 0x40
        })
    );
}

#[test]
fn pointers_into_the_header_are_faults() {
    let fault = list(full().link_last_to(0x3c)).fault;
    assert_eq!(
        fault,
        Some(WalkFault::OutOfRange {
            from: 0x95,
            to: 0x3c
        })
    );
    let first = list(Endpoint::new(1, 2).link_last_to(0x10));
    assert!(first.entries.is_empty());
    assert_eq!(
        first.fault,
        Some(WalkFault::OutOfRange {
            from: 0x34,
            to: 0x10
        })
    );
}

#[test]
fn reserved_bits_of_pointers_are_masked() {
    // Each capability of `full` is reached with a different value of the two bits.
    let crooked = full()
        .raw(0x34, &[0x41])
        .raw(0x41, &[0x4a])
        .raw(0x49, &[0x5b])
        .link_last_extended_to(0x203)
        .raw(0x200, &[0x0d, 0, 1, 0]);
    let crooked = list(crooked);
    let straight = list(full());
    assert_eq!(crooked.entries, straight.entries);
    assert_eq!(crooked.fault, None);
    let extended: Vec<_> = crooked.extended.iter().map(|e| (e.id, e.offset)).collect();
    assert_eq!(extended, [(1, 0x100), (3, 0x144), (0xd, 0x200)]);
    assert_eq!(crooked.extended_fault, None);
}

#[test]
fn pointers_of_which_only_reserved_bits_are_set_end_the_list() {
    let list = list(full().link_last_to(0x03).link_last_extended_to(0x002));
    assert_eq!((list.entries.len(), list.extended.len()), (4, 2));
    assert_eq!((list.fault, list.extended_fault), (None, None));
}

#[test]
fn an_id_of_all_ones_ends_the_conventional_list() {
    let list = list(full().link_last_to(0xc0).raw(0xc0, &[0xff, 0x40]));
    assert_eq!(list.entries.len(), 4);
    assert_eq!(list.fault, Some(WalkFault::AllOnes { at: 0xc0 }));
}

#[test]
fn a_header_of_zeros_ends_the_extended_list() {
    let list = list(full().link_last_extended_to(0x200));
    assert_eq!(list.extended.len(), 2);
    assert_eq!(list.extended_fault, None);
}

#[test]
fn pci_x_functions_have_extended_capabilities() {
    let function = Endpoint::new(1, 2).capability(id::PCI_X, &[0; 6], &[]);
    assert_eq!(list(function.extended(3, 1, &[0; 8])).extended.len(), 1);
}

#[test]
fn broken_extended_lists_end_with_a_fault() {
    let fault = list(full().link_last_extended_to(0x100)).extended_fault;
    assert_eq!(
        fault,
        Some(WalkFault::Cycle {
            from: 0x144,
            to: 0x100
        })
    );
    let fault = list(full().link_last_extended_to(0x0fc)).extended_fault;
    assert_eq!(
        fault,
        Some(WalkFault::OutOfRange {
            from: 0x144,
            to: 0xfc
        })
    );
    let function = full().link_last_extended_to(0xffc).raw(0xffc, &[0xff; 4]);
    assert_eq!(
        list(function).extended_fault,
        Some(WalkFault::AllOnes { at: 0xffc })
    );
}

#[test]
fn more_extended_capabilities_than_are_kept_is_a_fault() {
    let mut function = Endpoint::new(1, 2).express(EXPRESS);
    for _ in 0..65 {
        function = function.extended(0x23, 1, &[0; 4]);
    }
    let list = list(function);
    assert_eq!(list.extended.len(), 64);
    assert_eq!(list.extended_fault, Some(WalkFault::TooMany { limit: 64 }));
}

#[test]
fn a_function_that_vanishes_during_the_walk_is_a_fault() {
    for accesses in 2..5 {
        let how = Misbehaviour::VanishesAfter { accesses };
        let (machine, at) = machine(full().misbehave(how));
        let list = CapabilityList::read(&machine, at, Layout::Endpoint);
        assert_eq!(list.entries.len(), accesses as usize - 2);
        assert!(
            matches!(list.fault, Some(WalkFault::AllOnes { .. })),
            "{:?}",
            list.fault
        );
    }
}

#[test]
fn a_card_bus_bridge_has_its_pointer_elsewhere() {
    let function = Endpoint::new(1, 2)
        .power_management(false)
        .raw(0x34, &[0])
        .raw(0x14, &[0x40]);
    let (machine, at) = machine(function);
    let list = CapabilityList::read(&machine, at, Layout::CardBus);
    assert_eq!(list.offset_of(id::POWER_MANAGEMENT), Some(0x40));
}

/// Any bytes, with lists more often than chance would have them.
fn any_space() -> impl Strategy<Value = Vec<u8>> {
    let conventional = prop::collection::vec((any::<u8>(), 0u8..64, any::<[u8; 2]>()), 48);
    (
        any::<[u8; 64]>(),
        conventional,
        prop::collection::vec(any::<u8>(), 4096 - 256),
    )
        .prop_map(|(mut header, places, extended)| {
            header[0x06] |= 0x10;
            header[0x34] = 0x40 + (header[0x34] & 0xbc);
            let mut bytes = header.to_vec();
            for (id, next, body) in places {
                // Ids up to 15h: the ones that mean something.
                bytes.extend([id % 0x16, next * 4, body[0], body[1]]);
            }
            bytes.extend(extended);
            bytes
        })
}

proptest! {
    #[test]
    fn walks_over_any_bytes_end_and_stay_inside(bytes in any_space(), seed: Option<u64>) {
        let mut space = Space::new(4096);
        space.set(0, &bytes);
        if let Some(seed) = seed {
            space.misbehave(Misbehaviour::Changing { bytes: 0..4096, seed });
        }
        let (machine, at) = machine(space);
        let steps: Vec<_> = Walk::new(&machine, at, Layout::Endpoint).collect();
        prop_assert!(steps.len() <= 49);
        prop_assert!(steps.iter().rev().skip(1).all(Result::is_ok));
        for entry in steps.iter().flatten() {
            prop_assert!(entry.offset >= 0x40 && entry.offset % 4 == 0);
        }
        let steps: Vec<_> = ExtendedWalk::new(&machine, at).collect();
        prop_assert!(steps.len() <= 961);
        prop_assert!(steps.iter().rev().skip(1).all(Result::is_ok));
        for entry in steps.iter().flatten() {
            prop_assert!(entry.offset >= 0x100 && entry.offset <= 0xffc && entry.offset % 4 == 0);
        }
        prop_assert!(machine.reads() < 1100);
        let list = CapabilityList::read(&machine, at, Layout::Endpoint);
        let _ = list.find::<PowerManagement, _>(&machine, at);
        let _ = list.find::<Msi, _>(&machine, at);
        let _ = list.find::<AdvancedFeatures, _>(&machine, at);
        let _ = list.find::<Express, _>(&machine, at);
        if let Ok(Some(msix)) = list.find::<Msix, _>(&machine, at) {
            prop_assert!((1..=2048).contains(&msix.entries));
            prop_assert!(msix.table.bar < 6 && msix.pending.bar < 6);
        }
    }
}
