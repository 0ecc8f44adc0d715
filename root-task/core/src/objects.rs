//! The kernel objects of one PD: [`Objects`] is what it needs, [`Layout`] is
//! where each lies in the PD's block and which slot of the root CNode it takes.
//!
//! A PD's objects come from one block of RAM. Taking the PD down is revoking that
//! block's untyped: nothing of the PD can be forgotten.

use alloc::vec::Vec;

use crate::memory::{MemoryError, Slots};
use crate::region::Region;

/// A kind of kernel object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Untyped memory of 2^n bytes.
    Untyped(u8),
    /// A CNode of 2^n slots.
    CNode(u8),
    /// A thread.
    Tcb,
    /// An endpoint.
    Endpoint,
    /// A notification.
    Notification,
    /// The root of an address space.
    VSpace,
    /// A page directory pointer table (512 GiB).
    Pdpt,
    /// A page directory (1 GiB).
    PageDirectory,
    /// A page table (2 MiB).
    PageTable,
    /// A page of 4 KiB.
    Frame,
}

/// Log2 of the bytes that the kernel takes for a kind of object.
pub type SizeOf = fn(Kind) -> u8;

/// What an object is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// Root of a client's CSpace, two entries.
    TopCNode,
    /// Private CNode; of a server, root of its CSpace.
    PrivateCNode,
    /// Grant window.
    Window,
    /// Mailboxes of channels.
    Mailboxes,
    /// A client's memory for its own objects.
    OwnUntyped,
    /// Thread.
    Tcb,
    /// The endpoint that a server serves.
    Endpoint,
    /// Event notification.
    Events,
    /// Address space.
    VSpace,
    /// Page directory pointer tables.
    Pdpts,
    /// Page directories.
    Directories,
    /// Page tables.
    Tables,
    /// Pages of image, stack, information and IPC buffer.
    Frames,
}

/// A run of objects for one purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// What they are for.
    pub part: Part,
    /// What they are.
    pub kind: Kind,
    /// How many; at least one.
    pub count: u32,
    /// Slots of the root CNode: this one and those that follow.
    pub slot: u32,
}

/// The objects of a PD, in the order in which they are made: the largest first, so that none leaves a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The runs.
    pub runs: Vec<Run>,
    /// Size of the block that holds them: 2^bits bytes.
    pub bits: u8,
}

impl Layout {
    /// Puts objects in order and gives them slots.
    ///
    /// # Errors
    /// Slots run out.
    pub fn new(
        wanted: &[(Part, Kind, u32)],
        size_of: SizeOf,
        slots: &mut Slots,
    ) -> Result<Self, MemoryError> {
        let mut order: Vec<(Part, Kind, u32)> = wanted
            .iter()
            .copied()
            .filter(|(.., count)| *count > 0)
            .collect();
        order.sort_by_key(|(part, kind, _)| (core::cmp::Reverse(size_of(*kind)), *part));
        let mut runs: Vec<Run> = Vec::new();
        let mut bytes = 0u64;
        for (part, kind, count) in order {
            bytes = bytes.saturating_add(u64::from(count) << size_of(kind).min(47));
            runs.push(Run {
                part,
                kind,
                count,
                slot: slots.take(count)?,
            });
        }
        let bits = bytes
            .max(4096)
            .checked_next_power_of_two()
            .map_or(63, u64::trailing_zeros) as u8;
        Ok(Self { runs, bits })
    }

    /// The run for a purpose; a PD without such objects has none.
    #[must_use]
    pub fn run(&self, part: Part) -> Option<Run> {
        self.runs.iter().find(|run| run.part == part).copied()
    }

    /// Slot of the only (or first) object for a purpose.
    #[must_use]
    pub fn slot(&self, part: Part) -> Option<u32> {
        self.run(part).map(|run| run.slot)
    }

    /// Slots that the objects take.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        self.runs.iter().map(|run| run.count).sum()
    }
}

/// The page tables that an address space needs, by the address where each begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Page directory pointer tables.
    pub pdpts: Vec<u64>,
    /// Page directories.
    pub directories: Vec<u64>,
    /// Page tables.
    pub tables: Vec<u64>,
}

/// Down to which level a range of addresses needs tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// Pages of 4 KiB are mapped in it.
    Small,
    /// Only pages of 2 MiB are mapped in it.
    Large,
}

impl Tables {
    /// Adds what mapping pages of this size anywhere in `range` needs.
    pub fn cover(&mut self, range: Region, pages: Pages) {
        add(&mut self.pdpts, range, 39);
        add(&mut self.directories, range, 30);
        if pages == Pages::Small {
            add(&mut self.tables, range, 21);
        }
    }
}

/// Adds the starts of all spans of 2^bits bytes that `range` meets.
fn add(starts: &mut Vec<u64>, range: Region, bits: u32) {
    let first = range.start() >> bits;
    let last = (range.end() - 1) >> bits;
    for span in first..=last {
        let start = span << bits;
        if let Err(at) = starts.binary_search(&start) {
            starts.insert(at, start);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;

    /// Sizes of seL4 5.0.0 on x86_64.
    pub(crate) fn size_of(kind: Kind) -> u8 {
        match kind {
            Kind::Untyped(bits) => bits,
            Kind::CNode(bits) => bits + 5,
            Kind::Tcb => 11,
            Kind::Endpoint => 4,
            Kind::Notification => 5,
            _ => 12,
        }
    }

    #[test]
    fn objects_go_from_large_to_small_without_a_gap() {
        let mut slots = Slots::new(100, 10_000);
        let wanted = [
            (Part::Endpoint, Kind::Endpoint, 1),
            (Part::Frames, Kind::Frame, 70),
            (Part::PrivateCNode, Kind::CNode(14), 1),
            (Part::Tcb, Kind::Tcb, 1),
            (Part::TopCNode, Kind::CNode(1), 1),
            (Part::OwnUntyped, Kind::Untyped(16), 1),
            (Part::Window, Kind::CNode(8), 0),
        ];
        let layout = Layout::new(&wanted, size_of, &mut slots).unwrap();
        let mut at = 0u64;
        for run in &layout.runs {
            let bytes = 1u64 << size_of(run.kind);
            assert_eq!(at % bytes, 0, "{run:?} would leave a gap");
            at += bytes * u64::from(run.count);
        }
        assert!(at <= 1 << layout.bits && at > 1 << (layout.bits - 1));
        assert_eq!(layout.slot_count(), 75);
        assert_eq!(layout.slot(Part::PrivateCNode), Some(100));
        assert_eq!(layout.run(Part::Window), None);
    }

    #[test]
    fn tables_are_shared_by_ranges_that_lie_together() {
        let mut tables = Tables::default();
        tables.cover(Region::new(0x40_0000, 0x40_5000).unwrap(), Pages::Small);
        tables.cover(Region::new(0x5f_f000, 0x60_1000).unwrap(), Pages::Small);
        tables.cover(
            Region::new(0x10_0000_0000, 0x10_0400_0000).unwrap(),
            Pages::Small,
        );
        tables.cover(
            Region::new(0x20_0000_0000, 0x20_4000_0000).unwrap(),
            Pages::Large,
        );
        assert_eq!(tables.pdpts, vec![0]);
        assert_eq!(tables.directories, vec![0, 0x10_0000_0000, 0x20_0000_0000]);
        assert_eq!(tables.tables.len(), 2 + 32);
    }
}
