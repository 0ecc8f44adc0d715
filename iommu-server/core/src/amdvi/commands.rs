//! [`Commands`]: a unit's command buffer (2.4), 256 commands of two words in one
//! page, used synchronously: a batch is written, the tail moved, and the last
//! command makes the unit write a number that is waited for.

use hw::Mmio;

use super::unit::Register;
use crate::TableMemory;
use crate::tables::{Page, Tables};

/// Commands in the buffer.
const ENTRIES: u16 = 256;
/// Most reads of the status word for one batch.
pub const STATUS_POLLS: u32 = if cfg!(test) { 10_000 } else { 1_000_000 };

/// What a unit is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Forget a device's entry (2.4.2).
    Device(u16),
    /// Forget a domain's translations of a range, pointers to tables too (2.4.3).
    Pages {
        /// Domain id.
        domain: u16,
        /// First byte.
        iova: u64,
        /// Bytes; `u64::MAX`: all.
        bytes: u64,
    },
    /// Forget a device's interrupt entries (2.4.5).
    Interrupts(u16),
    /// Forget everything (2.4.8).
    Everything,
    /// What follows starts when what precedes is done (2.4.1).
    Fence,
}

const COMPLETION_WAIT: u64 = 1 << 60;
const STORE: u64 = 1;
const FLUSH: u64 = 1 << 2;

/// A unit's buffer.
pub struct Commands {
    page: Page,
    /// Page and word in which completions are stored.
    status: (Page, u16),
    tail: u16,
    sequence: u64,
}

impl Commands {
    /// A buffer in `page`, whose completions are stored in word 0 of `status`.
    pub fn new(page: Page, status: Page) -> Self {
        Self {
            page,
            status: (status, 0),
            tail: 0,
            sequence: 0,
        }
    }

    /// Goes on after command `tail - 1`, which an earlier life of the shard has written last and the unit has fetched.
    pub fn go_on<T: TableMemory>(&mut self, tables: &Tables<'_, T>, tail: u16) {
        self.tail = tail % ENTRIES;
        let last = self.tail.wrapping_add(ENTRIES - 1) % ENTRIES;
        self.sequence = if tables.get(self.page, last * 2) >> 60 == COMPLETION_WAIT >> 60 {
            tables.get(self.page, last * 2 + 1)
        } else {
            tables.get(self.status.0, self.status.1)
        };
    }

    /// Its page.
    pub fn page(&self) -> Page {
        self.page
    }

    /// Has the unit carry out a batch, and waits until it says so. `false`: it did not in time.
    #[must_use]
    pub fn run<M: Mmio, T: TableMemory>(
        &mut self,
        registers: &mut M,
        tables: &mut Tables<'_, T>,
        batch: &[Command],
    ) -> bool {
        for &command in batch {
            let words = self.encode(tables, command);
            self.push(tables, words);
        }
        let last = self.encode(tables, Command::Fence);
        self.push(tables, last);
        registers.write64(Register::CommandTail as usize, u64::from(self.tail) * 16);
        for _ in 0..STATUS_POLLS {
            if tables.get(self.status.0, self.status.1) == self.sequence {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    }

    fn push<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, words: (u64, u64)) {
        let at = self.tail * 2;
        tables.set(self.page, at, words.0);
        tables.set(self.page, at + 1, words.1);
        tables.flush(self.page, at, 2);
        self.tail = (self.tail + 1) % ENTRIES;
    }

    fn encode<T: TableMemory>(&mut self, tables: &Tables<'_, T>, command: Command) -> (u64, u64) {
        match command {
            Command::Fence => {
                self.sequence = self.sequence.wrapping_add(1);
                let store = tables.physical(self.status.0) + u64::from(self.status.1) * 8;
                (COMPLETION_WAIT | store | STORE | FLUSH, self.sequence)
            }
            Command::Device(requester) => (2 << 60 | u64::from(requester), 0),
            Command::Pages {
                domain,
                iova,
                bytes,
            } => (
                3 << 60 | u64::from(domain) << 32,
                span(iova, bytes) | TABLES_TOO,
            ),
            Command::Interrupts(requester) => (5 << 60 | u64::from(requester), 0),
            Command::Everything => (8 << 60, 0),
        }
    }
}

/// More than one page: how many is in the address.
const SEVERAL: u64 = 1;
/// Pointers to tables are forgotten too.
const TABLES_TOO: u64 = 1 << 1;
/// Every page.
const ALL: u64 = 0x7fff_ffff_ffff_f000 | SEVERAL;

/// Address field for the smallest aligned block of 2^n pages that covers a range: the lowest bit from 12 up that
/// is zero says how many (2.4.3).
fn span(iova: u64, bytes: u64) -> u64 {
    if bytes <= 0x1000 {
        return iova & !0xfff;
    }
    let Some(last) = iova.checked_add(bytes - 1) else {
        return ALL;
    };
    let bits = u64::BITS - (iova ^ last).leading_zeros();
    if bits > 51 {
        return ALL;
    }
    let block = 1u64 << bits;
    iova & !(block - 1) | (block / 2 - 0x1000) | SEVERAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_covers_its_range() {
        assert_eq!(span(0x5000, 0x1000), 0x5000);
        assert_eq!(span(0x4000, 0x2000), 0x4001);
        assert_eq!(span(0x5000, 0x2000), 0x4000 | 0x1000 | 1);
        assert_eq!(span(0x20_0000, 0x20_0000), 0x20_0000 | 0xf_f000 | 1);
        assert_eq!(span(0, u64::MAX), ALL);
    }
}
