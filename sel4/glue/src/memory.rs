//! Memory that devices read and write: [`TablePages`] for an IOMMU's tables, [`SharedMemory`] for DMA
//! buffers. Every access is volatile and in program order, which x86 keeps towards devices.

use hw::Mmio;

use crate::MmioRegion;

/// Bytes of a page of tables.
const PAGE: usize = 4096;
/// Bytes of a cache line on every x86_64 processor so far (Intel SDM volume 2A, CLFLUSH).
const CACHE_LINE: usize = 64;

/// Table memory of an iommu-server shard: pages of 512 words, physically contiguous, mapped cached.
#[derive(Clone, Copy, Debug)]
pub struct TablePages {
    region: MmioRegion,
    physical: u64,
}

impl TablePages {
    /// Tables in `region`, whose first byte has the address `physical` on the bus.
    pub(crate) const fn new(region: MmioRegion, physical: u64) -> Self {
        Self { region, physical }
    }

    /// How many pages there are.
    #[must_use]
    pub fn pages(&self) -> u32 {
        (self.region.len() / PAGE) as u32
    }

    /// Physical address of page `page`.
    #[must_use]
    pub const fn phys(&self, page: u32) -> u64 {
        self.physical.wrapping_add(page as u64 * PAGE as u64)
    }

    /// The page with this physical address; `None` when it is none of these.
    #[must_use]
    pub fn page_at(&self, physical: u64) -> Option<u32> {
        let page = physical.checked_sub(self.physical)? / PAGE as u64;
        u32::try_from(page).ok().filter(|page| *page < self.pages())
    }

    /// Word `index` (0..=511) of page `page`; 0 outside.
    #[inline]
    #[must_use]
    pub fn read64(&self, page: u32, index: u16) -> u64 {
        offset(page, index).map_or(0, |offset| self.region.read(offset, 0))
    }

    /// Writes word `index` of page `page`; nothing outside.
    #[inline]
    pub fn write64(&mut self, page: u32, index: u16, value: u64) {
        if let Some(offset) = offset(page, index) {
            self.region.write(offset, value);
        }
    }

    /// Writes back the cache lines of `count` words from `index` on, within the page, for a unit that does not snoop
    /// (VT-d: ECAP.C clear), and waits until that is done.
    pub fn flush(&mut self, page: u32, index: u16, count: u16) {
        let Some(start) = offset(page, index) else {
            return;
        };
        // `offset` has checked that the index is one of a page.
        let words = usize::from(count).min(512 - usize::from(index & 511));
        let end = start + words * 8;
        if words == 0 || end > self.region.len() {
            return;
        }
        let mut line = start & !(CACHE_LINE - 1);
        while line < end {
            let at = self.region.address().wrapping_add(line);
            // SAFETY: the line is in the mapped region; flushing changes no contents.
            unsafe { core::arch::x86_64::_mm_clflush(core::ptr::with_exposed_provenance(at)) };
            line = line.wrapping_add(CACHE_LINE);
        }
        // SAFETY: SSE2 is part of x86_64. CLFLUSH is ordered by MFENCE (Intel SDM volume 3A, 8.2.5).
        unsafe { core::arch::x86_64::_mm_mfence() };
    }
}

/// Offset of a word, when `index` is one of a page.
#[inline]
fn offset(page: u32, index: u16) -> Option<usize> {
    (index < 512).then(|| page as usize * PAGE + usize::from(index) * 8)
}

/// Mapped frames that a device shares with this PD. Copies name the same memory.
#[derive(Clone, Copy, Debug)]
pub struct SharedMemory {
    region: MmioRegion,
}

impl SharedMemory {
    /// The memory in `region`.
    #[must_use]
    pub const fn new(region: MmioRegion) -> Self {
        Self { region }
    }

    /// Registers-like access to the same memory, for rings that need aligned words.
    #[must_use]
    pub const fn words(&self) -> MmioRegion {
        self.region
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Address of the first byte in this PD.
    #[must_use]
    pub fn address(&self) -> usize {
        self.region.address()
    }

    fn holds(&self, offset: usize, bytes: usize) -> bool {
        offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.region.len())
    }

    /// Copies out of the memory, from `offset` bytes on. `false` when that passes the end: then `into` becomes zeros.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        if !self.holds(offset, into.len()) {
            into.fill(0);
            return false;
        }
        let (head, middle) = into.split_at_mut(
            offset
                .next_multiple_of(8)
                .wrapping_sub(offset)
                .min(into.len()),
        );
        let mut at = offset;
        for byte in head {
            *byte = self.region.read(at, 0);
            at += 1;
        }
        let mut words = middle.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.region.read(at, 0u64).to_le_bytes());
            at += 8;
        }
        for byte in words.into_remainder() {
            *byte = self.region.read(at, 0);
            at += 1;
        }
        true
    }

    /// Copies into the memory, from `offset` bytes on. `false` when that passes the end: then nothing is written.
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        if !self.holds(offset, from.len()) {
            return false;
        }
        let (head, middle) = from.split_at(
            offset
                .next_multiple_of(8)
                .wrapping_sub(offset)
                .min(from.len()),
        );
        let mut at = offset;
        for byte in head {
            self.region.write(at, *byte);
            at += 1;
        }
        let (words, tail) = middle.as_chunks::<8>();
        for word in words {
            self.region.write(at, u64::from_le_bytes(*word));
            at += 8;
        }
        for byte in tail {
            self.region.write(at, *byte);
            at += 1;
        }
        true
    }
}
