//! MCFG: where the configuration space of each segment is in memory, [`Mcfg`]
//! (PCI Firmware 3.2, 4.1.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{Rule, Signature, Span, Table, TableError};
use crate::BusRange;
use crate::address::{ECAM_BUS_BYTES, EcamWindow};

/// Bytes before the first allocation: header and eight reserved ones.
const FIRST: usize = 44;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAllocation {
    base: U64,
    segment: U16,
    first: u8,
    last: u8,
    reserved: U32,
}

/// The MCFG table.
#[derive(Clone, Copy, Debug)]
pub struct Mcfg<'a> {
    allocations: Span<'a>,
}

impl<'a> Mcfg<'a> {
    /// Reads the table at the start of `bytes`.
    ///
    /// # Errors
    /// It is another table, not whole, or its length is not that of a list of allocations.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::MCFG)?;
        table.structure::<[u8; FIRST]>(0)?;
        let allocations = table.from(FIRST);
        if allocations.bytes.len() % size_of::<RawAllocation>() != 0 {
            return Err(allocations.error(Rule::BadValue {
                field: "table length",
                value: u64::from(table.header.length),
            }));
        }
        Ok(Self { allocations })
    }

    /// The ECAM windows, each an error if its buses are not in order, its base is not that of a
    /// bus, or it passes the end of the address space.
    pub fn windows(&self) -> impl Iterator<Item = Result<EcamWindow, TableError>> + 'a {
        let list = self.allocations;
        let bytes = size_of::<RawAllocation>();
        list.bytes
            .chunks_exact(bytes)
            .enumerate()
            .map(move |(index, bytes)| {
                window(Span {
                    offset: list.offset + index * bytes.len(),
                    bytes,
                    ..list
                })
            })
    }
}

fn window(span: Span<'_>) -> Result<EcamWindow, TableError> {
    let (raw, _) = span.record::<RawAllocation>()?;
    let bad = |field, value| span.error(Rule::BadValue { field, value });
    let buses = BusRange::new(raw.first, raw.last)
        .ok_or_else(|| bad("end bus number", u64::from(raw.last)))?;
    let base = raw.base.get();
    let window = EcamWindow {
        base,
        segment: raw.segment.get(),
        buses,
    };
    let in_space = window
        .start()
        .is_some_and(|start| start.checked_add(window.len()).is_some());
    if base == 0 || base % ECAM_BUS_BYTES != 0 || !in_space {
        return Err(bad("base address", base));
    }
    Ok(window)
}
