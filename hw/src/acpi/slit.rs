//! SLIT: how far proximity domains are from each other, [`Slit`] (ACPI 6.5, 5.2.17).

use zerocopy::little_endian::U64;

use super::table::{Signature, Table, TableError};

/// Bytes before the matrix.
const FIRST: usize = 44;
/// Most domains that are understood.
const MAX_LOCALITIES: u64 = 1024;

/// The SLIT: a square matrix.
#[derive(Clone, Copy, Debug)]
pub struct Slit<'a> {
    localities: usize,
    matrix: &'a [u8],
}

impl<'a> Slit<'a> {
    /// Reads the table at the start of `bytes`. Bytes behind the matrix are ignored: real tables
    /// have been seen whose firmware shrank the matrix and not the table.
    ///
    /// # Errors
    /// It is another table, not whole, or the matrix is not in it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::SLIT)?;
        let count = table.structure::<U64>(36)?.get();
        let bad = || table.from(36).bad("number of localities", count);
        if count > MAX_LOCALITIES {
            return Err(bad());
        }
        // At most 1024, whose square fits.
        let localities = count as usize;
        let matrix = table.from(FIRST).bytes;
        Ok(Self {
            localities,
            matrix: matrix.get(..localities * localities).ok_or_else(bad)?,
        })
    }

    /// Number of domains in the matrix.
    #[must_use]
    pub const fn localities(&self) -> usize {
        self.localities
    }

    /// Distance from one domain to another, in tenths of the distance within a domain; `None` if a
    /// domain is not in the matrix, the value is reserved (below 10), or there is no way (255).
    #[must_use]
    pub fn distance(&self, from: u32, to: u32) -> Option<u8> {
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        if to >= self.localities {
            return None;
        }
        let index = from.checked_mul(self.localities)?.checked_add(to)?;
        let distance = *self.matrix.get(index)?;
        (10..255).contains(&distance).then_some(distance)
    }
}
