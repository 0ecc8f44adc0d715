//! Sharing out machines like QEMU's q35.

use super::*;
use crate::aml::resources::Resources;
use crate::facts::{Memory, Timer, Unit, Untyped};
use alloc::vec;
use hw::address::EcamWindow;
use system::model::IommuChoice;

fn region(start: u64, end: u64) -> Region {
    Region::new(start, end).unwrap()
}

fn untypeds(slot: &mut u32, region: Region, memory: Memory) -> Vec<Untyped> {
    region
        .natural_pieces(12, 47)
        .map(|(base, bits)| {
            *slot += 1;
            Untyped {
                slot: *slot,
                base,
                bits,
                memory,
            }
        })
        .collect()
}

/// QEMU's q35 with 512 MiB, as seL4 5.0.0 describes it.
pub(crate) fn q35(hosts: Vec<Host>) -> Machine {
    let mut slot = 1000;
    let mut list = vec![];
    for (start, end, memory) in [
        (0, 0x10_0000, Memory::Device),
        (0x100_0000, 0x1ffe_0000, Memory::Ram),
        (0x1ffe_0000, 0xfec0_0000, Memory::Device),
        (0xfec0_1000, 0xfee0_0000, Memory::Device),
        (0xfef0_0000, 1 << 47, Memory::Device),
    ] {
        list.extend(untypeds(&mut slot, region(start, end), memory));
    }
    Machine {
        untypeds: list,
        empty_slots: (5000, 65536),
        cores: 1,
        physical_bits: 40,
        apic_ids: vec![0],
        kernel_iommu_levels: 0,
        tsc_mhz: 2600,
        units: vec![unit(0xfed9_0000)],
        reserved: vec![],
        aliases: Vec::new(),
        timer: Some(Timer {
            base: 0xfed0_0000,
            pin: 2,
        }),
        configuration: Configuration::Ecam,
        ecam: vec![EcamWindow {
            base: 0xb000_0000,
            segment: 0,
            buses: BusRange::ALL,
        }],
        hosts,
        firmware: [region(0x1ffe_1000, 0x1ffe_3000)].into_iter().collect(),
    }
}

/// A VT-d unit that takes all devices of segment 0.
pub(crate) fn unit(base: u64) -> Unit {
    Unit {
        kind: IommuChoice::Vtd,
        base,
        bytes: 4096,
        segment: 0,
        include_all: true,
        scopes: vec![],
        function: None,
    }
}

pub(crate) fn host(first: u8, last: u8, windows: &[(u64, u64)]) -> Host {
    let windows = windows
        .iter()
        .map(|(start, end)| region(*start, *end))
        .collect();
    Host {
        segment: 0,
        buses: BusRange::new(first, last).unwrap(),
        windows,
        ports: Ports::Some,
        proximity: None,
        resources: None,
    }
}

#[test]
fn one_host_bridge_has_all_pci_memory_and_nothing_else() {
    let machine = q35(vec![host(0, 255, &[(0xfebf_0000, 0xfebf_1000)])]);
    let split = split(&machine, 0).unwrap();
    assert_eq!(split.conflicts, vec![]);
    let [shard] = &split.shards[..] else {
        panic!("{:?}", split.shards)
    };
    assert_eq!(
        shard.memory.regions(),
        [
            region(0x2000_0000, 0xb000_0000),
            region(0xc000_0000, 0xfec0_0000),
            region(1 << 32, 1 << 40)
        ]
    );
    assert_eq!(
        shard.ecam,
        vec![(region(0xb000_0000, 0xc000_0000), BusRange::ALL)]
    );
}

#[test]
fn a_second_host_bridge_gets_exactly_its_pages() {
    let machine = q35(vec![
        host(0, 0x7f, &[(0xfebf_0000, 0xfebf_1000)]),
        host(
            0x80,
            255,
            &[(0xfe80_0000, 0xfea0_0000), (0xfea0_0800, 0xfea0_0900)],
        ),
    ]);
    let split = split(&machine, 0).unwrap();
    assert_eq!(split.conflicts, vec![]);
    // Its window, and of what nobody decodes its share: below 4 GiB what is near, above a part of the first's.
    assert_eq!(
        split.shards[1].memory.regions(),
        [
            region(0x8000_0000, 0xb000_0000),
            region(0xc000_0000, 0xfeb0_0000),
            region(768 << 30, 1 << 40)
        ]
    );
    assert_eq!(split.shards[1].ecam[0].0, region(0xb800_0000, 0xc000_0000));
    assert!(
        split.shards[0]
            .memory
            .intersection(&split.shards[1].memory)
            .is_empty()
    );
    assert!(
        split.shards[0]
            .memory
            .covers(region(0xfeb0_0000, 0xfec0_0000))
    );
}

#[test]
fn a_page_of_two_shards_goes_to_none() {
    let machine = q35(vec![
        host(0, 0x3f, &[(0xfe00_0000, 0xfe00_0100)]),
        host(
            0x40,
            0x7f,
            &[(0xfe00_0800, 0xfe00_0900), (0xfe01_0000, 0xfe02_0000)],
        ),
        host(
            0x80,
            255,
            &[(0xfe01_f000, 0xfe03_0000), (0xb000_0000, 0xb000_1000)],
        ),
    ]);
    let split = split(&machine, 0).unwrap();
    assert_eq!(
        split.conflicts,
        vec![
            Conflict::NoPciMemory {
                shard: 2,
                region: region(0xb000_0000, 0xb000_1000)
            },
            Conflict::Shared {
                first: 0,
                second: 1,
                region: region(0xfe00_0000, 0xfe00_1000)
            },
            Conflict::Shared {
                first: 1,
                second: 2,
                region: region(0xfe01_f000, 0xfe02_0000)
            },
        ]
    );
    for conflict in [
        region(0xfe00_0000, 0xfe00_1000),
        region(0xfe01_f000, 0xfe02_0000),
    ] {
        let conflict: RegionSet = [conflict].into_iter().collect();
        assert!(
            split
                .shards
                .iter()
                .all(|shard| shard.memory.intersection(&conflict).is_empty())
        );
    }
}

#[test]
fn fewer_shards_take_neighbouring_host_bridges_together() {
    let hosts = vec![
        host(0, 0x3f, &[]),
        host(0x40, 0x7f, &[]),
        host(0x80, 255, &[]),
    ];
    let buses = |wanted| -> Vec<(u8, u8)> {
        let split = split(&q35(hosts.clone()), wanted).unwrap();
        split
            .shards
            .iter()
            .map(|shard| (shard.buses.first(), shard.buses.last()))
            .collect()
    };
    assert_eq!(buses(0), vec![(0, 0x3f), (0x40, 0x7f), (0x80, 255)]);
    assert_eq!(buses(2), vec![(0, 0x3f), (0x40, 255)]);
    assert_eq!(buses(1), vec![(0, 255)]);
    assert_eq!(buses(9), buses(0));
    let mut two = hosts;
    two[2].segment = 1;
    assert_eq!(
        split(&q35(two), 1),
        Err(ShardError::TooFewShards {
            segments: 2,
            shards: 1
        })
    );
    assert_eq!(split(&q35(vec![]), 1), Err(ShardError::NoHosts));
}

#[test]
fn a_space_in_too_many_pieces_keeps_what_devices_decode_and_the_largest() {
    // Odd pages all over the space, those of two shards in turn.
    let far = |n: u64| (0xc000_1000 + n * 0x34_5000, 0xc000_2000 + n * 0x34_5000);
    let hosts = (0..2u64).map(|n| {
        let windows: Vec<(u64, u64)> = (0..150).map(|w| far(w * 2 + n)).collect();
        host(n as u8 * 128, n as u8 * 128 + 127, &windows)
    });
    let machine = q35(hosts.collect());
    let split = split(&machine, 0).unwrap();
    for (shard, host) in split.shards.iter().zip(&machine.hosts) {
        let regions = shard.memory.regions().iter();
        let pieces = regions
            .flat_map(|region| region.natural_pieces(12, 39))
            .count();
        assert!(pieces <= MAX_UNTYPED, "{pieces} pieces");
        for window in &host.windows {
            assert!(
                shard.memory.covers(*window),
                "{window} of the shard itself was left out"
            );
        }
    }
    let left_out = split.conflicts.iter().map(|conflict| match conflict {
        Conflict::LeftOut { bytes } => *bytes,
        other => panic!("{other}"),
    });
    let left_out: u64 = left_out.sum();
    assert!(left_out > 0 && left_out < 1 << 30, "{left_out:#x}");
}

#[test]
fn memory_above_four_gibibytes_pushes_the_upper_space_up() {
    let mut machine = q35(vec![host(0, 255, &[])]);
    machine.untypeds.push(Untyped {
        slot: 1,
        base: 1 << 32,
        bits: 31,
        memory: Memory::Ram,
    });
    assert_eq!(
        pci_space(&machine).regions().last().unwrap().start(),
        (1 << 32) + (1 << 31)
    );
}

/// A host bridge of which firmware says what it passes on.
fn declared(first: u8, last: u8, windows: &[(u64, u64)], memory: &[(u64, u64)]) -> Host {
    let memory = memory.iter().map(|(start, end)| region(*start, *end));
    Host {
        resources: Some(Resources {
            memory: memory.collect(),
            ..Resources::default()
        }),
        ..host(first, last, windows)
    }
}

fn memory(split: &Split) -> Vec<Vec<Region>> {
    let shards = split.shards.iter();
    shards
        .map(|shard| shard.memory.regions().to_vec())
        .collect()
}

#[test]
fn shards_have_what_firmware_says_and_nothing_else() {
    let machine = q35(vec![
        // The first declaration goes beyond what PCI may have: RAM and configuration space.
        declared(
            0,
            0x7f,
            &[(0xfebf_0000, 0xfebf_1000)],
            &[
                (0, 0x3000_0000),
                (0xa000_0000, 0xd000_0000),
                (0xfeb0_0800, 0xfebf_f800),
            ],
        ),
        // What is decoded counts though it is not declared.
        declared(
            0x80,
            0xff,
            &[(0xe000_0000, 0xe010_0000)],
            &[(0xd000_0000, 0xd800_0000), (1 << 33, 1 << 34)],
        ),
    ]);
    let split = split(&machine, 0).unwrap();
    assert_eq!(split.conflicts, vec![]);
    let expected = [
        vec![
            region(0x2000_0000, 0x3000_0000),
            region(0xa000_0000, 0xb000_0000),
            region(0xc000_0000, 0xd000_0000),
            region(0xfeb0_1000, 0xfebf_f000),
        ],
        vec![
            region(0xd000_0000, 0xd800_0000),
            region(0xe000_0000, 0xe010_0000),
            region(1 << 33, 1 << 34),
        ],
    ];
    assert_eq!(memory(&split), expected);
}

#[test]
fn where_firmware_says_half_the_rest_goes_by_nearness_to_the_others() {
    let machine = q35(vec![
        host(0, 0x7f, &[(0xfebf_0000, 0xfebf_1000)]),
        declared(0x80, 0xff, &[], &[(0xd000_0000, 0xd800_0000)]),
    ]);
    let split = split(&machine, 0).unwrap();
    let expected = [
        vec![
            region(0x2000_0000, 0xb000_0000),
            region(0xc000_0000, 0xd000_0000),
            region(0xd800_0000, 0xfec0_0000),
            region(1 << 32, 1 << 40),
        ],
        vec![region(0xd000_0000, 0xd800_0000)],
    ];
    assert_eq!(
        (memory(&split), split.conflicts),
        (expected.to_vec(), vec![])
    );
}

#[test]
fn declarations_never_take_what_another_decodes_and_never_give_twice() {
    let machine = q35(vec![
        declared(
            0,
            0x7f,
            &[(0xfebf_0000, 0xfebf_1000)],
            &[(0xd000_0000, 0xe000_0000)],
        ),
        declared(
            0x80,
            0xff,
            &[(0xd000_0000, 0xd010_0000)],
            &[(0xd800_0000, 0xf000_0000), (0xfebf_0000, 0xfec0_0000)],
        ),
    ]);
    let split = split(&machine, 0).unwrap();
    let twice = region(0xd800_0000, 0xe000_0000);
    assert_eq!(
        split.conflicts,
        vec![Conflict::DeclaredTwice { region: twice }]
    );
    let expected = [
        vec![
            region(0xd010_0000, 0xd800_0000),
            region(0xfebf_0000, 0xfebf_1000),
        ],
        vec![
            region(0xd000_0000, 0xd010_0000),
            region(0xe000_0000, 0xf000_0000),
            region(0xfebf_1000, 0xfec0_0000),
        ],
    ];
    assert_eq!(memory(&split), expected);
    // One shard for both: nothing is contradictory.
    let one = super::split(&machine, 1).unwrap();
    assert_eq!(one.conflicts, vec![]);
    assert_eq!(
        memory(&one),
        [vec![
            region(0xd000_0000, 0xf000_0000),
            region(0xfebf_0000, 0xfec0_0000),
        ]]
    );
}
