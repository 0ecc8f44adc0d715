//! Names of capabilities, places in a CSpace, rights, and the data a capability can be minted with.

use sel4_sys::{Word, abi};

pub use sel4_sys::CPtr;

/// A capability of some kind, named by its address in the caller's CSpace.
pub trait Capability: Copy {
    /// The name.
    fn cptr(self) -> CPtr;
    /// The capability at `cptr`. Not checked: the kernel refuses the first use if the kind is wrong.
    fn from_cptr(cptr: CPtr) -> Self;
}

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name(CPtr);

        impl $name {
            /// The capability at `cptr`, of a kind the kernel checks at its first use.
            #[inline(always)]
            #[must_use]
            pub const fn at(cptr: CPtr) -> Self {
                Self(cptr)
            }

            /// Its address in the caller's CSpace.
            #[inline(always)]
            #[must_use]
            pub const fn cptr(self) -> CPtr {
                self.0
            }
        }

        impl Capability for $name {
            #[inline(always)]
            fn cptr(self) -> CPtr {
                self.0
            }

            #[inline(always)]
            fn from_cptr(cptr: CPtr) -> Self {
                Self(cptr)
            }
        }
    )*};
}

capabilities! {
    /// Memory that objects can be made of (methods in [`crate::object`]).
    Untyped;
    /// A table of capability slots ([`crate::cnode`]).
    CNode;
    /// A thread ([`crate::tcb`]).
    Tcb;
    /// A place where threads meet to pass messages ([`crate::ipc`]).
    Endpoint;
    /// A word of signals ([`crate::ipc`]).
    Notification;
    /// The root of an address space, on x86_64 a PML4 ([`crate::vspace`]).
    VSpace;
    /// A page directory pointer table, 512 GiB ([`crate::vspace`]).
    Pdpt;
    /// A page directory, 1 GiB ([`crate::vspace`]).
    PageDirectory;
    /// A page table, 2 MiB ([`crate::vspace`]).
    PageTable;
    /// A page of memory of any [`crate::FrameSize`] ([`crate::vspace`]).
    Frame;
    /// Authority to make ASID pools ([`crate::vspace`]).
    AsidControl;
    /// Address space identifiers to give to VSpaces ([`crate::vspace`]).
    AsidPool;
    /// Authority over interrupts ([`crate::irq`]).
    IrqControl;
    /// One interrupt ([`crate::irq`]).
    IrqHandler;
    /// A range of IO ports ([`crate::io`]).
    IoPort;
    /// One requester's DMA address space in the kernel's IOMMU driver ([`crate::io`]).
    IoSpace;
    /// A page table of such an address space ([`crate::io`]).
    IoPageTable;
    /// Any capability, or none at all (`Null::at(0)`), where only the name counts.
    Null;
}

/// Authority over all IO ports, named by its slot in the caller's own root CNode, since 5.0.0 narrows it by
/// minting ([`crate::io`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoPortControl(pub Slot);

/// A slot as CNode methods name it: `index` resolved to `depth` bits from the CNode `root`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    /// CNode capability where the resolution starts.
    pub root: CNode,
    /// Slot number, or a path when `root` leads to further CNodes.
    pub index: Word,
    /// Bits to resolve, guard included.
    pub depth: u8,
}

impl CNode {
    /// Slot `index` of a CNode whose guard fills a word: the root task's own CNode, and every CNode minted
    /// with [`CapData::guard`] for use as a CSpace root.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self, index: Word) -> Slot {
        self.slot_at(index, Word::BITS as u8)
    }

    /// Slot `index` to `depth` bits: for a CNode fresh from retype (no guard) its size in bits. Only the
    /// lowest `depth` bits of `index` count, so a number past the CNode names a slot from its start again.
    #[inline(always)]
    #[must_use]
    pub const fn slot_at(self, index: Word, depth: u8) -> Slot {
        Slot {
            root: self,
            index,
            depth,
        }
    }
}

/// Rights that a copied or mapped capability keeps. A set: join with [`Rights::and`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rights(Word);

impl Rights {
    /// None.
    pub const NONE: Self = Self(0);
    /// Send or signal; of a frame, write.
    pub const WRITE: Self = Self(abi::RIGHT_WRITE);
    /// Receive or wait; of a frame, read.
    pub const READ: Self = Self(abi::RIGHT_READ);
    /// Send capabilities.
    pub const GRANT: Self = Self(abi::RIGHT_GRANT);
    /// Be replied to. On 5.0.0 this gives [`Rights::GRANT`], which that kernel wants of a caller.
    pub const GRANT_REPLY: Self = Self(abi::RIGHT_GRANT_REPLY);
    /// A frame's usual rights.
    pub const READ_WRITE: Self = Self::READ.and(Self::WRITE);
    /// What a client of a server needs: to call and be replied to, without sending capabilities.
    pub const CALL: Self = Self::WRITE.and(Self::GRANT_REPLY);
    /// All.
    pub const ALL: Self = Self(0xf);

    /// The rights of both sets.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in the set.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The rights word of the kernel this is built for.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> Word {
        abi::rights(self.0)
    }
}

/// The mark on an endpoint or notification capability that its receiver sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Badge(Word);

impl Badge {
    /// Bits that every supported kernel has.
    pub const BITS: u32 = abi::BADGE_BITS;

    /// A badge; `None` if `value` needs more than [`Badge::BITS`] bits.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: Word) -> Option<Self> {
        if value >> Self::BITS == 0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// Its value.
    #[inline(always)]
    #[must_use]
    pub const fn value(self) -> Word {
        self.0
    }
}

/// The word that mint and mutate take; its meaning depends on the capability's kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CapData(Word);

impl CapData {
    /// Leaves things as they are.
    pub const NONE: Self = Self(0);

    /// A badge for an endpoint or notification capability that has none yet.
    #[inline(always)]
    #[must_use]
    pub const fn badge(badge: Badge) -> Self {
        Self(badge.0)
    }

    /// A guard of `size` bits with the value 0, for a CNode. A CNode of `n` bits with a guard of `64 - n`
    /// bits makes a CSpace whose slot numbers are its `CPtr`s.
    #[inline(always)]
    #[must_use]
    pub const fn guard(size: u8) -> Self {
        Self(abi::guard(0, size))
    }

    /// The guard that makes a CNode with 2^`bits` slots resolve whole words.
    #[inline(always)]
    #[must_use]
    pub const fn cspace_root(bits: u8) -> Self {
        Self::guard((Word::BITS as u8).saturating_sub(bits))
    }

    /// A requester id for the master IOSpace capability. `domain` is the IOMMU's domain id, never 0;
    /// `requester` is bus << 8 | device << 3 | function.
    #[inline(always)]
    #[must_use]
    pub const fn io_space(domain: u16, requester: u16) -> Self {
        Self((domain as Word) << 16 | requester as Word)
    }

    /// The word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> Word {
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_badge_never_exceeds_what_the_oldest_kernel_stores() {
        assert_eq!(Badge::new((1 << 28) - 1).unwrap().value(), 0xfff_ffff);
        assert_eq!(Badge::new(1 << 28), None);
        assert_eq!(Badge::new(Word::MAX), None);
    }

    #[test]
    fn rights_and_guards_are_the_kernels_words() {
        assert_eq!(Rights::CALL.word(), abi::rights(1 | 8));
        assert_eq!(Rights::ALL.word(), abi::rights(0xf));
        assert_eq!(Rights::READ_WRITE.word(), 3);
        assert_eq!(CapData::cspace_root(12).word(), abi::guard(0, 52));
    }

    #[test]
    fn io_space_data_is_domain_then_requester() {
        assert_eq!(CapData::io_space(5, 0x0108).word(), 5 << 16 | 0x0108);
    }
}
