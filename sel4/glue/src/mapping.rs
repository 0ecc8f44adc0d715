//! [`AddressSpace`]: the two ranges of a PD's address space where it maps frames itself
//! (`system::layout::va::{SMALL, LARGE}`), in any PD whose page tables are there.

use ipc_proto::{Refusal, Rule};
use sel4::{CPtr, Caching, Frame, FrameSize, Rights, VSpace};
use system::layout::{slot, va};
use system::pool::NumberPool;

use crate::{MmioRegion, refused};

/// Pages of 4 KiB in `va::SMALL`.
const SMALL_PAGES: u32 = (va::SMALL_BYTES >> 12) as u32;
/// Pages of 2 MiB in `va::LARGE`.
const LARGE_PAGES: u32 = (va::LARGE_BYTES >> 21) as u32;

/// Which addresses of the two ranges are in use. One a PD: [`crate::Pd::address_space`].
#[derive(Debug)]
pub struct AddressSpace {
    small: NumberPool<{ SMALL_PAGES as usize / 64 }>,
    large: NumberPool<{ LARGE_PAGES as usize / 64 }>,
}

impl AddressSpace {
    /// All free.
    pub(crate) const fn new() -> Self {
        const SMALL: NumberPool<{ SMALL_PAGES as usize / 64 }> =
            match NumberPool::new(0, SMALL_PAGES) {
                Some(pool) => pool,
                None => NumberPool::empty(),
            };
        const LARGE: NumberPool<{ LARGE_PAGES as usize / 64 }> =
            match NumberPool::new(0, LARGE_PAGES) {
                Some(pool) => pool,
                None => NumberPool::empty(),
            };
        Self {
            small: SMALL,
            large: LARGE,
        }
    }

    /// Maps the `pages` frames whose capabilities are at `first`, `first` + 1, ... in a row, readable and writable.
    ///
    /// # Errors
    /// `SlotsExhausted` when the address range is used up, `KernelRefused`; nothing stays mapped then.
    pub fn map(
        &mut self,
        first: CPtr,
        pages: u16,
        size: FrameSize,
        caching: Caching,
    ) -> Result<MmioRegion, Refusal> {
        let start = self
            .take(size, pages)
            .ok_or(Refusal::new(Rule::SlotsExhausted, pages.into()))?;
        for page in 0..u64::from(pages) {
            let address = start + page * size.bytes();
            let mapped = Frame::at(first + page).map(
                VSpace::at(slot::VSPACE),
                address,
                Rights::READ_WRITE,
                caching,
            );
            if let Err(error) = mapped {
                unmap_frames(first, page);
                self.give(size, start, pages);
                return Err(refused(error));
            }
        }
        // SAFETY: page-aligned, and only mappings of this type lie in the two ranges of `va`, at addresses taken
        // from the pools and not given back before they are unmapped.
        Ok(unsafe { MmioRegion::new(start, usize::from(pages) * size.bytes() as usize) })
    }

    /// Takes such a mapping away. Frames that were revoked are unmapped already, which is no error. `region` and
    /// its copies must not be used after that: an access is a page fault, or reaches what is mapped there next.
    pub fn unmap(&mut self, region: &MmioRegion, first: CPtr, pages: u16, size: FrameSize) {
        unmap_frames(first, pages.into());
        self.forget(region, pages, size);
    }

    /// Takes the addresses of such a mapping back, of which every frame was revoked, or [unmapped](Self::unmap): the
    /// kernel unmaps a frame with its capability. Where one is there still, mapping anything else at its address is
    /// refused.
    pub fn forget(&mut self, region: &MmioRegion, pages: u16, size: FrameSize) {
        self.give(size, region.address() as u64, pages);
    }

    /// Takes addresses for `pages` pages; the address of the first.
    fn take(&mut self, size: FrameSize, pages: u16) -> Option<u64> {
        let count = pages.into();
        match size {
            FrameSize::Small => self
                .small
                .take_run(count, 1)
                .map(|page| va::SMALL + u64::from(page) * size.bytes()),
            FrameSize::Large => self
                .large
                .take_run(count, 1)
                .map(|page| va::LARGE + u64::from(page) * size.bytes()),
            FrameSize::Huge => None,
        }
    }

    /// Gives such addresses back.
    fn give(&mut self, size: FrameSize, address: u64, pages: u16) {
        let page =
            |start| u32::try_from(address.wrapping_sub(start) >> size.bits()).unwrap_or(u32::MAX);
        // An address that was never taken is told by `false`, and nothing changes.
        let _ = match size {
            FrameSize::Small => self.small.give_run(page(va::SMALL), pages.into()),
            FrameSize::Large => self.large.give_run(page(va::LARGE), pages.into()),
            FrameSize::Huge => false,
        };
    }
}

/// Unmaps frames. A capability that is gone was unmapped when it went.
fn unmap_frames(first: CPtr, pages: u64) {
    for page in 0..pages {
        let _ = Frame::at(first + page).unmap();
    }
}
