//! The BARs of a device, [`Region`], and which of their pages are nobody's,
//! [`SecretPages`].

use hw::Bar;
use hw::bar::Space;
use ipc_proto::BarKind;

use crate::env::RegionId;

/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 1 << crate::bank::LARGE_BITS;

/// A BAR of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// What it is; [`BarKind::None`] where there is none.
    pub kind: BarKind,
    /// First address, as firmware placed it.
    pub base: u64,
    /// Bytes, a power of two unless it is fixed.
    pub bytes: u64,
    /// Reads have no side effects, and writes may be merged.
    pub prefetchable: bool,
    /// Its memory is the shard's, to be given out.
    pub served: bool,
    /// Its only page holds registers of another function too (BARs below 4 KiB).
    pub shared_page: bool,
    /// It is alone in large pages.
    pub alone: bool,
    /// Its address cannot be changed (Enhanced Allocation).
    pub fixed: bool,
}

impl Region {
    /// No BAR.
    pub const NONE: Self = Self {
        kind: BarKind::None,
        base: 0,
        bytes: 0,
        prefetchable: false,
        served: false,
        shared_page: false,
        alone: false,
        fixed: false,
    };

    /// Is it memory, of either width?
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self.kind, BarKind::Memory32 | BarKind::Memory64)
    }

    /// Last address, included.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.base.saturating_add(self.bytes.saturating_sub(1))
    }

    /// Bytes from [`Self::base`] on that nothing else may use.
    #[must_use]
    pub const fn hole(&self) -> u64 {
        if self.alone && self.bytes < LARGE_PAGE {
            LARGE_PAGE
        } else {
            self.bytes
        }
    }

    /// Has it an address?
    #[must_use]
    pub const fn is_placed(&self) -> bool {
        self.base != 0
    }

    /// Its memory, if frames of it may be given out.
    #[must_use]
    pub fn memory(&self) -> Option<RegionId> {
        let base = self.base & !0xfff;
        let end = self
            .base
            .checked_add(self.hole())?
            .checked_next_multiple_of(4096)?;
        (self.is_memory() && self.served && !self.shared_page && self.is_placed()).then_some(
            RegionId {
                base,
                bytes: end - base,
            },
        )
    }

    /// Pages of 4 KiB that it touches.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.bytes.div_ceil(4096)
    }
}

impl Region {
    /// A region as a register says; `bytes` is 0 where its size is not known.
    #[must_use]
    pub const fn of_size(space: Space, base: u64, bytes: u64) -> Self {
        let (kind, prefetchable) = match space {
            Space::Io => (BarKind::Io, false),
            Space::Memory32 { prefetchable } => (BarKind::Memory32, prefetchable),
            Space::Memory64 { prefetchable } => (BarKind::Memory64, prefetchable),
        };
        Self {
            kind,
            prefetchable,
            base,
            bytes,
            ..Self::NONE
        }
    }
}

impl From<&Bar> for Region {
    fn from(bar: &Bar) -> Self {
        Self::of_size(bar.space, bar.address, bar.size)
    }
}

/// Physical pages that hold an MSI-X table or its pending bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SecretPages {
    /// Number of the first page (address / 4096).
    pub first: u64,
    /// How many; 0: none.
    pub count: u64,
}

impl SecretPages {
    /// Is this page one of them?
    #[must_use]
    pub const fn contains(&self, page: u64) -> bool {
        page >= self.first && page - self.first < self.count
    }
}
