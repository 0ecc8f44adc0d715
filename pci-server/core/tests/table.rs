//! The device table against a sorted map, under any sequence of insertions and removals.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

use heapless::Vec;
use hw::Sbdf;
use pci_core::table::{Bus, Full, Slot};
use pci_core::{Device, Index, Table};
use proptest::prelude::*;

/// What one function costs, and one bus.
#[test]
fn the_memory_of_a_function_is_bounded() {
    let (device, slot, bus) = (size_of::<Device>(), size_of::<Slot>(), size_of::<Bus>());
    println!("bytes: device {device}, with its place {slot}; bus {bus}");
    assert!(device <= 576);
    assert!(slot <= device + 8);
    assert!(bus <= 256);
}

#[derive(Clone, Debug)]
enum Action {
    Insert(Sbdf),
    Remove(Sbdf),
    Grant(Sbdf, u32),
    Close(u16, u8),
}

/// Few enough addresses that they meet.
fn address() -> impl Strategy<Value = Sbdf> {
    (
        0u16..3,
        prop_oneof![Just(0u8), Just(1), Just(64), Just(255)],
        0u16..24,
    )
        .prop_map(|(segment, bus, routing)| {
            let device = (routing / 4) * 6 % 32;
            let routing = u16::from(bus) << 8 | device << 3 | (routing % 4 * 2);
            Sbdf::from_requester_id(segment * 7, routing)
        })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => address().prop_map(Action::Insert),
        3 => address().prop_map(Action::Remove),
        1 => (address(), 0u32..16).prop_map(|(at, clients)| Action::Grant(at, clients)),
        1 => address().prop_map(|at| Action::Close(at.segment(), at.bus())),
    ]
}

/// The table says what the map says.
fn compare(table: &Table<'_>, expected: &BTreeMap<Sbdf, (Index, u32)>) {
    assert_eq!(table.len() as usize, expected.len());
    let found: std::vec::Vec<_> = table
        .iter()
        .map(|(index, device)| (device.at, index))
        .collect();
    let wanted: std::vec::Vec<_> = expected
        .iter()
        .map(|(at, (index, _))| (*at, *index))
        .collect();
    assert_eq!(found, wanted);
    for (n, (at, index)) in wanted.iter().enumerate() {
        assert_eq!(table.find(*at), Some(*index));
        assert_eq!(table.nth(n as u32), Some(*index));
        let same = table.functions_of(*at).map(|(_, device)| device.at);
        let same: std::vec::Vec<_> = same.collect();
        let wanted = expected
            .keys()
            .copied()
            .filter(|other| other.with_function(0) == at.with_function(0));
        assert_eq!(same, wanted.collect::<std::vec::Vec<_>>());
        let on_bus = table.on_bus(at.segment(), at.bus()).count();
        let wanted = expected
            .keys()
            .filter(|other| (other.segment(), other.bus()) == (at.segment(), at.bus()));
        assert_eq!(on_bus, wanted.count());
    }
    assert_eq!(table.nth(expected.len() as u32), None);
    for client in 0..4 {
        let wanted = expected
            .values()
            .filter(|(_, clients)| clients >> client & 1 != 0);
        let wanted: std::vec::Vec<_> = wanted.map(|(index, _)| *index).collect();
        let found: std::vec::Vec<_> = (0..).map_while(|n| table.nth_granted(client, n)).collect();
        assert_eq!(found, wanted);
    }
}

proptest! {
    #[test]
    fn a_table_is_a_sorted_map(actions in prop::collection::vec(action(), 0..120)) {
        let (mut slots, mut buses) = (Vec::<Slot, 20>::new(), Vec::<Bus, 8>::new());
        let mut table = Table::new(&mut slots, &mut buses);
        let mut expected: BTreeMap<Sbdf, (Index, u32)> = BTreeMap::new();
        let mut open: std::collections::BTreeSet<(u16, u8)> = Default::default();
        for action in actions {
            match action {
                Action::Insert(at) => match table.insert(Device::new(at, None)) {
                    Ok(index) => {
                        prop_assert!(expected.values().all(|(other, _)| *other != index));
                        prop_assert_eq!(expected.insert(at, (index, 0)), None);
                        open.insert((at.segment(), at.bus()));
                    }
                    Err(Full::Occupied(there)) => prop_assert!(there == at && expected.contains_key(&at)),
                    Err(Full::Functions(bound)) => prop_assert!(bound == 20 && expected.len() == 20),
                    Err(Full::Buses(bound)) => prop_assert!(bound == 8 && open.len() == 8),
                    Err(Full::Segments(_)) => prop_assert!(false, "three segments fit"),
                },
                Action::Remove(at) => match expected.remove(&at) {
                    Some((index, _)) => {
                        prop_assert_eq!(table.remove(index).map(|device| device.at), Some(at));
                        prop_assert!(table.remove(index).is_none());
                        prop_assert!(table.get(index).is_none());
                    }
                    None => prop_assert_eq!(table.find(at), None),
                },
                Action::Grant(at, clients) => {
                    if let Some((index, granted)) = expected.get_mut(&at) {
                        table.grant(*index, clients);
                        *granted = clients;
                    }
                }
                Action::Close(segment, bus) => {
                    let empty = expected.keys().all(|at| (at.segment(), at.bus()) != (segment, bus));
                    prop_assert_eq!(table.close(segment, bus), empty);
                    if empty {
                        open.remove(&(segment, bus));
                    }
                }
            }
            compare(&table, &expected);
            let buses: std::vec::Vec<_> = table.buses().map(|(segment, bus, _)| (segment, bus)).collect();
            prop_assert_eq!(buses, open.iter().copied().collect::<std::vec::Vec<_>>());
        }
    }
}

#[test]
fn a_walk_goes_on_while_functions_come_and_go() {
    let (mut slots, mut buses) = (Vec::<Slot, 8>::new(), Vec::<Bus, 8>::new());
    let mut table = Table::new(&mut slots, &mut buses);
    let at = |text: &str| text.parse::<Sbdf>().unwrap();
    for text in [
        "0000:00:01.0",
        "0000:00:01.3",
        "0000:02:00.0",
        "0001:00:00.0",
    ] {
        table.insert(Device::new(at(text), None)).unwrap();
    }
    let after = |table: &Table<'_>, last: &str| {
        let index = table.after(Some(at(last)))?;
        table.get(index).map(|device| device.at)
    };
    // The one that the walk stands on is gone, and one is new behind it.
    let gone = table.find(at("0000:00:01.3")).unwrap();
    table.remove(gone).unwrap();
    assert_eq!(after(&table, "0000:00:01.3"), Some(at("0000:02:00.0")));
    table.insert(Device::new(at("0000:00:1f.7"), None)).unwrap();
    assert_eq!(after(&table, "0000:00:01.3"), Some(at("0000:00:1f.7")));
    assert_eq!(after(&table, "0000:ff:1f.7"), Some(at("0001:00:00.0")));
    assert_eq!(after(&table, "0001:00:00.0"), None);
}

#[test]
fn a_bridge_is_noted_for_the_bus_behind_it() {
    let (mut slots, mut buses) = (Vec::<Slot, 8>::new(), Vec::<Bus, 2>::new());
    let mut table = Table::new(&mut slots, &mut buses);
    let port = "0000:00:02.0".parse::<Sbdf>().unwrap();
    table.insert(Device::new(port, None)).unwrap();
    // Nothing is behind it yet.
    table.lead(0, 5, port).unwrap();
    assert_eq!(table.bridge_to(0, 5), Some(port));
    assert_eq!(table.bridge_to(0, 0), None);
    assert_eq!(table.lead(0, 6, port), Err(Full::Buses(2)));
    assert_eq!(
        table.buses().collect::<std::vec::Vec<_>>(),
        [(0, 0, None), (0, 5, Some(port))]
    );
}
