//! A mediated access to configuration space: [`check`] it, look up the
//! [`Policy`](crate::registers::Policy), then touch the hardware with the register's own width.

use hw::ConfigSpace;
use ipc_proto::{Refusal, Rule, Width};

use crate::Device;
use crate::registers::policy;

/// Refuses what is not aligned to its width, or leaves the device's configuration space.
#[inline]
fn check(device: &Device, offset: u16, width: Width) -> Result<(), Refusal> {
    // Aligned, so that an offset inside the space cannot reach beyond it.
    if offset & (width as u16 - 1) != 0 || offset >= device.config_bytes {
        return Err(Refusal::new(Rule::BadAccess, u64::from(offset)));
    }
    Ok(())
}

/// Reads a register of a held device.
///
/// # Errors
/// `BadAccess`, `RegisterHidden`, with the offset.
#[inline]
pub fn read<C: ConfigSpace>(
    cfg: &C,
    device: &Device,
    offset: u16,
    width: Width,
) -> Result<u32, Refusal> {
    check(device, offset, width)?;
    if offset < 0x100 && device.hidden >> (offset / 4) & 1 != 0 {
        return Err(Refusal::new(Rule::RegisterHidden, u64::from(offset)));
    }
    Ok(match width {
        Width::Byte => u32::from(cfg.read8(device.at, offset)),
        Width::Word => u32::from(cfg.read16(device.at, offset)),
        Width::Dword => cfg.read32(device.at, offset),
    })
}

/// Writes those bits of a register that the policy lets a holder write.
///
/// # Errors
/// `BadAccess`, `RegisterHidden`; `RegisterReadOnly` when no bit may be written, or a bit would
/// change that has an operation of its own. Nothing has been written then.
pub fn write<C: ConfigSpace>(
    cfg: &mut C,
    device: &Device,
    offset: u16,
    width: Width,
    value: u32,
) -> Result<(), Refusal> {
    check(device, offset, width)?;
    if offset < 0x100 && device.hidden >> (offset / 4) & 1 != 0 {
        return Err(Refusal::new(Rule::RegisterHidden, u64::from(offset)));
    }
    let even = offset & !1;
    // What of each half is meant, and its new bits.
    let (first, second) = match width {
        Width::Byte if offset & 1 != 0 => (Part::new(0xff00, (value << 8) as u16), None),
        Width::Byte => (Part::new(0x00ff, value as u16), None),
        Width::Word => (Part::new(0xffff, value as u16), None),
        Width::Dword => (
            Part::new(0xffff, value as u16),
            Some(Part::new(0xffff, (value >> 16) as u16)),
        ),
    };
    // All is checked before anything is written.
    let first = first.plan(cfg, device, even);
    // A dword is aligned: its second half is inside the space.
    let second = second.map(|part| part.plan(cfg, device, even + 2));
    match (first, second) {
        (Plan::Trapped, _)
        | (_, Some(Plan::Trapped))
        | (Plan::Nothing, None | Some(Plan::Nothing)) => {
            Err(Refusal::new(Rule::RegisterReadOnly, u64::from(offset)))
        }
        (first, second) => {
            first.carry_out(cfg, device, even);
            if let Some(second) = second {
                second.carry_out(cfg, device, even + 2);
            }
            Ok(())
        }
    }
}

/// What a write means for 16 bits.
struct Part {
    lanes: u16,
    value: u16,
}

/// What becomes of it.
enum Plan {
    /// No bit of it may be written.
    Nothing,
    /// It would change a bit that has an operation of its own.
    Trapped,
    /// This is written.
    Write(u16),
}

impl Part {
    const fn new(lanes: u16, value: u16) -> Self {
        Self { lanes, value }
    }

    fn plan<C: ConfigSpace>(&self, cfg: &C, device: &Device, offset: u16) -> Plan {
        let whole = policy(device, offset);
        let trapped = whole.trapped;
        let (write, clear) = (whole.write & self.lanes, whole.clear & self.lanes);
        if write | clear | trapped & self.lanes == 0 {
            return Plan::Nothing;
        }
        let now = cfg.read16(device.at, offset);
        if (now ^ self.value) & trapped & self.lanes != 0 {
            return Plan::Trapped;
        }
        if write | clear == 0 {
            return Plan::Nothing;
        }
        // A status register gets ones only where the holder clears; elsewhere what is not the
        // holder's to write keeps its value.
        let kept = if whole.write | trapped == 0 {
            0
        } else {
            now & !(write | whole.clear)
        };
        Plan::Write(kept | self.value & (write | clear))
    }
}

impl Plan {
    fn carry_out<C: ConfigSpace>(self, cfg: &mut C, device: &Device, offset: u16) {
        if let Self::Write(value) = self {
            cfg.write16(device.at, offset, value);
        }
    }
}
