//! Which pci-server shard has which buses and which memory: [`split`].
//!
//! A shard owns whole host bridges. Its memory is what the functions of its
//! buses decode, windows of bridges included, what firmware says that its host bridges pass on
//! ([`declared`]), and where it does not say so room for what comes later ([`room`]). No page
//! goes to two shards: one that two decode goes to none, and is reported as a
//! [`Conflict`].

pub mod declared;

use alloc::vec::Vec;

use hw::BusRange;
use system::info::{MAX_ECAM, MAX_UNTYPED};
use system::layout::MAX_SHARDS;
use thiserror::Error;

use crate::carve::{MOST_BITS, PAGE_BITS};
use crate::facts::{Configuration, Host, Machine, Ports};
use crate::region::{PAGE, Region, RegionSet};
use crate::room;
use declared::Declared;

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
    /// Has it bridges, ports or event collectors?
    pub ports: Ports,
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
    /// Firmware says of host bridges of two shards that they pass the same addresses on.
    #[error(
        "firmware declares {region} twice, for host bridges of two shards: nobody gets what no device decodes of it"
    )]
    DeclaredTwice {
        /// The pages.
        region: Region,
    },
    /// The space of a shard is in more pieces than a server can be told of: the smallest that no device decodes
    /// stay unused.
    #[error("{bytes:#x} bytes of PCI memory in small pieces stay unused")]
    LeftOut {
        /// How many bytes.
        bytes: u64,
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
    #[error("no host bridge found: no bus has a device that answers")]
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
/// are not made; one, where configuration space is reached through ports.
///
/// # Errors
/// There is nothing to split, or not into so few.
pub fn split(machine: &Machine, wanted: u8) -> Result<Split, ShardError> {
    let wanted = match machine.configuration {
        Configuration::Ecam => wanted,
        Configuration::Ports => 1,
    };
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
    let own: Vec<RegionSet> = claims
        .iter()
        .map(|claim| claim.difference(&shared))
        .collect();
    let (declared, twice) = declared::declare(&groups, &space, &claims);
    let twice_over = twice.regions().iter();
    conflicts.extend(twice_over.map(|region| Conflict::DeclaredTwice { region: *region }));
    let mut memory = Vec::new();
    for (share, claim) in with_room(&space.difference(&shared), &own, &declared, &twice)
        .iter()
        .zip(&own)
    {
        let (share, left_out) = told(share, claim);
        conflicts.extend((left_out > 0).then_some(Conflict::LeftOut { bytes: left_out }));
        memory.push(share);
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
        let memory = memory.get(shard).cloned().unwrap_or_default();
        shards.push(Shard {
            segment: first.segment,
            buses,
            ecam,
            memory,
            ports: match hosts.iter().any(|host| host.ports == Ports::Some) {
                true => Ports::Some,
                false => Ports::None,
            },
        });
    }
    Ok(Split { shards, conflicts })
}

/// What each shard decodes and is declared to pass on. The rest of `space`, without what is declared `twice`, is
/// shared among those of which firmware does not say everything.
fn with_room(
    space: &RegionSet,
    own: &[RegionSet],
    declared: &[Declared],
    twice: &RegionSet,
) -> Vec<RegionSet> {
    let mut rest = space.clone();
    let mut open = Vec::new();
    let mut shares = Vec::new();
    for (claim, declared) in own.iter().zip(declared) {
        let mut share = claim.clone();
        let regions = declared.memory.regions().iter();
        regions.for_each(|region| share.insert(*region));
        share = share.intersection(space);
        if declared.whole {
            rest = rest.difference(&share);
        } else {
            open.push(share.clone());
        }
        shares.push(share);
    }
    let nobodys = own
        .iter()
        .fold(twice.clone(), |left, claim| left.difference(claim));
    rest = rest.difference(&nobodys);
    let mut shared_out = room::share(&rest, &open).into_iter();
    for (share, declared) in shares.iter_mut().zip(declared) {
        if !declared.whole
            && let Some(room) = shared_out.next()
        {
            *share = room;
        }
    }
    shares
}

/// As much of `space` as a server can be told of, in pieces of natural sizes: all of `decoded`, then the largest
/// pieces. Also returns the bytes that are left out.
fn told(space: &RegionSet, decoded: &RegionSet) -> (RegionSet, u64) {
    let pieces = |set: &RegionSet| -> Vec<(u8, u64)> {
        let regions = set.regions().iter();
        let pieces = regions.flat_map(|region| region.natural_pieces(PAGE_BITS, MOST_BITS));
        pieces.map(|(base, bits)| (bits, base)).collect()
    };
    if pieces(space).len() <= MAX_UNTYPED {
        return (space.clone(), 0);
    }
    let mut told = decoded.clone();
    let room = MAX_UNTYPED.saturating_sub(pieces(decoded).len());
    let mut others = pieces(&space.difference(decoded));
    others.sort_unstable_by(|a, b| b.cmp(a));
    for (bits, base) in others.iter().take(room) {
        // Joining pieces makes fewer of them, never more.
        if let Some(piece) = Region::sized(*base, 1 << bits) {
            told.insert(piece);
        }
    }
    let left_out = space.bytes().saturating_sub(told.bytes());
    (told, left_out)
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
    if machine.configuration == Configuration::Ports {
        return Vec::new();
    }
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
pub(crate) mod tests;
