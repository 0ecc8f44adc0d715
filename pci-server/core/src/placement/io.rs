//! I/O BARs: [`place_io`] gives them addresses where firmware gave none, and opens I/O windows of bridges on the way.
//!
//! No function ever decodes them: I/O addresses are nobody's (`registers::standard`). So what firmware has
//! placed stays, a BAR without an address is no harm, and a bad place none either: a holder and a dump see
//! addresses that make sense. Which there are is said by firmware ([`PciInfo::io`]), or not known.

use hw::{ConfigSpace, Sbdf};
use ipc_proto::BarKind;
use system::info::PciInfo;

use super::{MAX_DEPTH, above, bar_mut, neighbours, set_base};
use crate::bridge::IoWindow;
use crate::device::Region;
use crate::space::{Range, hole};
use crate::{Device, Index, Table};

/// Windows are multiples of 4 KiB (PCIe 5.0, 7.5.1.3.6).
const UNIT: u64 = 0x1000;
/// Below are devices of the board that no BAR says anything of.
const BOARD: u64 = 0x1000;
/// Two BARs are so far apart at least.
const LEAST: u64 = 16;

/// Gives every I/O BAR of a function an address that has none, or one that the bridge above does not forward. The
/// function does not decode. What is left without is returned, one bit each.
pub fn place_io<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    index: Index,
) -> u8 {
    let Some(device) = table.get(index) else {
        return 0;
    };
    let at = device.at;
    let above = above(table, at);
    let misplaced = (0u8..6)
        .zip(&device.bars)
        .filter(|(_, region)| region.kind == BarKind::Io && !region.fixed)
        .filter(|(_, region)| {
            let forwarded = above.is_none_or(|above| {
                let window = above.io().map(range);
                above.anything
                    || window
                        .zip(extent(region))
                        .is_some_and(|(w, r)| w.covers(&r))
            });
            !region.is_placed() || !forwarded
        })
        .fold(0u8, |bits, (bar, _)| bits | 1 << bar);
    let mut unplaced = 0;
    for bar in (0..6u8).filter(|bar| misplaced >> bar & 1 != 0) {
        let Some(region) = bar_mut(table, index, bar).map(|region| *region) else {
            continue;
        };
        set_base(table, index, bar, 0);
        let bus = (at.segment(), at.bus());
        let placed = room(cfg, table, info, bus, step(&region), 0)
            .map(|base| Region { base, ..region })
            .filter(|region| super::write(cfg, at, bar, region).is_ok());
        match placed {
            Some(region) => set_base(table, index, bar, region.base),
            None => {
                unplaced |= 1 << bar;
                // It says that it has none; if it does not even take that, nobody listens to it.
                let _ = super::write(cfg, at, bar, &Region { base: 0, ..region });
            }
        }
    }
    unplaced
}

/// What an I/O BAR takes, which is its alignment, too.
fn step(region: &Region) -> u64 {
    let bytes = region.bytes.checked_next_power_of_two();
    bytes.unwrap_or(u64::MAX).max(LEAST)
}

fn extent(region: &Region) -> Option<Range> {
    let is_io = region.kind == BarKind::Io && region.is_placed();
    is_io.then(|| Range::new(region.base, region.bytes))?
}

fn range((first, last): IoWindow) -> Range {
    Range {
        first: first.into(),
        last: last.into(),
    }
}

/// I/O addresses that a function and what is behind it use.
fn taken(device: &Device) -> impl Iterator<Item = Range> + use<'_> {
    let window = device.bridge.and_then(|bridge| bridge.io()).map(range);
    device.bars.iter().filter_map(extent).chain(window)
}

/// Finds room on a bus, and opens windows on the way.
fn room<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    (segment, bus): (u16, u8),
    bytes: u64,
    depth: u8,
) -> Option<u64> {
    if depth >= MAX_DEPTH {
        return None;
    }
    let at = Sbdf::from_requester_id(segment, u16::from(bus) << 8);
    let Some(bridge) = table.bridge_to(segment, bus) else {
        return info.io.iter().find_map(|io| {
            let mut window = range(*io);
            window.first = window.first.max(BOARD);
            free(table, at, window, bytes)
        });
    };
    let beside = (bridge.segment(), bridge.bus());
    let index = table.find(bridge)?;
    let mut forwarding = table.get(index)?.bridge?;
    if forwarding.anything {
        return room(cfg, table, info, beside, bytes, depth + 1);
    }
    let window = forwarding.io().map(range);
    if let Some(window) = window {
        let used = table
            .on_bus(segment, bus)
            .any(|(_, device)| taken(device).any(|taken| taken.meets(&window)));
        let found = free(table, at, window, bytes);
        if found.is_some() || used {
            return found;
        }
    }
    let bytes_behind = waiting(table, bridge).max(bytes);
    let size = bytes_behind.checked_next_multiple_of(UNIT)?;
    let first = room(
        cfg,
        table,
        info,
        beside,
        size.checked_next_power_of_two()?,
        depth + 1,
    )?;
    let opened = Range::new(first, size)?;
    let ends = u16::try_from(opened.first)
        .ok()
        .zip(u16::try_from(opened.last).ok())?;
    let open = forwarding.open_io(cfg, bridge, ends);
    table.get_mut(index)?.bridge = Some(forwarding);
    if open {
        free(table, at, opened, bytes)
    } else {
        None
    }
}

/// The lowest free place in a window.
fn free(table: &Table, at: Sbdf, window: Range, bytes: u64) -> Option<u64> {
    hole(window, bytes, bytes, |here| {
        neighbours(table, at)
            .flat_map(|(_, device)| taken(device))
            .find(|taken| taken.meets(&here))
            .map(|taken| taken.last)
    })
}

/// Bytes that wait for a place behind a bridge; each bus has a window of its own on the way.
fn waiting(table: &Table, bridge: Sbdf) -> u64 {
    let buses = table
        .at(bridge)
        .and_then(|device| device.bridge?.buses)
        .into_iter()
        .flat_map(|buses| buses.iter());
    buses
        .map(|bus| {
            let waits = table
                .on_bus(bridge.segment(), bus)
                .flat_map(|(_, device)| &device.bars)
                .filter(|region| region.kind == BarKind::Io && !region.is_placed())
                .fold(0u64, |sum, region| sum.saturating_add(step(region)));
            waits.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX)
        })
        .fold(0, u64::saturating_add)
}
