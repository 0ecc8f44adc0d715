//! Base address registers and the expansion ROM: what they decode, and how
//! large the region behind each is (PCIe 5.0, 7.5.1.2.1 and 7.5.1.2.4).
//!
//! [`probe`] (with [`probe_registers`]) is all that writes. It turns decoding off, sizes
//! each register by writing ones, puts every register back and turns decoding
//! on again, on every path; a value that does not come back is a fault of the
//! device. A bad register spoils its own slot of [`Bars`], not the others.
//! What firmware left, without a write and so without sizes: [`read_registers`].

mod registers;
mod sizing;

pub use registers::{Register, RomRegister, read_registers, read_rom};

use sizing::{Sized32, size_register};
use thiserror::Error;

use crate::header::{Command, Header, register};
use crate::{ConfigSpace, Sbdf};

/// Registers a type 0 header has; other layouts have fewer.
pub const MAX_BARS: usize = 6;

const IO_SPACE: u32 = 1;
const IO_ADDRESS: u32 = !0x3;
const MEMORY_TYPE: u32 = 0x6;
const MEMORY_TYPE_64: u32 = 0x4;
const MEMORY_PREFETCHABLE: u32 = 0x8;
const MEMORY_ADDRESS: u32 = !0xf;
const ROM_ENABLE: u32 = 1;
const ROM_ADDRESS: u32 = 0xffff_f800;

/// In which space a BAR decodes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Space {
    /// IO ports.
    Io,
    /// Memory addressed with 32 bits.
    Memory32 {
        /// Reads have no side effects and writes may be merged.
        prefetchable: bool,
    },
    /// Memory addressed with 64 bits; the register takes two slots.
    Memory64 {
        /// Reads have no side effects and writes may be merged.
        prefetchable: bool,
    },
}

impl Space {
    /// Memory of either width.
    #[must_use]
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Memory32 { .. } | Self::Memory64 { .. })
    }
}

/// A working base address register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bar {
    /// Which register, 0 to 5; a 64-bit one has also the next.
    pub index: u8,
    /// What it decodes.
    pub space: Space,
    /// First address as programmed, 0 where firmware has not placed it. A multiple of [`Self::size`].
    pub address: u64,
    /// Bytes, a power of two, at least 4 (IO) or 16 (memory).
    pub size: u64,
}

impl Bar {
    /// Offset of the (lower) register in configuration space, of a BAR in the header.
    #[must_use]
    pub const fn register(&self) -> u16 {
        register::BAR0 + 4 * self.index as u16
    }

    /// Last address of the region, included.
    #[must_use]
    pub const fn last(&self) -> u64 {
        // `address` is a multiple of `size`, a power of two: no carry out of 64 bits.
        self.address | (self.size - 1)
    }
}

/// The expansion ROM register of a function that has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rom {
    /// First address as programmed, 0 where not placed.
    pub address: u64,
    /// Bytes, a power of two, at least 2 KiB.
    pub size: u64,
    /// The ROM answers (if memory decoding is on).
    pub enabled: bool,
}

/// What is wrong with one register. `index` is the BAR's, or [`ROM_INDEX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum BarError {
    /// Memory type bits 01 or 11, which are reserved.
    #[error("BAR {index}: memory type {kind:#b} is reserved")]
    ReservedType {
        /// Which register.
        index: u8,
        /// Bits 2:1 of the register.
        kind: u8,
    },
    /// A 64-bit BAR in the last slot has no place for its upper half.
    #[error("BAR {index}: 64-bit in the last slot, its upper half is missing")]
    UpperHalfMissing {
        /// Which register.
        index: u8,
    },
    /// The register holds something but has no writable address bit: a region of size zero.
    #[error("BAR {index}: region of size zero")]
    ZeroSize {
        /// Which register.
        index: u8,
    },
    /// The register reads all ones.
    #[error("BAR {index}: register reads all ones")]
    AllOnes {
        /// Which register.
        index: u8,
    },
    /// Writable address bits with a gap: no size fits.
    #[error("BAR {index}: writable bits {mask:#x} are not contiguous")]
    NotContiguous {
        /// Which register.
        index: u8,
        /// What was read after all ones were written, attribute bits removed.
        mask: u64,
    },
    /// The programmed address is not a multiple of the region's size.
    #[error("BAR {index}: address {address:#x} is not a multiple of its size {size:#x}")]
    Misaligned {
        /// Which register.
        index: u8,
        /// Programmed address.
        address: u64,
        /// Size found.
        size: u64,
    },
    /// The register changed its type, or did not come back to its value.
    #[error("BAR {index}: register does not hold its value ({before:#x}, then {after:#x})")]
    Unstable {
        /// Which register.
        index: u8,
        /// Value before the probe.
        before: u64,
        /// Value after it.
        after: u64,
    },
}

/// The `index` of a [`BarError`] that is about the expansion ROM register.
pub const ROM_INDEX: u8 = 6;

/// Why nothing can be said about any register of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum ProbeError {
    /// The function does not answer, or stopped answering during the probe.
    #[error("the function stopped answering while its BARs were probed")]
    Vanished,
}

/// One of the six places for a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Slot {
    /// No register here, or one that is not implemented.
    Unused,
    /// A register that works.
    Bar(Bar),
    /// Upper half of the 64-bit BAR in the slot before.
    UpperHalf,
    /// A register that breaks a rule.
    Faulty(BarError),
}

/// All base address registers of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bars {
    slots: [Slot; MAX_BARS],
    rom: Result<Option<Rom>, BarError>,
}

impl Bars {
    /// The BAR whose (lower) register is `index`; `None` if there is no working one.
    #[must_use]
    pub fn get(&self, index: u8) -> Option<&Bar> {
        match self.slots.get(usize::from(index)) {
            Some(Slot::Bar(bar)) => Some(bar),
            _ => None,
        }
    }

    /// What is in each of the six places.
    #[must_use]
    pub const fn slots(&self) -> &[Slot; MAX_BARS] {
        &self.slots
    }

    /// The BARs that work, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Bar> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Bar(bar) => Some(bar),
            _ => None,
        })
    }

    /// The expansion ROM; `None` if there is none, or a faulty one.
    #[must_use]
    pub fn rom(&self) -> Option<Rom> {
        self.rom.ok().flatten()
    }

    /// Every broken rule, BARs first.
    pub fn faults(&self) -> impl Iterator<Item = BarError> {
        self.slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Faulty(fault) => Some(*fault),
                _ => None,
            })
            .chain(self.rom.err())
    }
}

/// Finds out what each BAR of the function at `at` decodes and how large it is.
///
/// Decoding is off meanwhile, so the function must not be in use; only a host bridge keeps
/// it on, since memory behind it may become unreachable. Command and every register have
/// their old values when this returns, whatever it returns.
///
/// # Errors
/// The function stopped answering. What is wrong with single registers is in [`Bars::faults`].
pub fn probe<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    header: &Header,
) -> Result<Bars, ProbeError> {
    let mut slots = [Slot::Unused; MAX_BARS];
    let rom = probe_each(cfg, at, header, keep(&mut slots))?;
    Ok(Bars { slots, rom })
}

/// Puts what is found into its place.
fn keep(slots: &mut [Slot; MAX_BARS]) -> impl FnMut(u8, Slot) {
    |index, found| {
        if let Some(slot) = slots.get_mut(usize::from(index)) {
            *slot = found;
        }
    }
}

/// [`probe`] that hands each place which is not unused to `each`, with its number, instead of keeping all; gives
/// the expansion ROM.
///
/// # Errors
/// As there. What was handed over before is worth nothing then.
pub fn probe_each<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    header: &Header,
    each: impl FnMut(u8, Slot),
) -> Result<Result<Option<Rom>, BarError>, ProbeError> {
    let command = cfg.read16(at, register::COMMAND);
    if command == u16::MAX {
        return Err(ProbeError::Vanished);
    }
    let decoding = (Command::IO_SPACE | Command::MEMORY_SPACE).bits();
    let quiet = if header.class.is_host_bridge() {
        command
    } else {
        command & !decoding
    };
    if quiet != command {
        cfg.write16(at, register::COMMAND, quiet);
    }
    let count = header.layout.bar_count();
    registers_each(cfg, at, register::BAR0, count, each);
    let rom = match header.layout.rom_register() {
        Some(offset) => probe_rom(cfg, at, offset),
        None => Ok(None),
    };
    if quiet != command {
        cfg.write16(at, register::COMMAND, command);
    }
    if cfg.read16(at, register::VENDOR_ID) == u16::MAX {
        return Err(ProbeError::Vanished);
    }
    Ok(rom)
}

/// Sizes the `count` base address registers from `first` on, in the header or in a capability.
/// Decoding must be off. Every register has its old value when this returns.
pub fn probe_registers<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    first: u16,
    count: u8,
) -> [Slot; MAX_BARS] {
    let mut slots = [Slot::Unused; MAX_BARS];
    registers_each(cfg, at, first, count, keep(&mut slots));
    slots
}

fn registers_each<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    first: u16,
    count: u8,
    mut each: impl FnMut(u8, Slot),
) {
    let mut upper_half_next = false;
    for index in 0..count {
        if upper_half_next {
            upper_half_next = false;
            each(index, Slot::UpperHalf);
            continue;
        }
        let offset = first + 4 * u16::from(index);
        let sized = size_register(cfg, at, offset, u32::MAX);
        if sized.before == 0 && sized.between == 0 {
            continue;
        }
        match judge(cfg, at, offset, index, count, sized) {
            Ok(bar) => {
                upper_half_next = matches!(bar.space, Space::Memory64 { .. });
                each(index, Slot::Bar(bar));
            }
            Err((fault, extent)) => {
                upper_half_next = matches!(extent, Extent::TwoSlots);
                each(index, Slot::Faulty(fault));
            }
        }
    }
}

/// How many slots a faulty register takes: the upper half of a bad 64-bit BAR is no BAR.
enum Extent {
    OneSlot,
    TwoSlots,
}

/// What a register is that was sized, and is not unused.
#[inline(always)]
fn judge<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    offset: u16,
    index: u8,
    count: u8,
    sized: Sized32,
) -> Result<Bar, (BarError, Extent)> {
    let Sized32 {
        before: low,
        between: low_mask,
        after: low_after,
    } = sized;
    let one = |fault| Err((fault, Extent::OneSlot));
    if low == u32::MAX {
        return one(BarError::AllOnes { index });
    }
    let unstable = |before, after| BarError::Unstable {
        index,
        before: u64::from(before),
        after: u64::from(after),
    };
    if low_after != low {
        return one(unstable(low, low_after));
    }
    if low & IO_SPACE != 0 {
        if low_mask & IO_SPACE == 0 && low_mask != 0 {
            return one(unstable(low, low_mask));
        }
        let mask = low_mask & IO_ADDRESS;
        // IO BARs may leave the upper 16 bits out: x86 has 64 KiB of ports.
        let mask = if mask != 0 && mask >> 16 == 0 {
            mask | 0xffff_0000
        } else {
            mask
        };
        let address = u64::from(low & IO_ADDRESS);
        return region(index, Space::Io, address, u64::from(mask) | ABOVE_32)
            .map_err(|fault| (fault, Extent::OneSlot));
    }
    let attributes = !MEMORY_ADDRESS;
    if low_mask != 0 && low_mask & attributes != low & attributes {
        return one(unstable(low, low_mask));
    }
    let prefetchable = low & MEMORY_PREFETCHABLE != 0;
    match low & MEMORY_TYPE {
        0 => {
            let address = u64::from(low & MEMORY_ADDRESS);
            let mask = u64::from(low_mask & MEMORY_ADDRESS) | ABOVE_32;
            region(index, Space::Memory32 { prefetchable }, address, mask)
                .map_err(|fault| (fault, Extent::OneSlot))
        }
        MEMORY_TYPE_64 => {
            if index + 1 >= count {
                return one(BarError::UpperHalfMissing { index });
            }
            let Sized32 {
                before: high,
                between: high_mask,
                after: high_after,
            } = size_register(cfg, at, offset + 4, u32::MAX);
            let fault = |fault| (fault, Extent::TwoSlots);
            if high_after != high {
                return Err(fault(unstable(high, high_after)));
            }
            let join =
                |high: u32, low: u32| (u64::from(high) << 32) | u64::from(low & MEMORY_ADDRESS);
            let mask = join(high_mask, low_mask);
            region(
                index,
                Space::Memory64 { prefetchable },
                join(high, low),
                mask,
            )
            .map_err(fault)
        }
        kind => one(BarError::ReservedType {
            index,
            kind: (kind >> 1) as u8,
        }),
    }
}

/// Makes the mask of a 32-bit register one of 64 bits: its size is judged by the same rule.
const ABOVE_32: u64 = 0xffff_ffff_0000_0000;

/// The region whose writable address bits are `mask` (all bits above the size, no gap).
fn region(index: u8, space: Space, address: u64, mask: u64) -> Result<Bar, BarError> {
    if mask == 0 || mask == ABOVE_32 {
        return Err(BarError::ZeroSize { index });
    }
    let size = 1u64 << mask.trailing_zeros();
    if mask != !(size - 1) {
        return Err(BarError::NotContiguous { index, mask });
    }
    if address & (size - 1) != 0 {
        return Err(BarError::Misaligned {
            index,
            address,
            size,
        });
    }
    Ok(Bar {
        index,
        space,
        address,
        size,
    })
}

fn probe_rom<C: ConfigSpace + ?Sized>(
    cfg: &mut C,
    at: Sbdf,
    offset: u16,
) -> Result<Option<Rom>, BarError> {
    // Bit 0 stays clear: the ROM must not answer at the address of all ones.
    let Sized32 {
        before: raw,
        between: mask,
        after,
    } = size_register(cfg, at, offset, ROM_ADDRESS);
    let index = ROM_INDEX;
    if raw == u32::MAX {
        return Err(BarError::AllOnes { index });
    }
    let mask = mask & ROM_ADDRESS;
    if mask == 0 && raw & ROM_ADDRESS == 0 {
        return Ok(None);
    }
    if after != raw {
        return Err(BarError::Unstable {
            index,
            before: u64::from(raw),
            after: u64::from(after),
        });
    }
    let space = Space::Memory32 {
        prefetchable: false,
    };
    let address = u64::from(raw & ROM_ADDRESS);
    let bar = region(index, space, address, u64::from(mask) | ABOVE_32)?;
    Ok(Some(Rom {
        address: bar.address,
        size: bar.size,
        enabled: raw & ROM_ENABLE != 0,
    }))
}
