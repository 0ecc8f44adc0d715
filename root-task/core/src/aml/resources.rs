//! [`Resources`]: what a host bridge passes on, as a resource template says (`_CRS`; ACPI 6.5, 6.4).

use alloc::vec::Vec;

use hw::BusRange;

use crate::region::Region;

/// Most ranges of a host bridge.
const MAX_RANGES: usize = 64;

/// Resource type of an address space descriptor (6.4.3.5): its fourth byte.
const MEMORY: u8 = 0;
const IO: u8 = 1;
const BUSES: u8 = 2;
/// General flags: for the device itself, not passed on; both ends are fixed.
const CONSUMER: u8 = 1;
const FIXED: u8 = 0b1100;
/// The small descriptor that ends a template (6.4.2.9), without its length.
const END: u8 = 0x0f;

/// Ranges that a host bridge passes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// Memory, at the same addresses on both sides.
    pub memory: Vec<Region>,
    /// I/O ports: first and last.
    pub io: Vec<(u16, u16)>,
    /// Its buses, if they are said.
    pub buses: Option<BusRange>,
}

impl Resources {
    /// Reads a template. `None`: it ends too early, has a range that is not fixed, one that has other addresses
    /// behind the bridge, or too many. What is not an address space is passed over.
    #[must_use]
    pub fn read(template: &[u8]) -> Option<Self> {
        let mut resources = Self::default();
        let mut rest = template;
        loop {
            let (&tag, after) = rest.split_first()?;
            if tag & 0x80 == 0 {
                if tag >> 3 == END {
                    return Some(resources);
                }
                rest = after.get(usize::from(tag & 7)..)?;
                continue;
            }
            let (length, after) = after.split_first_chunk()?;
            let (body, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = after;
            // Bytes of an address, and of what is before the first one.
            let (bytes, start) = match tag & 0x7f {
                0x07 => (4, 3),
                0x08 => (2, 3),
                0x0a => (8, 3),
                // Extended: a revision and a reserved byte as well.
                0x0b => (8, 5),
                _ => continue,
            };
            resources.take(body, bytes, start)?;
        }
    }

    /// Does it say anything of addresses that are passed on?
    #[must_use]
    pub const fn says_something(&self) -> bool {
        !self.memory.is_empty() || !self.io.is_empty() || self.buses.is_some()
    }

    fn take(&mut self, body: &[u8], bytes: usize, start: usize) -> Option<()> {
        let [kind, flags, ..] = *body else {
            return None;
        };
        if flags & CONSUMER != 0 || !matches!(kind, MEMORY | IO | BUSES) {
            return Some(());
        }
        // Granularity, minimum, maximum, translation, length.
        let number = |place: usize| {
            let at = start + place * bytes;
            let little = body.get(at..at + bytes)?.iter().rev();
            Some(little.fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
        };
        let (first, last, translation, length) = (number(1)?, number(2)?, number(3)?, number(4)?);
        if length == 0 {
            return Some(());
        }
        if flags & FIXED != FIXED || translation != 0 || first.checked_add(length - 1)? != last {
            return None;
        }
        if self.memory.len() + self.io.len() >= MAX_RANGES {
            return None;
        }
        match kind {
            MEMORY => self.memory.push(Region::new(first, last.checked_add(1)?)?),
            IO => self
                .io
                .push((u16::try_from(first).ok()?, u16::try_from(last).ok()?)),
            _ => {
                let ends = u8::try_from(first).ok().zip(u8::try_from(last).ok());
                let buses = ends.and_then(|(first, last)| BusRange::new(first, last))?;
                self.buses.get_or_insert(buses);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// An address space descriptor of four-byte numbers.
    fn range(kind: u8, flags: u8, numbers: [u32; 5]) -> Vec<u8> {
        let mut bytes = vec![0x87, 23, 0, kind, flags, 0];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    const MEMORY_AT_2G: [u32; 5] = [0, 0x8000_0000, 0x8fff_ffff, 0, 0x1000_0000];
    const ENDED: [u8; 2] = [0x79, 0];

    #[test]
    fn a_template_that_ends_anywhere_says_nothing() {
        let whole = [range(0, 0xc, MEMORY_AT_2G), ENDED.to_vec()].concat();
        let memory = vec![Region::new(0x8000_0000, 0x9000_0000).unwrap()];
        assert_eq!(Resources::read(&whole).unwrap().memory, memory);
        // The last byte is a checksum, which firmware leaves 0.
        for end in 0..whole.len() - 1 {
            assert_eq!(Resources::read(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_say_nothing() {
        for (kind, numbers) in [
            (0, [0, 0x8000_0000, 0x8fff_ffff, 0, 0x2000_0000]),
            (0, [0, 0x9000_0000, 0x8fff_ffff, 0, 0x1000]),
            (0, [0, u32::MAX, u32::MAX, 0, u32::MAX]),
            (1, [0, 0xff00, 0x100ff, 0, 0x1200]),
            (2, [0, 0x80, 0x180, 0, 0x101]),
        ] {
            let template = [range(kind, 0xc, numbers), ENDED.to_vec()].concat();
            assert_eq!(Resources::read(&template), None, "{kind} {numbers:x?}");
        }
        // Too short for its own numbers.
        assert_eq!(Resources::read(&[0x8a, 4, 0, 0, 0xc, 0, 0, 0x79, 0]), None);
        // More ranges than any bridge has.
        let many = range(0, 0xc, MEMORY_AT_2G).repeat(MAX_RANGES + 1);
        assert_eq!(Resources::read(&[many, ENDED.to_vec()].concat()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Resources::read(&bytes);
        }

        #[test]
        fn any_wrong_byte_ends(at in 0usize..28, byte in any::<u8>()) {
            let mut template = [range(0, 0xc, MEMORY_AT_2G), ENDED.to_vec()].concat();
            template[at] = byte;
            if let Some(resources) = Resources::read(&template) {
                prop_assert!(resources.memory.len() <= 1);
            }
        }
    }
}
