//! MSI-X capability: [`Msix`], where its table and pending bits are, and which
//! pages of a BAR they take, [`PageRange`] (PCIe 5.0, 7.7.2).
//!
//! The pages that hold the table decide where a device's writes go as
//! interrupts: they are withheld from clients. Layout of a table entry: [`crate::msi::entry`].

use heapless::Vec;
use thiserror::Error;

use super::{Capability, CapabilityError, check_extent, id};
use crate::msi::entry;
use crate::{Bar, Bars, ConfigSpace, Sbdf};

/// A structure of MSI-X in a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InBar {
    /// Which BAR, 0 to 5.
    pub bar: u8,
    /// Bytes from the BAR's start, a multiple of eight.
    pub offset: u32,
}

/// MSI-X of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Msix {
    /// Where the capability starts.
    pub offset: u8,
    /// Entries of the table, 1 to 2048.
    pub entries: u16,
    /// The vector table.
    pub table: InBar,
    /// The pending bits.
    pub pending: InBar,
    /// Whether it was enabled at the time of reading.
    pub enabled: bool,
    /// Whether every vector was masked at the time of reading.
    pub masked: bool,
}

/// Why the table or the pending bits are not where the capability says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum MsixError {
    /// It names a BAR that does not work, or is the upper half of another.
    #[error("MSI-X {what} is in BAR {bar}, which the function does not have")]
    NoSuchBar {
        /// `"table"` or `"pending bits"`.
        what: &'static str,
        /// The BAR named.
        bar: u8,
    },
    /// It names a BAR of IO ports.
    #[error("MSI-X {what} is in BAR {bar}, which is not memory")]
    NotMemory {
        /// `"table"` or `"pending bits"`.
        what: &'static str,
        /// The BAR named.
        bar: u8,
    },
    /// It passes the end of its BAR.
    #[error("MSI-X {what} ends at {end:#x} of BAR {bar}, which has {size:#x} bytes")]
    BeyondBar {
        /// `"table"` or `"pending bits"`.
        what: &'static str,
        /// The BAR named.
        bar: u8,
        /// One past its last byte, from the BAR's start.
        end: u64,
        /// Bytes in the BAR.
        size: u64,
    },
}

/// Pages of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageRange {
    /// Which BAR, 0 to 5.
    pub bar: u8,
    /// First page, counted from the BAR's start.
    pub first: u64,
    /// How many pages, at least one.
    pub count: u64,
}

impl PageRange {
    /// Bytes in a page.
    pub const PAGE_BYTES: u64 = 4096;

    /// Whether `page` of BAR `bar` is one of these.
    #[must_use]
    pub const fn contains(&self, bar: u8, page: u64) -> bool {
        self.bar == bar && page >= self.first && page - self.first < self.count
    }
}

impl Msix {
    const BYTES: u16 = 12;
    /// Message control: the function sends MSI-X messages instead of INTx.
    pub const ENABLE: u16 = 1 << 15;
    /// Message control: every vector of the function is masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;

    /// Message control, 16 bits; bits 10:0 (table size) are read only.
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset as u16 + 2
    }

    /// Bytes that the table takes.
    #[must_use]
    pub const fn table_bytes(&self) -> u64 {
        self.entries as u64 * entry::BYTES as u64
    }

    /// Bytes that the pending bits take: one bit an entry, in words of 64.
    #[must_use]
    pub const fn pending_bytes(&self) -> u64 {
        (self.entries as u64).div_ceil(64) * 8
    }

    /// Offset of entry `index` from the start of the table's BAR; `None` beyond the table.
    #[must_use]
    pub fn entry_offset(&self, index: u16) -> Option<u64> {
        (index < self.entries)
            .then(|| u64::from(self.table.offset) + u64::from(index) * entry::BYTES as u64)
    }

    /// Pages of the function's BARs that hold the table or the pending bits: one or two ranges,
    /// which may overlap in a page.
    ///
    /// # Errors
    /// Table or pending bits are not inside a memory BAR of the function.
    pub fn withheld_pages(&self, bars: &Bars) -> Result<Vec<PageRange, 2>, MsixError> {
        let table = pages("table", self.table, self.table_bytes(), bars)?;
        let pending = pages("pending bits", self.pending, self.pending_bytes(), bars)?;
        let mut ranges = Vec::new();
        // Two pushes into two places.
        let _ = ranges.push(table);
        if pending != table {
            let _ = ranges.push(pending);
        }
        Ok(ranges)
    }
}

fn pages(
    what: &'static str,
    place: InBar,
    bytes: u64,
    bars: &Bars,
) -> Result<PageRange, MsixError> {
    let bar = place.bar;
    let &Bar { space, size, .. } = bars.get(bar).ok_or(MsixError::NoSuchBar { what, bar })?;
    if !space.is_memory() {
        return Err(MsixError::NotMemory { what, bar });
    }
    // Below 2^32 plus at most 32 KiB.
    let start = u64::from(place.offset);
    let end = start + bytes;
    if end > size {
        return Err(MsixError::BeyondBar {
            what,
            bar,
            end,
            size,
        });
    }
    let first = start / PageRange::PAGE_BYTES;
    Ok(PageRange {
        bar,
        first,
        count: end.div_ceil(PageRange::PAGE_BYTES) - first,
    })
}

impl Capability for Msix {
    const ID: u8 = id::MSIX;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::BYTES)?;
        let base = u16::from(offset);
        let control = cfg.read16(at, base + 2);
        let in_bar = |register: u16, field: &'static str| {
            let word = cfg.read32(at, register);
            let bar = (word & 7) as u8;
            if bar > 5 {
                return Err(CapabilityError::Reserved {
                    id: u16::from(Self::ID),
                    offset: base,
                    field,
                    value: u32::from(bar),
                });
            }
            Ok(InBar {
                bar,
                offset: word & !7,
            })
        };
        Ok(Self {
            offset,
            entries: (control & 0x7ff) + 1,
            table: in_bar(base + 4, "table BIR")?,
            pending: in_bar(base + 8, "PBA BIR")?,
            enabled: control & Self::ENABLE != 0,
            masked: control & Self::FUNCTION_MASK != 0,
        })
    }
}
