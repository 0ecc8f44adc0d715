//! What a shard notes in its ledger, word by word, for its next start: who holds what. Where devices' requests
//! go is not noted: that is in the units' tables.
//!
//! Each fact is one word, so it is noted as a whole or not at all; no word is believed because it is there
//! (`shard::recover`). A word that names an intent is written before the first effect, and what came
//! of it after the last.
//!
//! Words of lists ([`DEVICES`], [`ALIASES`], [`MESSAGES`]) follow the shard's own lists, place by place. While the last
//! of a list moves to the place of one that went, it is there twice.

use hw::Sbdf;
use ipc_proto::{ClientId, MAX_GENERATION};
use ledger::Words;
use system::model::MAX_CLIENTS;

use crate::backend::InterruptMessage;
use crate::buffers::MAX_BUFFERS;
use crate::env::Slot;
use crate::pool::MAX_NODES;
use crate::shard::{MAX_ATTACHED, MAX_MESSAGE_BLOCKS, MAX_PRIVATE, MAX_REQUESTERS};

/// [`STARTED`], once the shard has started for the first time.
pub const HEADER: usize = 0;
/// [`Placing`].
pub const PLACING: usize = 1;
/// One past the highest slot that was ever taken: above, there is nothing to be swept.
pub const SLOTS_END: usize = 2;
/// [`Node`] of each block of the pool.
pub const NODES: usize = 8;
/// [`BufferNote`] of each place for a buffer.
pub const BUFFERS: usize = NODES + MAX_NODES;
/// [`MappingNote`] of each place for a buffer.
pub const MAPPINGS: usize = BUFFERS + MAX_BUFFERS;
/// [`ContextNote`] of each client's shared context, then of each private one.
pub const CONTEXTS: usize = MAPPINGS + MAX_BUFFERS;
/// [`DeviceNote`] of each attached device.
pub const DEVICES: usize = CONTEXTS + MAX_CLIENTS + MAX_PRIVATE;
/// [`alias_word`] of each alias.
pub const ALIASES: usize = DEVICES + MAX_ATTACHED;
/// [`MessageNote`] of each block of messages.
pub const MESSAGES: usize = ALIASES + MAX_REQUESTERS;
/// Words of a shard's ledger.
pub const WORDS: usize = MESSAGES + MAX_MESSAGE_BLOCKS;

/// Says that the ledger is of this form, and that the shard has started.
pub const STARTED: u64 = 0x696f_6d6d_7500_0001;

/// Notes that slots up to `end` may be filled from now on.
#[inline]
pub fn note_slots<W: Words>(words: &mut W, end: Slot) {
    if words.load(SLOTS_END) < u64::from(end) {
        words.store(SLOTS_END, end.into());
    }
}

const fn field(word: u64, low: u32, bits: u32) -> u64 {
    word >> low & ((1 << bits) - 1)
}

/// What became of a block of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// Nothing: it is free, or no block.
    Free,
    /// It is being split or merged: nothing below it is in use.
    Unsure,
    /// It was split.
    Split {
        /// Number of its left half.
        pair: u16,
        /// Slot of that; the right half's follows.
        slot: Slot,
    },
    /// It is in a buffer.
    Used {
        /// Place of the buffer.
        buffer: u16,
        /// Which of its blocks.
        number: u8,
        /// First slot of the frames; 0: they are in the holder's window.
        frames: Slot,
        /// How many.
        pages: u32,
    },
    /// It is out of circulation.
    Lost,
}

impl Node {
    pub fn word(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Unsure => 1,
            Self::Split { pair, slot } => 2 | u64::from(pair) << 16 | u64::from(slot) << 32,
            Self::Used {
                buffer,
                number,
                frames,
                pages,
            } => {
                let pages = u64::from(pages & 0xffff) << 16;
                let buffer = u64::from(buffer & 0x3ff) << 3;
                3 | buffer | u64::from(number & 7) << 13 | pages | u64::from(frames) << 32
            }
            Self::Lost => 4,
        }
    }

    pub fn read(word: u64) -> Self {
        match field(word, 0, 3) {
            0 if word == 0 => Self::Free,
            2 => Self::Split {
                pair: field(word, 16, 16) as u16,
                slot: (word >> 32) as Slot,
            },
            3 => Self::Used {
                buffer: field(word, 3, 10) as u16,
                number: field(word, 13, 3) as u8,
                frames: (word >> 32) as Slot,
                pages: field(word, 16, 16) as u32,
            },
            4 => Self::Lost,
            _ => Self::Unsure,
        }
    }
}

/// How far a buffer or an attachment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is being made: to be undone.
    Begun,
    /// It is whole.
    Whole,
    /// It is being taken apart: to be finished.
    Ending,
}

impl Stage {
    const fn bits(self) -> u64 {
        match self {
            Self::Begun => 1,
            Self::Whole => 2,
            Self::Ending => 3,
        }
    }

    const fn read(bits: u64) -> Option<Self> {
        match bits {
            1 => Some(Self::Begun),
            2 => Some(Self::Whole),
            3 => Some(Self::Ending),
            _ => None,
        }
    }
}

/// What a buffer is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Memory of its own.
    Memory {
        /// Pages of 2^this bytes: 12 or 21.
        page_bits: u8,
        /// How many.
        pages: u32,
    },
    /// The memory of the buffer in this place.
    Share(u16),
}

/// A buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferNote {
    pub stage: Stage,
    pub holder: ClientId,
    pub generation: u16,
    pub kind: Kind,
    /// Its memory is not to be used again.
    pub lose: bool,
    /// Slot of the capability's master; 0: none yet.
    pub master: Slot,
}

const SHARE: u64 = 1 << 3;
const LOSE: u64 = 1 << 4;
const LARGE: u64 = 1 << 5;
const LARGE_BITS: u8 = 21;
const GENERATION: u32 = 12;

impl BufferNote {
    pub fn word(&self) -> u64 {
        let about = match self.kind {
            Kind::Memory { page_bits, pages } => {
                let large = if page_bits == LARGE_BITS { LARGE } else { 0 };
                large | u64::from(pages & 0xffff) << 24
            }
            Kind::Share(of) => SHARE | u64::from(of) << 24,
        };
        let lose = if self.lose { LOSE } else { 0 };
        let holder = u64::from(self.holder.0 & 0x3f) << 6;
        let master = u64::from(self.master & 0xff_ffff) << 40;
        self.stage.bits() | lose | about | holder | free_place(self.generation) | master
    }

    pub fn read(word: u64) -> Option<Self> {
        let kind = if word & SHARE != 0 {
            Kind::Share(field(word, 24, 16) as u16)
        } else {
            Kind::Memory {
                page_bits: if word & LARGE != 0 { LARGE_BITS } else { 12 },
                pages: field(word, 24, 16) as u32,
            }
        };
        Some(Self {
            stage: Stage::read(field(word, 0, 3))?,
            holder: ClientId(field(word, 6, 6) as u16),
            generation: generation(word),
            kind,
            lose: word & LOSE != 0,
            master: (word >> 40) as Slot,
        })
    }
}

/// The word of a place without a buffer: the life it had.
pub fn free_place(generation: u16) -> u64 {
    u64::from(generation & MAX_GENERATION) << GENERATION
}

/// Which life of a place a buffer's word is about.
pub fn generation(word: u64) -> u16 {
    (word >> GENERATION) as u16 & MAX_GENERATION
}

/// The same buffer at another stage.
pub fn with_stage(word: u64, stage: Stage) -> u64 {
    word & !7 | stage.bits()
}

/// The same buffer, of which the memory is not to be used again.
pub fn with_loss(word: u64) -> u64 {
    word | LOSE
}

/// Where a share is mapped, or, without units, a buffer: what the tables do not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingNote {
    pub context: u16,
    pub iova: u64,
}

impl MappingNote {
    pub fn word(self) -> u64 {
        self.iova & !0xfff | u64::from(self.context & 0x3ff) << 1 | 1
    }

    pub fn read(word: u64) -> Option<Self> {
        (word & 1 == 1).then_some(Self {
            context: field(word, 1, 10) as u16,
            iova: word & !0xfff,
        })
    }
}

/// The domain of a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextNote {
    pub owner: ClientId,
    pub domain: u16,
    /// What the back end knows its tables by.
    pub mark: u32,
}

impl ContextNote {
    pub fn word(self) -> u64 {
        let owner = u64::from(self.owner.0 & 0x7f) << 1;
        1 | owner | u64::from(self.domain) << 8 | u64::from(self.mark) << 32
    }

    pub fn read(word: u64) -> Option<Self> {
        (word & 1 == 1).then_some(Self {
            owner: ClientId(field(word, 1, 7) as u16),
            domain: field(word, 8, 16) as u16,
            mark: (word >> 32) as u32,
        })
    }
}

/// An attached device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceNote {
    pub stage: Stage,
    pub device: Sbdf,
    pub client: ClientId,
    pub context: u16,
    /// Depth of its invalidate queue, if it may keep translations.
    pub depth: u8,
}

const STAGE: u32 = 62;
const DEPTH: u32 = 48;

impl DeviceNote {
    pub fn word(self) -> u64 {
        let client = u64::from(self.client.0 & 0xff) << 32;
        let context = u64::from(self.context & 0xff) << 40;
        let depth = u64::from(self.depth) << DEPTH;
        let device = u64::from(self.device.to_bits());
        device | client | context | depth | self.stage.bits() << STAGE
    }

    pub fn read(word: u64) -> Option<Self> {
        Some(Self {
            stage: Stage::read(word >> STAGE)?,
            device: Sbdf::from_bits(word as u32),
            client: ClientId(field(word, 32, 8) as u16),
            context: field(word, 40, 8) as u16,
            depth: field(word, DEPTH, 8) as u8,
        })
    }
}

/// An alias of a device; 0 is none, since no device is its own alias.
pub fn alias_word(device: Sbdf, alias: Sbdf) -> u64 {
    u64::from(device.to_bits()) | u64::from(alias.to_bits()) << 32
}

/// Device and alias.
pub fn read_alias(word: u64) -> Option<(Sbdf, Sbdf)> {
    let (device, alias) = (word as u32, (word >> 32) as u32);
    (device != alias).then_some((Sbdf::from_bits(device), Sbdf::from_bits(alias)))
}

/// Messages that were made deliverable in one go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageNote {
    pub device: Sbdf,
    /// The first message to be sent, as the device is to send it.
    pub sent: InterruptMessage,
    pub count: u16,
}

impl MessageNote {
    pub fn word(self) -> u64 {
        let device = u64::from(self.device.to_bits());
        let count = u64::from(self.count & 0xff) << 32;
        let data = u64::from(self.sent.data & 0xff) << 40;
        1 << 63 | device | count | data | (self.sent.address >> 5 & 0x7fff) << 48
    }

    pub fn read(word: u64) -> Option<Self> {
        (word >> 63 == 1).then_some(Self {
            device: Sbdf::from_bits(word as u32),
            sent: InterruptMessage {
                address: 0xfee0_0000 | field(word, 48, 15) << 5,
                data: field(word, 40, 8) as u32,
            },
            count: field(word, 32, 8) as u16,
        })
    }
}

/// Frames on their way into a window: from `slot` on, `placed` are there, or the last of them not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placing {
    pub client: ClientId,
    pub slot: u16,
    pub placed: u16,
}

impl Placing {
    pub fn word(self) -> u64 {
        let client = u64::from(self.client.0) << 16;
        1 | client | u64::from(self.slot) << 32 | u64::from(self.placed) << 48
    }

    pub fn read(word: u64) -> Option<Self> {
        (word & 1 == 1).then_some(Self {
            client: ClientId(field(word, 16, 16) as u16),
            slot: field(word, 32, 16) as u16,
            placed: (word >> 48) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_word_is_read_and_says_what_it_says(word: u64) {
            let node = Node::read(word);
            prop_assert_eq!(Node::read(node.word()), node);
            if let Some(note) = BufferNote::read(word) {
                prop_assert_eq!(BufferNote::read(note.word()), Some(note));
                prop_assert_eq!(generation(free_place(note.generation)), note.generation);
                for stage in [Stage::Begun, Stage::Whole, Stage::Ending] {
                    let other = BufferNote::read(with_stage(word, stage));
                    prop_assert_eq!(other, Some(BufferNote { stage, ..note }));
                }
            }
            if let Some(note) = MappingNote::read(word) {
                prop_assert_eq!(MappingNote::read(note.word()), Some(note));
            }
            if let Some(note) = ContextNote::read(word) {
                prop_assert_eq!(ContextNote::read(note.word()), Some(note));
            }
            if let Some(note) = DeviceNote::read(word) {
                prop_assert_eq!(DeviceNote::read(note.word()), Some(note));
            }
            if let Some((device, alias)) = read_alias(word) {
                prop_assert_eq!(alias_word(device, alias), word);
            }
            if let Some(note) = MessageNote::read(word) {
                prop_assert_eq!(MessageNote::read(note.word()), Some(note));
            }
            if let Some(note) = Placing::read(word) {
                prop_assert_eq!(Placing::read(note.word()), Some(note));
            }
        }
    }

    #[test]
    fn the_ledger_has_room() {
        assert!(WORDS * 8 <= system::layout::ledger_pages::IOMMU as usize * 4096);
    }
}
