//! A whole machine's tables: the input is one of them, or the list itself.

use hw::acpi::{PhysicalMemory, Platform, Rsdp};

use super::{Checked, Input, Outcome, hold};
use crate::mutate::Random;
use crate::tables;

/// Where the list of tables is.
const LIST: u64 = 0x6000_0000;
/// Where the input is.
const TABLE: u64 = 0x7000_0000;

/// Memory with the list at one address, the input at another, and nothing else.
struct Memory<'a> {
    list: &'a [u8],
    table: &'a [u8],
}

impl PhysicalMemory for Memory<'_> {
    fn bytes(&mut self, address: u64, length: usize) -> Option<&[u8]> {
        let (from, bytes) = match address {
            TABLE.. => (address - TABLE, self.table),
            LIST.. => (address - LIST, self.list),
            _ => return None,
        };
        let from = usize::try_from(from).ok()?;
        bytes.get(from..from.checked_add(length)?)
    }
}

impl Outcome {
    pub(super) fn platform(&mut self, input: Input<'_>, random: &mut Random) -> Checked {
        let mut addresses = Vec::new();
        for _ in 0..random.below(4) + 1 {
            let address = match random.below(4) {
                0 => random.any(),
                1 => LIST,
                _ => TABLE,
            };
            addresses.extend(address.to_le_bytes());
        }
        let honest = tables::table(b"XSDT", &addresses);
        let list = match random.below(4) {
            0 => input.bytes,
            _ => &honest,
        };
        let mut memory = Memory {
            list,
            table: input.bytes,
        };
        let Ok(rsdp) = Rsdp::parse(&tables::rsdp(2, 0, LIST)) else {
            return hold(false, || "the root pointer is refused".into());
        };
        match Platform::discover(&mut memory, &rsdp) {
            Ok(_) => {
                self.read += 1;
                Ok(())
            }
            Err(error) => self.error(input, &error),
        }
    }
}
