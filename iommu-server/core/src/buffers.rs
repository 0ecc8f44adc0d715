//! [`Buffers`]: the table of DMA buffers. A buffer capability's badge names a
//! place of the table and which life of it; looking one up is an index and a
//! comparison.

use heapless::Vec;
use ipc_proto::{Badge, BadgeKind, ClientId, MAX_GENERATION};
use system::pool::NumberPool;

use crate::backend::Extent;
use crate::env::Slot;
use crate::place::Place;
use crate::pool::Block;

/// Most buffers and shares at a time.
pub const MAX_BUFFERS: usize = 1024;
/// Most blocks a buffer is made of.
pub const MAX_BLOCKS: usize = 8;
/// Most pages of a buffer, of its own page size.
pub const MAX_PAGES: u32 = 4096;

/// Whether memory can be given to someone else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Yes: every unit has forgotten it.
    Reuse,
    /// No: a unit may still reach it.
    Lose,
}

/// Who may have a buffer's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Its holder alone: its frames may be in its window only, and the server has none.
    Private,
    /// Whoever imports it.
    Shareable,
}

/// A buffer's memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Blocks of the pool, in order.
    pub blocks: Vec<Block, MAX_BLOCKS>,
    /// What each block holds of the buffer: a block may be larger than what was left to be covered.
    /// `frames` is [`NO_FRAMES`] until slots are reserved, and where they are in the holder's window.
    pub extents: Vec<Extent, MAX_BLOCKS>,
    /// Pages of 2^this bytes.
    pub page_bits: u8,
    /// How many.
    pub pages: u32,
    /// Who may have it.
    pub sharing: Sharing,
    /// Shares that others have of it.
    pub shares: u16,
    /// `Lose` when a share went whose mapping is still uncertain.
    pub fate: Fate,
}

impl Memory {
    /// A buffer's size, with no memory yet.
    pub fn new(page_bits: u8, pages: u32, sharing: Sharing) -> Self {
        Self {
            blocks: Vec::new(),
            extents: Vec::new(),
            page_bits,
            pages,
            sharing,
            shares: 0,
            fate: Fate::Reuse,
        }
    }

    /// Size in bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) << self.page_bits
    }
}

/// No slot of frames: slot 0 is the null slot of every CNode.
pub const NO_FRAMES: Slot = 0;

/// What a capability gives access to.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "every place of the table has room for the larger one; there is no heap"
)]
pub enum Content {
    /// Memory of the holder.
    Memory(Memory),
    /// Another buffer's memory (never a share's).
    Share {
        /// Its place.
        of: u16,
    },
}

/// Where a buffer is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Number of the holder's context.
    pub context: u16,
    /// I/O virtual address.
    pub iova: u64,
    /// Whether it is certain what units make of it.
    pub certainty: Certainty,
}

/// What is known about a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It is in force.
    Mapped,
    /// It was taken away, but a unit did not confirm: it may be used still.
    Unconfirmed,
}

/// A buffer or share.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Whose it is: frames go to this client's window, mappings to its context.
    pub holder: ClientId,
    /// What it is.
    pub content: Content,
    /// Slot of the master of its capability, once minted.
    pub master: Option<Slot>,
    /// Where it is mapped.
    pub mapping: Option<Mapping>,
}

impl Buffer {
    /// Bytes of memory that count against the holder's quota.
    pub fn quota_bytes(&self) -> u64 {
        match &self.content {
            Content::Memory(memory) => memory.bytes(),
            Content::Share { .. } => 0,
        }
    }
}

struct Entry {
    generation: u16,
    buffer: Place<Buffer>,
}

/// The table.
pub struct Buffers {
    entries: [Entry; MAX_BUFFERS],
    places: NumberPool<{ MAX_BUFFERS / 64 }>,
}

impl Buffers {
    /// An empty table, all zeros, without room for anything before [`Self::open`].
    pub const fn new() -> Self {
        Self {
            entries: [const {
                Entry {
                    generation: 0,
                    buffer: Place::Empty,
                }
            }; MAX_BUFFERS],
            places: NumberPool::empty(),
        }
    }

    /// Lets the table be filled.
    pub fn open(&mut self) {
        if let Some(places) = NumberPool::new(0, MAX_BUFFERS as u32) {
            self.places = places;
        }
    }

    /// Puts a buffer into a free place, which begins a new life.
    pub fn insert(&mut self, buffer: Buffer) -> Option<u16> {
        let index = self.places.take()?;
        let entry = self.entries.get_mut(index as usize)?;
        // 0 is the generation of badges that have none.
        entry.generation = entry.generation % MAX_GENERATION + 1;
        entry.buffer = Place::Taken(buffer);
        Some(index as u16)
    }

    /// Puts a buffer of an earlier life, or none, back into its place. `false` when there is no such place, or it is
    /// taken.
    pub fn restore(&mut self, index: u16, generation: u16, buffer: Option<Buffer>) -> bool {
        let Some(entry) = self.entries.get_mut(usize::from(index)) else {
            return false;
        };
        entry.generation = generation;
        let Some(buffer) = buffer else {
            return true;
        };
        if !self.places.claim_run(index.into(), 1) {
            return false;
        }
        entry.buffer = Place::Taken(buffer);
        true
    }

    /// Takes a buffer out; its badge is stale from now on.
    pub fn remove(&mut self, index: u16) -> Option<Buffer> {
        let buffer = self.entries.get_mut(usize::from(index))?.buffer.take()?;
        let _ = self.places.give(index.into());
        Some(buffer)
    }

    /// Which life of its place the buffer in `index` is, or the last one was.
    pub fn generation(&self, index: u16) -> u16 {
        let entry = self.entries.get(usize::from(index));
        entry.map_or(0, |entry| entry.generation)
    }

    /// The badge of the buffer in `index`.
    pub fn badge(&self, index: u16) -> Badge {
        Badge::new(BadgeKind::Buffer, self.generation(index), index)
    }

    /// Place of the buffer that a badge of kind `Buffer` names; `None` when it is of another life.
    #[inline]
    pub fn find(&self, badge: Badge) -> Option<u16> {
        let entry = self.entries.get(usize::from(badge.index))?;
        let current = entry.generation == badge.generation && entry.buffer.as_ref().is_some();
        current.then_some(badge.index)
    }

    /// The buffer in a place.
    #[inline]
    pub fn get(&self, index: u16) -> Option<&Buffer> {
        self.entries.get(usize::from(index))?.buffer.as_ref()
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, index: u16) -> Option<&mut Buffer> {
        self.entries.get_mut(usize::from(index))?.buffer.as_mut()
    }

    /// The first buffer at or after place `from` that passes a test.
    pub fn first_where(&self, from: u16, test: impl Fn(&Buffer) -> bool) -> Option<u16> {
        let mut rest = self.entries.iter().enumerate().skip(from.into());
        rest.find(|(_, entry)| entry.buffer.as_ref().is_some_and(&test))
            .map(|(index, _)| index as u16)
    }

    /// Every buffer and share.
    pub fn all(&self) -> impl Iterator<Item = &Buffer> {
        self.entries
            .iter()
            .filter_map(|entry| entry.buffer.as_ref())
    }

    /// Buffers and shares.
    pub fn used(&self) -> u32 {
        self.places.used()
    }

    /// A buffer's memory; of a share, that of the buffer behind it.
    #[inline]
    pub fn memory(&self, index: u16) -> Option<&Memory> {
        match &self.get(index)?.content {
            Content::Memory(memory) => Some(memory),
            Content::Share { of } => match &self.get(*of)?.content {
                Content::Memory(memory) => Some(memory),
                Content::Share { .. } => None,
            },
        }
    }

    /// A buffer's own memory, to change it; `None` for a share.
    pub fn memory_mut(&mut self, index: u16) -> Option<&mut Memory> {
        match &mut self.get_mut(index)?.content {
            Content::Memory(memory) => Some(memory),
            Content::Share { .. } => None,
        }
    }
}
