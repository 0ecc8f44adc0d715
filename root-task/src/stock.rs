//! [`Stock`]: the root task's own slots and memory, for the few objects that it
//! needs itself: its endpoint and notification, page tables, badged capabilities.

use root_core::facts::Untyped as Piece;
use sel4::bootinfo::slot;
use sel4::{CNode, Error, ObjectType, Result, Slot, Untyped, Window};
use sel4_glue::root::Tables;

/// The root task's root CNode: slot numbers are addresses.
pub const CNODE: CNode = CNode::at(slot::CNODE);

/// Log2 of the memory that the root task's own objects need: page tables, nearly all of it.
pub const OWN_BITS: u8 = 18;

/// Own slots and memory.
#[derive(Debug)]
pub struct Stock {
    memory: Untyped,
    next: u32,
    end: u32,
}

impl Stock {
    /// Slots from `first` to before `end`, objects from this untyped.
    pub const fn new(memory: Piece, first: u32, end: u32) -> Self {
        Self {
            memory: Untyped::at(memory.slot as u64),
            next: first,
            end,
        }
    }

    /// An empty slot.
    pub fn slot(&mut self) -> Result<u32> {
        if self.next == self.end {
            return Err(Error::NotEnoughMemory);
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Makes an object of its own; the address of its capability.
    pub fn object(&mut self, kind: ObjectType) -> Result<u64> {
        let slot = self.slot()?;
        self.memory
            .retype(kind, Window::of(CNODE, slot.into(), 1))?;
        Ok(slot.into())
    }

    /// Fills an empty slot; the address of the new capability.
    pub fn fill(&mut self, fill: impl FnOnce(Slot) -> Result) -> Result<u64> {
        let slot = self.slot()?;
        fill(own(slot))?;
        Ok(slot.into())
    }
}

impl Tables for Stock {
    fn make(&mut self, kind: ObjectType) -> Result<u64> {
        self.object(kind)
    }
}

/// Slot `number` of the root CNode.
pub const fn own(number: u32) -> Slot {
    CNODE.slot(number as u64)
}
