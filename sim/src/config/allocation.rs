//! Regions that are not plain BARs: resizable ones, whose register changes its
//! size when software says so (PCIe 5.0, 7.8.6), and fixed ones in Enhanced
//! Allocation (7.8.5).

use super::endpoint::Endpoint;
use super::space::Space;

/// A BAR that can be resized, in the registers of its function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resizable {
    /// Control register.
    control: u16,
    /// BAR register.
    bar: u16,
    /// Bit n: 1 MiB times two to the power of n.
    sizes: u64,
}

/// An entry of Enhanced Allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedShape {
    /// BAR Equivalent Indicator: 0 to 5 for a BAR, 8 for the expansion ROM.
    pub stands_for: u8,
    /// Primary properties: 0 memory, 1 prefetchable memory, 2 ports.
    pub property: u8,
    /// First address, a multiple of four. Beyond 32 bits the entry has upper halves.
    pub address: u64,
    /// Bytes, a multiple of four.
    pub size: u64,
}

impl Endpoint {
    /// Appends a capability that makes BAR `index`, which must be there, resizable: `sizes` has bit
    /// n for 1 MiB times two to the power of n; it has the size `current` now.
    #[must_use]
    pub fn resizable(mut self, index: u8, sizes: u64, current: u8) -> Self {
        assert!(index < 6, "BARs are 0 to 5, not {index}");
        assert!(
            sizes >> current & 1 != 0,
            "size {current} is none of {sizes:#x}"
        );
        let capability = (sizes as u32) << 4;
        // One BAR; sizes from 2^28 MiB on are in the control register.
        let control = u32::from(index) | 1 << 5 | u32::from(current) << 8;
        let control = control | ((sizes >> 28) as u32) << 16;
        let mut body = capability.to_le_bytes().to_vec();
        body.extend(control.to_le_bytes());
        self = self.extended(0x15, 1, &body);
        let at = self.last_extended.unwrap_or(0);
        self.space.allow(at + 9, &[0x3f]);
        self.space.resizable.push(Resizable {
            control: at + 8,
            bar: 0x10 + 4 * u16::from(index),
            sizes,
        });
        self.space.resize();
        self
    }

    /// Appends Enhanced Allocation with these entries.
    #[must_use]
    pub fn fixed(self, entries: &[FixedShape]) -> Self {
        let mut body = vec![entries.len() as u8, 0];
        for entry in entries {
            let last = entry.size - 1;
            let wide = entry.address >> 32 != 0 || last >> 32 != 0;
            let words: u32 = if wide { 4 } else { 2 };
            let first = 1u32 << 31 | u32::from(entry.property) << 8;
            let first = first | 0xff << 16 | u32::from(entry.stands_for) << 4 | words;
            let mark = if wide { 2 } else { 0 };
            body.extend(first.to_le_bytes());
            body.extend((entry.address as u32 & !3 | mark).to_le_bytes());
            body.extend((last as u32 & !3 | mark).to_le_bytes());
            if wide {
                body.extend(((entry.address >> 32) as u32).to_le_bytes());
                body.extend(((last >> 32) as u32).to_le_bytes());
            }
        }
        self.capability(0x14, &body, &[])
    }
}

impl Space {
    /// Gives each resizable BAR the size that its control register has; one that it cannot have
    /// changes nothing.
    pub(super) fn resize(&mut self) {
        for Resizable {
            control,
            bar,
            sizes,
        } in self.resizable.clone()
        {
            let byte = |at: u16| self.bytes().get(usize::from(at)).copied().unwrap_or(0);
            let log2 = byte(control + 1) & 0x3f;
            if log2 > 43 || sizes >> log2 & 1 == 0 {
                continue;
            }
            let mask = !((1u64 << (20 + log2)) - 1);
            let is_wide = byte(bar) & 0x6 == 0x4;
            self.narrow(bar, mask as u32 & !0xf, 0xf);
            if is_wide {
                self.narrow(bar + 4, (mask >> 32) as u32, 0);
            }
        }
    }

    /// Lets the bits of `mask` be written; of the others `fixed` stay and the rest are zero.
    fn narrow(&mut self, at: u16, mask: u32, fixed: u32) {
        let start = usize::from(at);
        let old = self.bytes().get(start..start + 4);
        let old = old.and_then(|bytes| bytes.try_into().ok());
        let old = u32::from_le_bytes(old.unwrap_or([0; 4]));
        self.allow(at, &mask.to_le_bytes());
        self.poke(at, &(old & (mask | fixed)).to_le_bytes());
    }
}
