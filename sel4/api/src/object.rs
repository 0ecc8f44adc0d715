//! Kinds of kernel objects, their sizes, and `Untyped_Retype`.

use sel4_sys::constants::{bits, label, object};
use sel4_sys::invocation::invoke;
use sel4_sys::{Word, abi};

use crate::error::done;
use crate::{CNode, Error, Result, Untyped};

/// Objects one retype can make at most.
pub const RETYPE_MAX: u32 = crate::config::RETYPE_FAN_OUT_LIMIT as u32;

/// Size of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum FrameSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl FrameSize {
    /// Log2 of its bytes.
    #[must_use]
    pub const fn bits(self) -> u8 {
        (match self {
            Self::Small => bits::PAGE_4K,
            Self::Large => bits::LARGE_PAGE,
            Self::Huge => bits::HUGE_PAGE,
        }) as u8
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> Word {
        1 << self.bits()
    }
}

/// What an untyped can become.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectType {
    /// A smaller untyped of 2^n bytes, 4..=47.
    Untyped(u8),
    /// A thread.
    Tcb,
    /// An endpoint.
    Endpoint,
    /// A notification.
    Notification,
    /// A CNode of 2^n slots, n at least 1.
    CNode(u8),
    /// A page.
    Frame(FrameSize),
    /// A page table.
    PageTable,
    /// A page directory.
    PageDirectory,
    /// A page directory pointer table.
    Pdpt,
    /// The root of an address space (PML4).
    VSpace,
    /// An IOMMU page table.
    IoPageTable,
}

impl ObjectType {
    /// Log2 of the bytes it takes from the untyped; also its alignment.
    #[must_use]
    pub const fn size_bits(self) -> u8 {
        let size = match self {
            Self::Untyped(size) => return size,
            Self::CNode(slots) => return slots.saturating_add(bits::SLOT as u8),
            Self::Frame(size) => return size.bits(),
            Self::Tcb => bits::TCB,
            Self::Endpoint => bits::ENDPOINT,
            Self::Notification => bits::NOTIFICATION,
            Self::PageTable => bits::PAGE_TABLE,
            Self::PageDirectory => bits::PAGE_DIRECTORY,
            Self::Pdpt => bits::PDPT,
            Self::VSpace => bits::PML4,
            Self::IoPageTable => bits::IO_PAGE_TABLE,
        };
        size as u8
    }

    /// The kernel's number for it; `None` if this kernel has no such object.
    #[must_use]
    pub const fn number(self) -> Option<Word> {
        Some(match self {
            Self::Untyped(_) => object::UNTYPED,
            Self::Tcb => object::TCB,
            Self::Endpoint => object::ENDPOINT,
            Self::Notification => object::NOTIFICATION,
            Self::CNode(_) => object::CNODE,
            Self::Frame(FrameSize::Small) => object::PAGE_4K,
            Self::Frame(FrameSize::Large) => object::LARGE_PAGE,
            Self::Frame(FrameSize::Huge) => return abi::HUGE_PAGE,
            Self::PageTable => object::PAGE_TABLE,
            Self::PageDirectory => object::PAGE_DIRECTORY,
            Self::Pdpt => object::PDPT,
            Self::VSpace => object::PML4,
            Self::IoPageTable => return abi::IO_PAGE_TABLE,
        })
    }

    /// The size argument of retype, which only two kinds have.
    const fn size_argument(self) -> Word {
        match self {
            Self::Untyped(size) | Self::CNode(size) => size as Word,
            _ => 0,
        }
    }
}

/// Empty slots for new capabilities, side by side in one CNode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// CNode capability where the path to the CNode starts.
    pub root: CNode,
    /// Path from `root` to the CNode with the slots; of no bits when that is `root` itself.
    pub node_index: Word,
    /// Bits of that path.
    pub node_depth: u8,
    /// First slot.
    pub offset: Word,
    /// Number of slots, 1..=[`RETYPE_MAX`].
    pub count: u32,
}

impl Window {
    /// `count` slots from `offset` of `cnode` itself.
    #[must_use]
    pub const fn of(cnode: CNode, offset: Word, count: u32) -> Self {
        Self {
            root: cnode,
            node_index: 0,
            node_depth: 0,
            offset,
            count,
        }
    }
}

impl Untyped {
    /// `Untyped_Retype`: makes as many objects of the kind as `window` has slots.
    ///
    /// The kernel takes memory from the untyped's watermark, aligned to the object; the watermark goes
    /// back only when all children are gone.
    ///
    /// # Errors
    /// `NotEnoughMemory`, `DeleteFirst` if a slot is occupied, `RangeError` for sizes and counts,
    /// `InvalidArgument` for an object that device memory cannot become; `Unsupported` if this kernel
    /// does not have the kind.
    #[inline]
    pub fn retype(self, kind: ObjectType, window: Window) -> Result {
        let number = kind.number().ok_or(Error::Unsupported)?;
        done(invoke(
            self.cptr(),
            label::UNTYPED_RETYPE,
            [
                number,
                kind.size_argument(),
                window.node_index,
                window.node_depth.into(),
                window.offset,
                window.count.into(),
            ],
            [window.root.cptr()],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_kernels_constants() {
        assert_eq!(ObjectType::CNode(12).size_bits(), 17);
        assert_eq!(ObjectType::Frame(FrameSize::Large).size_bits(), 21);
        assert_eq!(ObjectType::Untyped(20).size_bits(), 20);
        assert_eq!(ObjectType::Endpoint.size_bits(), 4);
        assert_eq!(FrameSize::Huge.bytes(), 1 << 30);
    }
}
