//! Which pci-server shard has which buses and which memory: [`split`].
//!
//! A shard owns whole host bridges. Its memory is what the functions of its
//! buses decode: shard n > 0 gets exactly the pages of the BARs on its root
//! buses and of the windows of the bridges there; shard 0 gets what is left of
//! the space where PCI devices can be, so that it can place devices that come
//! later. No page goes to two shards: one that two would need goes to none, and
//! is reported as a [`Conflict`].

use alloc::vec::Vec;

use hw::BusRange;
use system::info::MAX_ECAM;
use system::layout::MAX_SHARDS;
use thiserror::Error;

use crate::facts::{Host, Machine};
use crate::region::{PAGE, Region, RegionSet};

/// Where the chipset's own registers begin on PC platforms: IOAPIC, HPET, local APIC, firmware's flash. No
/// BAR lies from here to 4 GiB.
const CHIPSET: u64 = 0xfec0_0000;
/// Where memory above the 32-bit space begins.
const FOUR_GIB: u64 = 1 << 32;
/// Most address bits that are handed on: with more, the pieces of a shard would be too many
/// (`system::info::MAX_UNTYPED`, at most 2^39 bytes each).
const MOST_ADDRESS_BITS: u8 = 45;
/// Memory below this is firmware's and the BIOS area's, whatever else.
const FIRST_MIB: u64 = 1 << 20;

/// A pci-server shard's share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    /// PCI segment.
    pub segment: u16,
    /// Its buses.
    pub buses: BusRange,
    /// Physical memory of its buses' configuration space, ascending, with the first bus of each window.
    pub ecam: Vec<(Region, BusRange)>,
    /// Memory that its devices decode, or may come to decode.
    pub memory: RegionSet,
}

/// Pages that a device decodes and that no shard gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Conflict {
    /// Devices of two shards decode addresses on the same pages.
    #[error("shards {first} and {second} would share {region}: nobody gets it")]
    Shared {
        /// One shard.
        first: usize,
        /// The other.
        second: usize,
        /// The pages.
        region: Region,
    },
    /// A device decodes pages that are RAM, configuration space or platform registers.
    #[error("a device of shard {shard} decodes {region}, which is no PCI memory: nobody gets it")]
    NoPciMemory {
        /// The device's shard.
        shard: usize,
        /// The pages.
        region: Region,
    },
}

/// Why the machine cannot be split.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ShardError {
    /// Configuration space showed no device at all.
    #[error("no host bridge found: the MCFG table names no bus that has a device")]
    NoHosts,
    /// A shard has buses of one segment only.
    #[error("{segments} PCI segments need as many pci-server shards, {shards} are allowed")]
    TooFewShards {
        /// Segments with devices.
        segments: usize,
        /// Shards allowed.
        shards: usize,
    },
    /// The configuration space of a shard's buses is in too many pieces.
    #[error("the configuration space of shard {0} is in more than {max} pieces", max = MAX_ECAM)]
    TooManyWindows(usize),
}

/// The shards, in order of segment and bus, and what no shard gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// The shards.
    pub shards: Vec<Shard>,
    /// Pages that had to be left out.
    pub conflicts: Vec<Conflict>,
}

/// Splits the machine among `wanted` shards; 0 means one a host bridge. More than there are host bridges
/// are not made.
///
/// # Errors
/// There is nothing to split, or not into so few.
pub fn split(machine: &Machine, wanted: u8) -> Result<Split, ShardError> {
    let groups = group(&machine.hosts, wanted)?;
    let space = pci_space(machine);
    let mut conflicts = Vec::new();
    let mut claims: Vec<RegionSet> = Vec::new();
    for (shard, hosts) in groups.iter().enumerate() {
        let decoded: RegionSet = hosts
            .iter()
            .flat_map(|host| &host.windows)
            .map(|window| window.pages())
            .collect();
        let outside = decoded.difference(&space);
        conflicts.extend(
            outside
                .regions()
                .iter()
                .map(|region| Conflict::NoPciMemory {
                    shard,
                    region: *region,
                }),
        );
        claims.push(decoded.intersection(&space));
    }
    let mut shared = RegionSet::new();
    for (first, a) in claims.iter().enumerate() {
        for (second, b) in claims.iter().enumerate().skip(first + 1) {
            for region in a.intersection(b).regions() {
                conflicts.push(Conflict::Shared {
                    first,
                    second,
                    region: *region,
                });
                shared.insert(*region);
            }
        }
    }
    let mut rest = space.difference(&shared);
    for claim in claims.iter().skip(1) {
        rest = rest.difference(claim);
    }
    let mut shards = Vec::new();
    for (shard, hosts) in groups.iter().enumerate() {
        let (Some(first), Some(last)) = (hosts.first(), hosts.last()) else {
            continue;
        };
        let Some(buses) = BusRange::new(first.buses.first(), last.buses.last()) else {
            continue;
        };
        let ecam = windows(machine, first.segment, buses);
        if ecam.len() > MAX_ECAM {
            return Err(ShardError::TooManyWindows(shard));
        }
        let memory = match claims.get(shard) {
            Some(claim) if shard > 0 => claim.difference(&shared),
            _ => rest.clone(),
        };
        shards.push(Shard {
            segment: first.segment,
            buses,
            ecam,
            memory,
        });
    }
    Ok(Split { shards, conflicts })
}

/// Host bridges in order, neighbours of one segment joined from the end until there are few enough.
fn group(hosts: &[Host], wanted: u8) -> Result<Vec<Vec<&Host>>, ShardError> {
    let mut order: Vec<&Host> = hosts.iter().collect();
    order.sort_by_key(|host| (host.segment, host.buses));
    if order.is_empty() {
        return Err(ShardError::NoHosts);
    }
    let limit = match wanted {
        0 => MAX_SHARDS,
        wanted => MAX_SHARDS.min(usize::from(wanted)),
    };
    let mut groups: Vec<Vec<&Host>> = order
        .into_iter()
        .map(|host| [host].into_iter().collect())
        .collect();
    while groups.len() > limit {
        let segment = |group: &Vec<&Host>| group.first().map(|host| host.segment);
        let at = (1..groups.len())
            .rev()
            .find(|at| segment(&groups[at - 1]) == segment(&groups[*at]));
        let Some(at) = at else {
            return Err(ShardError::TooFewShards {
                segments: groups.len(),
                shards: limit,
            });
        };
        let joined = groups.remove(at);
        groups[at - 1].extend(joined);
    }
    Ok(groups)
}

/// The parts of the ECAM windows that hold some of the buses.
fn windows(machine: &Machine, segment: u16, buses: BusRange) -> Vec<(Region, BusRange)> {
    let mut parts: Vec<(Region, BusRange)> = machine
        .ecam
        .iter()
        .filter(|window| window.segment == segment)
        .filter_map(|window| {
            let first = window.buses.first().max(buses.first());
            let last = window.buses.last().min(buses.last());
            let part = hw::address::EcamWindow {
                buses: BusRange::new(first, last)?,
                ..*window
            };
            Some((Region::sized(part.start()?, part.len())?, part.buses))
        })
        .collect();
    parts.sort();
    parts
}

/// Where PCI devices can be: device memory between RAM and the chipset, and above all RAM, without
/// configuration space, remapping units, the timer and firmware's tables.
#[must_use]
pub fn pci_space(machine: &Machine) -> RegionSet {
    let (mut low, mut high) = (FIRST_MIB, FOUR_GIB);
    for region in machine
        .ram()
        .regions()
        .iter()
        .chain(machine.firmware.regions())
    {
        if region.end() <= CHIPSET {
            low = low.max(region.end());
        } else {
            high = high.max(region.end());
        }
    }
    // What firmware reserves at the end of RAM is not told apart from device memory; it ends at a
    // multiple of this.
    let low = low.next_multiple_of(FIRST_MIB);
    let top = 1 << machine.physical_bits.min(MOST_ADDRESS_BITS);
    let wide: RegionSet = [Region::new(low, CHIPSET), Region::new(high, top)]
        .into_iter()
        .flatten()
        .collect();
    let mut platform = machine.firmware.clone();
    let ecam = machine
        .ecam
        .iter()
        .filter_map(|window| Region::sized(window.start()?, window.len()));
    let units = machine
        .units
        .iter()
        .filter_map(|unit| Region::sized(unit.base, unit.bytes.into()));
    let timer = machine
        .timer
        .iter()
        .filter_map(|timer| Region::sized(timer.base, PAGE));
    ecam.chain(units)
        .chain(timer)
        .for_each(|region| platform.insert(region.pages()));
    wide.intersection(&machine.device_memory())
        .difference(&platform)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::facts::{Memory, Timer, Unit, Untyped};
    use alloc::vec;
    use hw::address::EcamWindow;

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
            units: vec![Unit {
                base: 0xfed9_0000,
                bytes: 4096,
                segment: 0,
                include_all: true,
            }],
            timer: Some(Timer {
                base: 0xfed0_0000,
                pin: 2,
            }),
            ecam: vec![EcamWindow {
                base: 0xb000_0000,
                segment: 0,
                buses: BusRange::ALL,
            }],
            hosts,
            firmware: [region(0x1ffe_1000, 0x1ffe_3000)].into_iter().collect(),
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
        assert_eq!(
            split.shards[1].memory.regions(),
            [region(0xfe80_0000, 0xfea0_1000)]
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
                .covers(region(0xfea0_1000, 0xfec0_0000))
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
}
