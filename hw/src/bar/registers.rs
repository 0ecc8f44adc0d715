//! What base address registers hold, without writing them: [`Register`],
//! [`RomRegister`]. Sizes need [`super::probe`].

use super::{
    BarError, IO_ADDRESS, IO_SPACE, MAX_BARS, MEMORY_ADDRESS, MEMORY_PREFETCHABLE, MEMORY_TYPE,
    MEMORY_TYPE_64, ROM_ADDRESS, ROM_ENABLE, Space,
};
use crate::header::Layout;
use crate::{ConfigSpace, Sbdf};

/// What a base address register holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Register {
    /// Zero: not implemented, or a 32-bit memory BAR that is not placed.
    Zero,
    /// A region.
    Region {
        /// What it decodes.
        space: Space,
        /// First address, 0 where it is not placed.
        address: u64,
    },
    /// Upper half of the 64-bit BAR before.
    UpperHalf,
    /// It breaks a rule.
    Faulty(BarError),
}

/// Reads the `count` (up to six) base address registers from `first` on.
pub fn read_registers<C: ConfigSpace + ?Sized>(
    cfg: &C,
    at: Sbdf,
    first: u16,
    count: u8,
) -> [Register; MAX_BARS] {
    let mut registers = [Register::Zero; MAX_BARS];
    let mut upper_half_next = false;
    for (index, register) in (0..count).zip(registers.iter_mut()) {
        if upper_half_next {
            upper_half_next = false;
            *register = Register::UpperHalf;
            continue;
        }
        *register = read_one(cfg, at, first, index, count);
        upper_half_next = matches!(
            register,
            Register::Region {
                space: Space::Memory64 { .. },
                ..
            }
        );
    }
    registers
}

fn read_one<C: ConfigSpace + ?Sized>(
    cfg: &C,
    at: Sbdf,
    first: u16,
    index: u8,
    count: u8,
) -> Register {
    let offset = first + 4 * u16::from(index);
    let word = cfg.read32(at, offset);
    if word == 0 {
        return Register::Zero;
    }
    if word == u32::MAX {
        return Register::Faulty(BarError::AllOnes { index });
    }
    if word & IO_SPACE != 0 {
        return Register::Region {
            space: Space::Io,
            address: u64::from(word & IO_ADDRESS),
        };
    }
    let prefetchable = word & MEMORY_PREFETCHABLE != 0;
    let low = u64::from(word & MEMORY_ADDRESS);
    match word & MEMORY_TYPE {
        0 => Register::Region {
            space: Space::Memory32 { prefetchable },
            address: low,
        },
        MEMORY_TYPE_64 if index + 1 >= count => {
            Register::Faulty(BarError::UpperHalfMissing { index })
        }
        MEMORY_TYPE_64 => Register::Region {
            space: Space::Memory64 { prefetchable },
            address: u64::from(cfg.read32(at, offset + 4)) << 32 | low,
        },
        kind => Register::Faulty(BarError::ReservedType {
            index,
            kind: (kind >> 1) as u8,
        }),
    }
}

/// What the expansion ROM register holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RomRegister {
    /// First address, 0 where it is not placed.
    pub address: u64,
    /// The ROM answers (if memory decoding is on).
    pub enabled: bool,
}

/// Reads the expansion ROM register; `None` where the layout has none, or it reads zero or all ones.
pub fn read_rom<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf, layout: Layout) -> Option<RomRegister> {
    let word = cfg.read32(at, layout.rom_register()?);
    (word != 0 && word != u32::MAX).then_some(RomRegister {
        address: u64::from(word & ROM_ADDRESS),
        enabled: word & ROM_ENABLE != 0,
    })
}
