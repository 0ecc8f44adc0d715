//! Address spaces: frames, page tables, address space identifiers.

use sel4_sys::constants::label;
use sel4_sys::invocation::invoke;
use sel4_sys::{Word, abi};

use crate::error::{done, first};
use crate::{
    AsidControl, AsidPool, Error, Frame, IoSpace, PageDirectory, PageTable, Pdpt, Result, Rights,
    Slot, Untyped, VSpace,
};

/// How the processor caches a mapping (`seL4_X86_VMAttributes`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Caching {
    /// Ordinary memory.
    #[default]
    WriteBack = 0,
    /// Reads cached, writes go through.
    WriteThrough = 1,
    /// Uncached unless a range register says otherwise (UC-).
    Disabled = 2,
    /// Uncached (UC): device registers.
    Uncacheable = 3,
    /// Writes collected: frame buffers.
    WriteCombining = 4,
}

impl Frame {
    /// `X86_Page_Map`: maps at `address` in `vspace`. A frame capability has one mapping at a time.
    ///
    /// Only unmapping makes the processors forget a translation. So other rights or another caching for a mapping
    /// take [`Frame::unmap`] first: mapping again in place, which kernels allow in different ways, leaves the old
    /// rights in force on any core that used them (`performX86PageInvocationMapPTE` and, in 5.0.0,
    /// `..RemapPTE` of `src/arch/x86/kernel/vspace.c` flush page tables only).
    ///
    /// # Errors
    /// `FailedLookup` if a page table is missing (map one and try again), `AlignmentError`,
    /// `InvalidCapability` if the frame is mapped in another address space or the VSpace has no ASID,
    /// `InvalidArgument` if it is mapped elsewhere in this one or the address is not the user's. An address
    /// that is occupied is no error to rely on: 5.0.0 answers `DeleteFirst`, later kernels replace what is
    /// there without a word. Who maps keeps count itself.
    #[inline]
    pub fn map(self, vspace: VSpace, address: Word, rights: Rights, caching: Caching) -> Result {
        let args = [address, rights.word(), caching as Word];
        done(invoke(
            self.cptr(),
            label::X86_PAGE_MAP,
            args,
            [vspace.cptr()],
        ))
    }

    /// `X86_Page_Unmap`, from a VSpace or an IOSpace. A frame that is not mapped is no error.
    ///
    /// # Errors
    /// Only for a capability of another kind.
    #[inline]
    pub fn unmap(self) -> Result {
        done(abi::unmap_page(self.cptr()))
    }

    /// `X86_Page_MapIO`: maps at `address` for the DMA of the requester that `space` stands for.
    ///
    /// # Errors
    /// `FailedLookup` if an IOMMU page table is missing, `DeleteFirst` if the address is occupied,
    /// `InvalidCapability` if the frame is mapped or not 4 KiB; `Unsupported` if the kernel has no IOMMU driver.
    #[inline]
    pub fn map_io(self, space: IoSpace, rights: Rights, address: Word) -> Result {
        let label = abi::X86_PAGE_MAP_IO.ok_or(Error::Unsupported)?;
        done(invoke(
            self.cptr(),
            label,
            [rights.word(), address],
            [space.cptr()],
        ))
    }

    /// `X86_Page_GetAddress`: the physical address.
    ///
    /// # Errors
    /// Only for a capability of another kind.
    #[inline]
    pub fn get_address(self) -> Result<Word> {
        first(invoke(self.cptr(), label::X86_PAGE_GET_ADDRESS, [], []))
    }
}

macro_rules! table {
    ($name:ident, $map:ident, $unmap:ident, $method:literal) => {
        impl $name {
            #[doc = concat!("`", $method, "_Map`: maps the table at the part of `vspace` that `address` is in.")]
            ///
            /// # Errors
            /// `DeleteFirst` if there is one, `FailedLookup` if the level above is missing,
            /// `InvalidCapability` if this one is mapped or the VSpace has no ASID.
            #[inline]
            pub fn map(self, vspace: VSpace, address: Word) -> Result {
                let args = [address, Caching::WriteBack as Word];
                done(invoke(self.cptr(), label::$map, args, [vspace.cptr()]))
            }

            #[doc = concat!("`", $method, "_Unmap`.")]
            ///
            /// # Errors
            /// `RevokeFirst` if there are copies of the capability.
            #[inline]
            pub fn unmap(self) -> Result {
                done(invoke(self.cptr(), label::$unmap, [], []))
            }
        }
    };
}

table!(Pdpt, X86_PDPT_MAP, X86_PDPT_UNMAP, "X86_PDPT");
table!(
    PageDirectory,
    X86_PAGE_DIRECTORY_MAP,
    X86_PAGE_DIRECTORY_UNMAP,
    "X86_PageDirectory"
);
table!(
    PageTable,
    X86_PAGE_TABLE_MAP,
    X86_PAGE_TABLE_UNMAP,
    "X86_PageTable"
);

impl AsidPool {
    /// `X86_ASIDPool_Assign`: gives a new VSpace its identifier, without which nothing can be mapped in it.
    ///
    /// # Errors
    /// `DeleteFirst` if the pool is used up, `InvalidCapability` if the VSpace has one.
    #[inline]
    pub fn assign(self, vspace: VSpace) -> Result {
        done(invoke(
            self.cptr(),
            label::X86_ASID_POOL_ASSIGN,
            [],
            [vspace.cptr()],
        ))
    }
}

impl AsidControl {
    /// `X86_ASIDControl_MakePool`: makes a pool of a 4 KiB untyped without children.
    ///
    /// # Errors
    /// `DeleteFirst` if the slot is occupied or there are no identifiers left, `RevokeFirst` for children.
    #[inline]
    pub fn make_pool(self, untyped: Untyped, dest: Slot) -> Result {
        let args = [dest.index, dest.depth.into()];
        let caps = [untyped.cptr(), dest.root.cptr()];
        done(invoke(
            self.cptr(),
            label::X86_ASID_CONTROL_MAKE_POOL,
            args,
            caps,
        ))
    }
}
