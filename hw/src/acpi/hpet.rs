//! HPET: where the high precision event timer is, [`Hpet`] (IA-PC HPET 1.0a, 3.2.4).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{Rule, Signature, Table, TableError};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHpet {
    block_id: U32,
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access: u8,
    address: U64,
    number: u8,
    minimum_tick: U16,
    attributes: u8,
}

/// The HPET table: one block of timers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hpet {
    /// Physical address of its registers.
    pub address: u64,
    /// Number of the block, from 0.
    pub number: u8,
    /// Comparators that the block has, 1 to 32.
    pub comparators: u8,
}

impl Hpet {
    /// Reads the table at the start of `bytes`.
    ///
    /// # Errors
    /// It is another table, not whole, or its registers are not in memory.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::HPET)?;
        let raw = table.structure::<RawHpet>(36)?;
        let bad = |offset, field, value| TableError {
            table: Signature::HPET,
            offset,
            rule: Rule::BadValue { field, value },
        };
        if raw.space != 0 {
            return Err(bad(40, "address space", u64::from(raw.space)));
        }
        let address = raw.address.get();
        if address == 0 {
            return Err(bad(44, "base address", address));
        }
        Ok(Self {
            address,
            number: raw.number,
            comparators: (raw.block_id.get() >> 8 & 0x1f) as u8 + 1,
        })
    }
}
