//! Where BARs are: [`place`] gives a function's memory BARs addresses that its
//! bridge forwards and nothing else uses; [`unplace`] takes them away.
//!
//! What lies side by side, behind one bridge or on the root buses, is compared
//! with each other only: everything behind a bridge is inside its windows. So the
//! work does not grow with what the shard has elsewhere. A window that is closed,
//! or too small and not in use, is opened with room for all that waits behind it.

mod io;
mod registers;
mod virtual_functions;

use hw::{ConfigSpace, Sbdf};
use ipc_proto::{BarKind, DeviceState};
use system::info::PciInfo;

use crate::bridge::{self, Forwarding, WINDOW_UNIT, WindowKind};
use crate::device::{LARGE_PAGE, Region};
use crate::space::{Range, ShardMemory, hole};
use crate::{Device, Index, Malformed, Table};
use registers::{shrink, write};

pub use io::place_io;
pub use virtual_functions::place_virtual;

/// Bridges one behind the other whose windows are opened for one function.
const MAX_DEPTH: u8 = 16;
/// Most bytes below 4 GiB that a BAR of unknown size is thought to have.
const UNKNOWN_BYTES: u64 = 256 << 20;
const FOUR_GIB: u64 = 1 << 32;
/// Interrupt controllers, timers and flash memory lie from here to 4 GiB.
const CHIPSET: u64 = 0xfec0_0000;

/// Memory that is looked for.
#[derive(Clone, Copy, Debug)]
struct Want {
    bytes: u64,
    align: u64,
    /// May be above 4 GiB.
    wide: bool,
    prefetchable: bool,
}

impl Want {
    fn of(region: &Region) -> Self {
        let bytes = region.hole();
        Self {
            bytes,
            // Two small BARs never share a page of which frames are given out.
            align: bytes.checked_next_power_of_two().unwrap_or(bytes).max(4096),
            wide: region.kind == BarKind::Memory64,
            prefetchable: region.prefetchable,
        }
    }

    /// The windows that it may be in, best first.
    const fn kinds(self) -> &'static [WindowKind] {
        match (self.prefetchable, self.wide) {
            (true, _) => &[WindowKind::Prefetchable, WindowKind::Memory],
            // Nothing merges or prefetches on PCI Express (PCIe 5.0, 7.5.1.2.1).
            (false, true) => &[WindowKind::Memory, WindowKind::Prefetchable],
            (false, false) => &[WindowKind::Memory],
        }
    }
}

/// Gives every memory BAR of a function an address that has none, or one where it is not reached.
/// The function does not decode. BARs that are where they should be stay.
///
/// # Errors
/// There is no room, or a BAR does not take its address. The rest may be placed.
pub fn place<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    index: Index,
) -> Result<(), Malformed> {
    let Some(device) = table.get(index) else {
        return Ok(());
    };
    let at = device.at;
    let mut result = Ok(());
    let mut moved = false;
    // The largest first. Most functions have none.
    let mut left = misplaced(table, index);
    while let Some((bar, region)) = (0u8..)
        .zip(table.get(index).iter().flat_map(|device| &device.bars))
        .filter(|(bar, _)| left >> bar & 1 != 0)
        .max_by_key(|(_, region)| region.hole())
        .map(|(bar, region)| (bar, *region))
    {
        // To move another one may have been enough.
        let still = misplaced(table, index);
        left &= still & !(1 << bar);
        if still >> bar & 1 == 0 {
            continue;
        }
        if region.fixed {
            result = result.and(Err(Malformed::OutsideMemory(bar)));
            continue;
        }
        moved = true;
        // Not its place any more: others may have it.
        set_base(table, index, bar, 0);
        let placed = room(
            cfg,
            table,
            info,
            (at.segment(), at.bus()),
            Want::of(&region),
            0,
        )
        .map(|base| Region { base, ..region })
        .or_else(|| shrink(cfg, table, info, index, bar, region))
        .ok_or(Malformed::Unplaced(bar))
        .and_then(|region| write(cfg, at, bar, &region).map(|()| region));
        match placed {
            Ok(region) => {
                if let Some(place) = bar_mut(table, index, bar) {
                    *place = region;
                }
            }
            Err(fault) => result = result.and(Err(fault)),
        }
    }
    if moved {
        let memory = ShardMemory::new(&info.mmio);
        if let Some(device) = table.get_mut(index) {
            device.serve(&memory);
            device.mark_secret();
        }
    }
    forward_to(cfg, table, at);
    result
}

/// Takes the addresses of a function's BARs away, so that others can have them. The function does not
/// decode, or is gone.
pub fn unplace<C: ConfigSpace>(cfg: &mut C, table: &mut Table, index: Index) {
    let Some(device) = table.get_mut(index) else {
        return;
    };
    let at = device.at;
    for (bar, region) in (0..).zip(&mut device.bars) {
        if region.kind != BarKind::None && !region.fixed && region.is_placed() {
            region.base = 0;
            region.served = false;
            // One that is gone does not mind.
            let _ = write(cfg, at, bar, region);
        }
    }
}

fn bar_mut<'t>(table: &'t mut Table, index: Index, bar: u8) -> Option<&'t mut Region> {
    table.get_mut(index)?.bars.get_mut(usize::from(bar))
}

fn set_base(table: &mut Table, index: Index, bar: u8, base: u64) {
    if let Some(region) = bar_mut(table, index, bar) {
        region.base = base;
    }
}

/// Addresses that nothing else may use because of a region. A size that is not known is taken to be as
/// large as its place allows.
pub(crate) fn extent(region: &Region) -> Option<Range> {
    if !region.is_memory() || !region.is_placed() {
        return None;
    }
    let bytes = match region.hole() {
        0 => (1u64 << region.base.trailing_zeros()).min(UNKNOWN_BYTES),
        bytes => bytes,
    };
    Range::new(region.base, bytes)
}

/// The memory BARs of a function that have no address, or one where they are not reached or not alone: one bit each.
fn misplaced(table: &Table, index: Index) -> u8 {
    let Some(device) = table.get(index) else {
        return 0;
    };
    let above = above(table, device.at);
    (0u8..)
        .zip(&device.bars)
        .filter(|(_, region)| region.is_memory())
        .filter(|(_, region)| !is_reached(above, region) || is_crowded(table, index, region))
        .fold(0, |bits, (bar, _)| bits | 1 << bar)
}

/// What the bridge above a function forwards; `None` on a root bus.
fn above(table: &Table, at: Sbdf) -> Option<Forwarding> {
    let bridge = table.bridge_to(at.segment(), at.bus())?;
    table.at(bridge)?.bridge
}

/// Is it where the bridge above forwards to it, and aligned as it should be?
fn is_reached(above: Option<Forwarding>, region: &Region) -> bool {
    let Some(range) = extent(region) else {
        return false;
    };
    if region.alone && range.first & (LARGE_PAGE - 1) != 0 {
        return false;
    }
    above.is_none_or(|above| above.forwards(&range))
}

/// Is something else in the large pages that it should have alone?
fn is_crowded(table: &Table, index: Index, region: &Region) -> bool {
    // Most need not be: they are not compared with all others on their bus.
    if !region.alone {
        return false;
    }
    let Some((range, device)) = extent(region).zip(table.get(index)) else {
        return false;
    };
    let side_by_side = neighbours(table, device.at)
        .any(|(other, device)| other != index && taken(device).any(|taken| taken.meets(&range)));
    let own = device
        .bars
        .iter()
        .filter(|other| other.base != region.base)
        .filter_map(extent)
        .any(|other| other.meets(&range));
    side_by_side || own
}

/// What lies side by side with a function: on its bus, or on every root bus of the shard.
pub(crate) fn neighbours<'t>(
    table: &'t Table<'_>,
    at: Sbdf,
) -> impl Iterator<Item = (Index, &'t Device)> {
    let above = table.bridge_to(at.segment(), at.bus());
    // Virtual functions may be on buses of their own, to which no bridge leads.
    let behind = above.and_then(|bridge| table.at(bridge)?.bridge?.buses);
    table
        .buses()
        .filter(move |(segment, bus, bridge)| match behind {
            Some(behind) => {
                *segment == at.segment()
                    && (*bus == at.bus() || bridge.is_none() && behind.contains(*bus))
            }
            None => bridge.is_none(),
        })
        .flat_map(|(segment, bus, _)| table.on_bus(segment, bus))
}

/// Addresses that a function and what is behind it use.
fn taken(device: &Device) -> impl Iterator<Item = Range> + use<'_> {
    let windows = device.bridge.iter().flat_map(|bridge| bridge.windows());
    (device.bars.iter().filter_map(extent))
        .chain(windows)
        .chain(device.virtual_memory)
}

/// Finds room on a bus, and opens windows on the way.
fn room<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    (segment, bus): (u16, u8),
    want: Want,
    depth: u8,
) -> Option<u64> {
    let Some(above) = table.bridge_to(segment, bus) else {
        return root_room(table, info, segment, bus, want);
    };
    let forwarding = table.at(above)?.bridge?;
    if forwarding.anything {
        // What it is behind decides.
        return room_beside(cfg, table, info, above, want, depth);
    }
    let at = Sbdf::from_requester_id(segment, u16::from(bus) << 8);
    for kind in want.kinds() {
        let window = forwarding.window(*kind);
        if let Some(found) = window.and_then(|window| free(table, at, window, want)) {
            return Some(found);
        }
        let in_use = window.is_some_and(|window| {
            table
                .on_bus(segment, bus)
                .any(|(_, device)| taken(device).any(|taken| taken.meets(&window)))
        });
        if !in_use
            && let Some(window) = open(cfg, table, info, above, *kind, want, depth)
            && let Some(found) = free(table, at, window, want)
        {
            return Some(found);
        }
    }
    None
}

/// Room on the bus that a bridge is on.
fn room_beside<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    bridge: Sbdf,
    want: Want,
    depth: u8,
) -> Option<u64> {
    if depth >= MAX_DEPTH {
        return None;
    }
    room(
        cfg,
        table,
        info,
        (bridge.segment(), bridge.bus()),
        want,
        depth + 1,
    )
}

/// The lowest free place in a window.
fn free(table: &Table, at: Sbdf, window: Range, want: Want) -> Option<u64> {
    let low = Range {
        first: 0,
        last: if want.wide { u64::MAX } else { FOUR_GIB - 1 },
    };
    hole(window.and(&low)?, want.bytes, want.align, |here| {
        neighbours(table, at)
            .flat_map(|(_, device)| taken(device))
            .find(|taken| taken.meets(&here))
            .map(|taken| taken.last)
    })
}

/// Room on a root bus: near what firmware has placed there, since a host bridge need not forward all of
/// the shard's memory; else anywhere in it.
fn root_room(table: &Table, info: &PciInfo, segment: u16, bus: u8, want: Want) -> Option<u64> {
    let at = Sbdf::from_requester_id(segment, u16::from(bus) << 8);
    let lowest = |from: u64, to: u64| {
        neighbours(table, at)
            .flat_map(|(_, device)| taken(device))
            .map(|taken| taken.first)
            .filter(|first| (from..to).contains(first))
            .min()
    };
    let low = lowest(WINDOW_UNIT, CHIPSET).map(|first| (first, CHIPSET - 1));
    let high = lowest(FOUR_GIB, u64::MAX).map(|first| (first, u64::MAX));
    let high = high.filter(|_| want.wide);
    let anywhere = (WINDOW_UNIT, CHIPSET - 1);
    let beyond = want.wide.then_some((FOUR_GIB, u64::MAX));
    let memory = ShardMemory::new(&info.mmio);
    [high, low, Some(anywhere), beyond]
        .into_iter()
        .flatten()
        .find_map(|(first, last)| {
            memory
                .ranges()
                .filter_map(|range| range.and(&Range { first, last }))
                .find_map(|range| free(table, at, range, want))
        })
}

/// Opens a window of a bridge with room for what waits behind it, at least for `want`.
fn open<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    bridge: Sbdf,
    kind: WindowKind,
    want: Want,
    depth: u8,
) -> Option<Range> {
    let (bytes, align) = needed(table, bridge, kind);
    let want = Want {
        bytes: bytes
            .max(want.bytes)
            .checked_next_multiple_of(WINDOW_UNIT)?,
        align: align.max(want.align).max(WINDOW_UNIT),
        wide: kind == WindowKind::Prefetchable && want.wide,
        prefetchable: kind == WindowKind::Prefetchable,
    };
    let base = room_beside(cfg, table, info, bridge, want, depth)?;
    let range = Range::new(base, want.bytes)?;
    let index = table.find(bridge)?;
    let mut forwarding = table.get(index)?.bridge?;
    let opened = forwarding.open(cfg, bridge, kind, range);
    table.get_mut(index)?.bridge = Some(forwarding);
    opened.then_some(range)
}

/// Bytes that wait for a place behind a bridge, and the largest alignment of them.
fn needed(table: &Table, bridge: Sbdf, kind: WindowKind) -> (u64, u64) {
    let buses = table
        .at(bridge)
        .and_then(|device| device.bridge?.buses)
        .into_iter()
        .flat_map(|buses| buses.iter());
    let (mut bytes, mut align) = (0u64, WINDOW_UNIT);
    for bus in buses {
        let (mut here, mut largest) = (0u64, WINDOW_UNIT);
        let waiting = table
            .on_bus(bridge.segment(), bus)
            .filter(|(_, device)| device.state == DeviceState::Quarantined)
            .flat_map(|(_, device)| &device.bars)
            .filter(|region| region.is_memory() && !region.is_placed())
            .map(Want::of)
            .filter(|want| want.kinds().first() == Some(&kind));
        for want in waiting {
            here = here.saturating_add(want.align);
            largest = largest.max(want.align);
        }
        // A window of its own for each bus on the way.
        bytes = bytes.saturating_add(here.checked_next_multiple_of(largest).unwrap_or(u64::MAX));
        align = align.max(largest);
    }
    (bytes, align)
}

/// Lets every bridge above a function forward, up to the root bus.
fn forward_to<C: ConfigSpace>(cfg: &mut C, table: &Table, at: Sbdf) {
    let mut bus = at.bus();
    // Each is on a lower bus.
    while let Some(bridge) = table
        .bridge_to(at.segment(), bus)
        .filter(|bridge| bridge.bus() < bus)
    {
        bridge::forward(cfg, bridge);
        bus = bridge.bus();
    }
}
