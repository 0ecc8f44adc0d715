//! A BAR's own registers: its address, and its size where that can be chosen.

use hw::capability::{CapabilityList, Resizable, ResizableBars};
use hw::header::{Command, Header, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::BarKind;
use system::info::PciInfo;

use super::{Want, room};
use crate::device::Region;
use crate::{Index, Malformed, Table};

/// Writes a BAR's address and sees that it holds.
pub(super) fn write<C: ConfigSpace>(
    cfg: &mut C,
    at: Sbdf,
    bar: u8,
    region: &Region,
) -> Result<(), Malformed> {
    let command = cfg.read16(at, register::COMMAND);
    if command == u16::MAX {
        return Err(Malformed::Vanished);
    }
    if Command::from_bits_retain(command).contains(Command::MEMORY_SPACE) {
        return Err(Malformed::ControlStuck);
    }
    let offset = register::BAR0 + 4 * u16::from(bar);
    let mut put = |offset, value: u32| {
        cfg.write32(at, offset, value);
        (cfg.read32(at, offset) ^ value) & !0xf == 0
    };
    let low = put(offset, region.base as u32);
    let high = region.kind != BarKind::Memory64 || put(offset + 4, (region.base >> 32) as u32);
    if low && high {
        Ok(())
    } else {
        Err(Malformed::Unplaced(bar))
    }
}

/// Makes a resizable BAR that finds no room smaller, until it does.
pub(super) fn shrink<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    index: Index,
    bar: u8,
    region: Region,
) -> Option<Region> {
    let device = table.get(index)?;
    let (at, layout) = (device.at, device.header?.layout);
    if device
        .msix
        .is_some_and(|msix| msix.table.bar == bar || msix.pending.bar == bar)
    {
        // Firmware's size is the one in which the table is.
        return None;
    }
    let bars = CapabilityList::read(cfg, at, layout)
        .find_extended::<ResizableBars, C>(cfg, at)
        .ok()??;
    let resizable = *bars.0.iter().find(|resizable| resizable.bar == bar)?;
    // At most 44 sizes.
    let smaller = || resizable.sizes().filter(|bytes| *bytes < region.bytes);
    for n in (0..smaller().count()).rev() {
        let region = Region {
            bytes: smaller().nth(n)?,
            ..region
        };
        let bus = (at.segment(), at.bus());
        if let Some(base) = room(cfg, table, info, bus, Want::of(&region), 0) {
            return resize(cfg, at, &resizable, region.bytes).then_some(Region { base, ..region });
        }
    }
    None
}

/// Sets the size of a resizable BAR. `false`: it does not take it.
fn resize<C: ConfigSpace>(cfg: &mut C, at: Sbdf, resizable: &Resizable, bytes: u64) -> bool {
    let Some(size) = resizable.encode(bytes) else {
        return false;
    };
    let control = cfg.read32(at, resizable.control_register);
    let value = control & !Resizable::SIZE_MASK | size;
    cfg.write32(at, resizable.control_register, value);
    let now = cfg.read32(at, resizable.control_register);
    let Ok(header) = Header::read(cfg, at) else {
        return false;
    };
    // What the BAR says is what counts.
    now & Resizable::SIZE_MASK == size
        && hw::bar::probe(cfg, at, &header)
            .is_ok_and(|bars| bars.get(resizable.bar).is_some_and(|bar| bar.size == bytes))
}
