//! [`Run`]: a PD's own pages, and what lies on them.

use crate::image::Access;

/// What lies on a run of a PD's own pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A segment of its image, by number.
    Segment(usize),
    /// Zeros.
    Zero,
    /// Its information.
    Info,
    /// Its IPC buffer (one page).
    IpcBuffer,
    /// What a writable segment of its image, by number, holds at the start: to be copied from when the PD is restarted.
    Kept(usize),
    /// Zeros at the first start; what it was when the PD is restarted.
    Ledger,
}

/// A run of a PD's own pages, side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where it is mapped.
    pub vaddr: u64,
    /// How many pages of 4 KiB.
    pub pages: u32,
    /// What the PD may do with them.
    pub access: Access,
    /// What they hold at the start.
    pub content: Content,
}
