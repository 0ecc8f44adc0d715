//! A mediated access to configuration space: [`check`] it, look up the
//! [`Policy`](crate::registers::Policy), then touch the hardware with the register's own width.
//!
//! A write is planned as a whole ([`plan`]) before anything is touched. What it means beyond
//! its register is an [`Action`], which the shard performs.

pub mod plain;

use hw::ConfigSpace;
use hw::capability::{Msi, Msix, PowerState};
use hw::header::register;
use ipc_proto::{BarKind, Mechanism, Refusal, Rule, Switch, Width};

use crate::Device;
use crate::registers::{Emulation, Policy, Trap, policy};

/// Refuses what is not aligned to its width, or leaves the device's configuration space.
#[inline(always)]
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
    if let Some(value) = read_plain(cfg, device, offset, width) {
        return Ok(value);
    }
    check(device, offset, width)?;
    read_emulated(cfg, device, offset, width)
}

/// Reads a register that is the device's own; `None` where the access is refused, or answered by the shard.
#[inline(always)]
pub fn read_plain<C: ConfigSpace>(
    cfg: &C,
    device: &Device,
    offset: u16,
    width: Width,
) -> Option<u32> {
    if !is_plain(device, offset, width) {
        return None;
    }
    Some(match width {
        Width::Byte => u32::from(cfg.read8(device.at, offset)),
        Width::Word => u32::from(cfg.read16(device.at, offset)),
        Width::Dword => cfg.read32(device.at, offset),
    })
}

/// Is it an access of a register that the device itself answers?
#[inline(always)]
fn is_plain(device: &Device, offset: u16, width: Width) -> bool {
    check(device, offset, width).is_ok() && !is_hidden(device, offset)
}

/// Is this register not to be read from the device?
#[inline(always)]
const fn is_hidden(device: &Device, offset: u16) -> bool {
    offset < 0x100 && device.hidden >> (offset / 4) & 1 != 0
}

/// A BAR that says its size, or a hidden register.
#[cold]
fn read_emulated<C: ConfigSpace>(
    cfg: &C,
    device: &Device,
    offset: u16,
    width: Width,
) -> Result<u32, Refusal> {
    let bar = bar_at(offset).ok_or(Refusal::new(Rule::RegisterHidden, u64::from(offset)))?;
    let value = size_mask(cfg, device, bar) >> (8 * (offset & 3));
    Ok(match width {
        Width::Byte => value & 0xff,
        Width::Word => value & 0xffff,
        Width::Dword => value,
    })
}

/// The BAR register that an offset lies in.
const fn bar_at(offset: u16) -> Option<u8> {
    match offset {
        register::BAR0..0x28 => Some(((offset - register::BAR0) / 4) as u8),
        _ => None,
    }
}

/// The bit of [`Device::hidden`] that says that a BAR answers with its size.
#[must_use]
pub const fn sizing(bar: u8) -> u64 {
    1 << (register::BAR0 / 4 + (bar % 6) as u16)
}

/// All of them.
pub const SIZING: u64 = 0x3f << (register::BAR0 / 4);

/// What a BAR's register reads after all ones were written to it (PCI 3.0, 6.2.5.1).
fn size_mask<C: ConfigSpace>(cfg: &C, device: &Device, bar: u8) -> u32 {
    // A virtual function has no BARs of its own, and a fixed region no register.
    let region = |bar: u8| {
        let region = device.bars.get(usize::from(bar))?;
        (device.physical.is_none() && !region.fixed && region.bytes != 0).then_some(region)
    };
    let above = bar.checked_sub(1).and_then(region);
    let mask = |bytes: u64| !bytes.wrapping_sub(1);
    let kind = |low: u32| cfg.read32(device.at, register::BAR0 + 4 * u16::from(bar)) & low;
    match (region(bar), above) {
        (_, Some(low)) if low.kind == BarKind::Memory64 => (mask(low.bytes) >> 32) as u32,
        (Some(own), _) => match own.kind {
            BarKind::None => 0,
            BarKind::Io => mask(own.bytes) as u32 & !0x3 | kind(0x3),
            BarKind::Memory32 | BarKind::Memory64 => mask(own.bytes) as u32 & !0xf | kind(0xf),
        },
        (None, _) => 0,
    }
}

/// What a write means beyond the register that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Bus mastering.
    BusMaster(Switch),
    /// D0 or D3hot.
    Power(PowerState),
    /// A function-level reset. Nothing else of the write is done.
    Reset,
    /// Messages are sent or not; with MSI-X, all of them are masked.
    Messages {
        /// Which mechanism.
        mechanism: Mechanism,
        /// Its enable bit.
        enable: Switch,
        /// Its function mask.
        mask: Switch,
    },
    /// Mask bits of MSI.
    Masks {
        /// Those that the write changes, by number of the message.
        changed: u32,
        /// What they become.
        value: u32,
    },
    /// A BAR answers with its size, or again with its address.
    Sizing(u8, Switch),
}

/// A write that may be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Planned {
    /// Even offset of the first half.
    offset: u16,
    /// What is written to either half.
    halves: [Option<u16>; 2],
    /// What it means beyond that.
    pub action: Option<Action>,
}

impl Planned {
    /// Writes what is the register's alone.
    pub fn carry_out<C: ConfigSpace>(self, cfg: &mut C, device: &Device) {
        for (offset, half) in [self.offset, self.offset | 2].into_iter().zip(self.halves) {
            if let Some(value) = half {
                cfg.write16(device.at, offset, value);
            }
        }
    }
}

/// What a write means: those bits of a register that the policy lets a holder write, and what the
/// shard has to do. Nothing is written yet.
///
/// # Errors
/// `BadAccess`, `RegisterHidden`; `RegisterReadOnly` when no bit may be written, or a bit would
/// change that may not.
pub fn plan<C: ConfigSpace>(
    cfg: &C,
    device: &Device,
    offset: u16,
    width: Width,
    value: u32,
) -> Result<Planned, Refusal> {
    check(device, offset, width)?;
    let refused = Refusal::new(Rule::RegisterReadOnly, u64::from(offset));
    let even = offset & !1;
    let whole = policy(device, even);
    if whole.emulated == Some(Emulation::Bar) {
        return plan_bar(cfg, device, offset, width, value).ok_or(refused);
    }
    if is_hidden(device, offset) {
        return Err(Refusal::new(Rule::RegisterHidden, u64::from(offset)));
    }
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
    let first = first.plan(cfg, device, even, whole).ok_or(refused)?;
    let second = match second {
        // A dword is aligned: its second half is inside the space.
        Some(part) => part
            .plan(cfg, device, even | 2, policy(device, even | 2))
            .ok_or(refused)?,
        None => Half::NOTHING,
    };
    if !first.may && !second.may {
        return Err(refused);
    }
    let action = match (first.action, second.action) {
        (
            Some(Action::Masks { changed, value }),
            Some(Action::Masks {
                changed: more,
                value: upper,
            }),
        ) => Some(Action::Masks {
            changed: changed | more,
            value: value | upper,
        }),
        // Two registers, as only a malformed device has them in one word.
        (Some(_), Some(_)) => return Err(refused),
        (one, other) => one.or(other),
    };
    Ok(Planned {
        offset: even,
        halves: [first.write, second.write],
        action,
    })
}

/// A BAR: all ones ask for its size, its own value ends that; nothing else can be written.
fn plan_bar<C: ConfigSpace>(
    cfg: &C,
    device: &Device,
    offset: u16,
    width: Width,
    value: u32,
) -> Option<Planned> {
    let bar = bar_at(offset).filter(|_| width == Width::Dword)?;
    // Some leave the bits alone that say what it is.
    let switch = if value | 0xf == u32::MAX {
        Switch::On
    } else if value == cfg.read32(device.at, offset) {
        Switch::Off
    } else {
        return None;
    };
    Some(Planned {
        offset,
        halves: [None; 2],
        action: Some(Action::Sizing(bar, switch)),
    })
}

/// What a write means for 16 bits.
struct Part {
    lanes: u16,
    value: u16,
}

/// What becomes of it.
struct Half {
    /// Some bit of it may be written.
    may: bool,
    write: Option<u16>,
    action: Option<Action>,
}

impl Half {
    const NOTHING: Self = Self {
        may: false,
        write: None,
        action: None,
    };
}

impl Part {
    const fn new(lanes: u16, value: u16) -> Self {
        Self { lanes, value }
    }

    /// `None` when it would change a bit that may not change.
    fn plan<C: ConfigSpace>(
        &self,
        cfg: &C,
        device: &Device,
        offset: u16,
        whole: Policy,
    ) -> Option<Half> {
        let trapped = whole.trapped & self.lanes;
        let (write, clear) = (whole.write & self.lanes, whole.clear & self.lanes);
        if write | clear | trapped == 0 {
            return Some(Half::NOTHING);
        }
        if write | trapped == 0 && self.value & clear == 0 {
            // Bits that ones clear, and no ones: as with most writes of four bytes to Command, with Status above it.
            return Some(Half {
                may: true,
                ..Half::NOTHING
            });
        }
        let now = cfg.read16(device.at, offset);
        let changed = (now ^ self.value) & trapped;
        let action = if changed == 0 {
            None
        } else {
            let after = now & !changed | self.value & changed;
            Some(act(device, offset, whole.trap?, changed, after)?)
        };
        // A status register gets ones only where the holder clears; elsewhere what is not the
        // holder's to write keeps its value.
        let kept = if whole.write | whole.trapped == 0 {
            0
        } else {
            now & !(write | whole.clear)
        };
        Some(Half {
            may: write | clear != 0 || trapped != 0 && whole.trap.is_some(),
            write: (write | clear != 0).then_some(kept | self.value & (write | clear)),
            action,
        })
    }
}

/// The operation that a change of trapped bits stands for, if there is one. `after`: the register as
/// it would be.
fn act(device: &Device, offset: u16, trap: Trap, changed: u16, after: u16) -> Option<Action> {
    let switch = |bit: u16| {
        if after & bit == 0 {
            Switch::Off
        } else {
            Switch::On
        }
    };
    match trap {
        Trap::Command if changed == 1 << 2 => Some(Action::BusMaster(switch(1 << 2))),
        Trap::Command => None,
        Trap::Power => match PowerState::from_bits(after) {
            state @ (PowerState::D0 | PowerState::D3Hot) => Some(Action::Power(state)),
            PowerState::D1 | PowerState::D2 => None,
        },
        // A device without the bit has no such reset.
        Trap::Reset => {
            let express = device.express.is_some_and(|express| {
                express.function_level_reset && express.device_control_register() == offset
            });
            let features = device.features.is_some_and(|features| {
                features.function_level_reset && features.control_register() == offset
            });
            (express || features).then_some(Action::Reset)
        }
        Trap::Msi if changed == Msi::ENABLE => Some(Action::Messages {
            mechanism: Mechanism::Msi,
            enable: switch(Msi::ENABLE),
            mask: Switch::Off,
        }),
        Trap::Msi => None,
        Trap::MsiX => Some(Action::Messages {
            mechanism: Mechanism::MsiX,
            enable: switch(Msix::ENABLE),
            mask: switch(Msix::FUNCTION_MASK),
        }),
        Trap::MsiMasks => {
            let start = device.msi?.mask_register()?;
            let shift = match offset.checked_sub(start)? {
                0 => 0,
                _ => 16,
            };
            Some(Action::Masks {
                changed: u32::from(changed) << shift,
                value: u32::from(after & changed) << shift,
            })
        }
    }
}
