//! [`write`]: what a driver writes to the header most of the time, and nothing beyond its register. It does what
//! [`super::plan`] and [`super::Planned::carry_out`] do, by a shorter way (a test compares them).

use hw::ConfigSpace;
use ipc_proto::Width;

use super::is_plain;
use crate::Device;
use crate::registers::{self, Policy};

/// Registers of the header: those whose holder may set bits, and those beside them.
const fn simple(offset: u16) -> Option<Policy> {
    match registers::header(offset) {
        Some(policy) if policy.emulated.is_none() => Some(policy),
        _ => None,
    }
}

// Of a register whose bits may be set none is cleared by ones: what is kept of it can be written back.
const _: () = {
    let mut offset = 0;
    while let Some(policy) = registers::header(offset) {
        assert!(policy.write == 0 || policy.clear == 0);
        offset += 2;
    }
};

/// Writes a register of the header, of which bits may be set, alone or with the one above it. `None`, and nothing is
/// written, where the access is refused, means more than its register, or is not one of these.
#[inline(always)]
pub fn write<C: ConfigSpace>(
    cfg: &mut C,
    device: &Device,
    offset: u16,
    width: Width,
    value: u32,
) -> Option<()> {
    if !is_plain(device, offset, width) {
        return None;
    }
    let policy = simple(offset).filter(|policy| policy.write != 0)?;
    match width {
        Width::Byte => return None,
        Width::Word => {}
        Width::Dword => {
            // Nothing comes of it: as with most writes to Command, with Status above it.
            let above = simple(offset | 2)?;
            if above.write | above.trapped | (value >> 16) as u16 & above.clear != 0 {
                return None;
            }
        }
    }
    let value = value as u16;
    let now = cfg.read16(device.at, offset);
    if (now ^ value) & policy.trapped != 0 {
        return None;
    }
    let value = now & !policy.write | value & policy.write;
    cfg.write16(device.at, offset, value);
    Some(())
}
