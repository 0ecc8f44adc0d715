//! What a bank notes of its splits, a word each, and how it knows them again after a restart.
//!
//! A split is noted when it is made, and no more noted before it is taken back: what is noted exists. Everything else
//! that an earlier life has made of the untypeds is taken back by [`Bank::recover`], by revoking each block of which
//! nothing is noted, so that slots and bytes are as they would be.

use ipc_proto::{ClientId, Refusal};

use super::{Bank, Block, LARGE_BITS, MAX_NODES, Node, Objects, PAGE_BITS, Parts, SIZES};
use crate::env::RegionId;
use crate::notes::{MADE_AT, NODES_AT, PLACING_AT, placed, was_placing};

const VALID: u64 = 1 << 63;
const FRAMES: u64 = 1 << 62;
/// Bits of the word: 36 of the address above the page's, six of the size, 16 of the slot, four that a changed one or
/// another's would not have.
const BITS: u32 = 36;
const SLOT: u32 = 42;
const SLOT_MASK: u64 = (1 << 16) - 1;
const CHECK: u32 = 58;
const CHECK_MASK: u64 = 0xf << CHECK;

/// Which words are in use: one bit each.
#[derive(Debug)]
pub(super) struct Notes([u64; MAX_NODES / 64]);

impl Notes {
    pub const fn new() -> Self {
        Self([0; MAX_NODES / 64])
    }

    /// There are as many words as nodes.
    pub fn take(&mut self) -> u16 {
        for (at, word) in (0u16..).step_by(64).zip(&mut self.0) {
            let free = word.trailing_ones();
            if free < 64 {
                *word |= 1 << free;
                return at + free as u16;
            }
        }
        u16::MAX
    }

    pub fn give(&mut self, note: u16) {
        if let Some(word) = self.0.get_mut(usize::from(note / 64)) {
            *word &= !(1 << (note % 64));
        }
    }
}

/// Frames that are being placed in a client's window: whose, from which slot on, how many are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Placing(pub u64);

impl Placing {
    /// Bits of the word: how many frames, the slot, the client, how many splits.
    const SLOT: u32 = 16;
    const CLIENT: u32 = 32;
    const MADE: u32 = 40;

    pub fn begin<O: Objects>(objects: &mut O, client: ClientId, slot: u16) -> Self {
        let placing = Self(
            VALID | u64::from(client.0 & 0xff) << Self::CLIENT | u64::from(slot) << Self::SLOT,
        );
        objects.store(PLACING_AT, placing.0);
        placing
    }

    /// One more frame is in the window. At most 2^16 - 1 are placed at a time.
    pub fn placed<O: Objects>(&mut self, objects: &mut O) {
        self.0 = self.0.wrapping_add(1);
        objects.store(PLACING_AT, self.0);
    }

    /// One more split was made for it: if it comes to nothing, that goes, too. There are at most as many as nodes.
    pub fn made<O: Objects>(&mut self, objects: &mut O, note: u16) {
        let count = (self.0 >> Self::MADE & 0xffff) as usize;
        objects.store(MADE_AT + count.min(MAX_NODES - 1), note.into());
        self.0 = self.0.wrapping_add(1 << Self::MADE);
        objects.store(PLACING_AT, self.0);
    }
}

/// Notes a split.
pub(super) fn note<O: Objects>(objects: &mut O, node: &Node) {
    let kind = match node.parts {
        Parts::Frames => FRAMES,
        Parts::Untypeds => 0,
    };
    let word = VALID
        | kind
        | node.base >> PAGE_BITS & ((1 << BITS) - 1)
        | u64::from(node.bits & 0x3f) << BITS
        | (u64::from(node.first) & SLOT_MASK) << SLOT;
    if node.note < MAX_NODES as u16 {
        let word = word | check(word, node.note);
        objects.store(NODES_AT + usize::from(node.note), word);
    }
}

/// What the bits for it are to be in word number `note`: no bit of a word can be another without one of these.
const fn check(word: u64, note: u16) -> u64 {
    let mut folded = word & !CHECK_MASK ^ (note as u64) << 1;
    folded ^= folded >> 32;
    folded ^= folded >> 16;
    folded ^= folded >> 8;
    folded ^= folded >> 4;
    (folded & 0xf) << CHECK
}

/// It is noted no more.
pub(super) fn forget<O: Objects>(objects: &mut O, node: &Node) {
    if node.note < MAX_NODES as u16 {
        objects.store(NODES_AT + usize::from(node.note), 0);
    }
}

/// What a word says, if that can be a split.
fn node(word: u64, note: u16) -> Option<Node> {
    if word & VALID == 0 || word & CHECK_MASK != check(word, note) {
        return None;
    }
    let bits = (word >> BITS & 0x3f) as u8;
    let base = (word & ((1 << BITS) - 1)) << PAGE_BITS;
    let parts = if word & FRAMES == 0 {
        Parts::Untypeds
    } else {
        Parts::Frames
    };
    let part_bits = match parts {
        Parts::Frames if bits == LARGE_BITS => LARGE_BITS,
        Parts::Frames => PAGE_BITS,
        Parts::Untypeds => SIZES.into_iter().find(|part| *part < bits)?,
    };
    let count_bits = bits.checked_sub(part_bits)?;
    // At most 32 parts; a block lies at a multiple of its size.
    (count_bits <= 5 && base & ((1u64 << bits) - 1) == 0).then_some(Node {
        base,
        first: (word >> SLOT & SLOT_MASK) as u32,
        bits,
        part_bits,
        parts,
        note,
    })
}

impl Bank {
    /// After a restart, before [`Self::recover`]: frames of this region stay.
    pub fn keep(&mut self, region: RegionId) {
        // As many as there were.
        let _ = self.know(region, None);
    }

    /// After a restart: knows the splits again that belong to regions which stay, and takes everything else back, also
    /// frames that were being placed.
    ///
    /// # Errors
    /// `KernelRefused`: frames may be left.
    pub fn recover<O: Objects>(&mut self, objects: &mut O) -> Result<(), Refusal> {
        clear_placed(objects);
        for note in 0..MAX_NODES as u16 {
            let place = NODES_AT + usize::from(note);
            let known = node(objects.load(place), note)
                .filter(|node| self.is_used(node.block()))
                .is_some_and(|node| self.enter(node));
            if !known {
                objects.store(place, 0);
            }
        }
        let mut result = Ok(());
        for piece in self.pieces.clone() {
            result = result.and(self.know_again(objects, piece));
        }
        self.drop_strangers(objects);
        result
    }

    fn enter(&mut self, node: Node) -> bool {
        let Err(place) = self.find_node(node.base, node.bits) else {
            return false;
        };
        self.nodes.insert(place, node).is_ok()
    }

    /// Goes down from a block: what of it is noted is adopted, the rest taken back.
    fn know_again<O: Objects>(&mut self, objects: &mut O, piece: Block) -> Result<(), Refusal> {
        let mut result = Ok(());
        let mut next = Some(piece.base);
        // Each round leaves a block behind; there are as many as splits have parts.
        while let Some(address) = next.filter(|address| *address <= piece.last()) {
            let mut block = piece;
            loop {
                let place = self.find_node(block.base, block.bits);
                let node = place.ok().and_then(|place| self.nodes.get(place).copied());
                let Some(node) = node else {
                    result = result.and(objects.revoke(block.slot));
                    break;
                };
                // Known, and come to by its first address: to be adopted now.
                if address == block.base && !self.notes.has(node.note) {
                    if !objects.adopt(node.first, node.count()) {
                        if let Ok(place) = place {
                            self.nodes.remove(place);
                        }
                        forget(objects, &node);
                        continue;
                    }
                    self.notes.set(node.note);
                    self.split_bytes = self.split_bytes.saturating_add(node.frame_bytes());
                }
                if node.parts == Parts::Frames {
                    result = result.and(self.know_frames(objects, &node));
                    break;
                }
                block = node.part(address);
            }
            next = block.last().checked_add(1);
        }
        result
    }

    /// Frames of a split that stays: those of no region that stays are taken from whoever has copies, and the shard has
    /// mapped none in this life.
    fn know_frames<O: Objects>(&self, objects: &mut O, node: &Node) -> Result<(), Refusal> {
        let mut result = Ok(());
        for n in 0..u64::from(node.count()) {
            let frame = node.part(node.base + (n << node.part_bits));
            objects.unmap(frame.slot, frame.bits);
            if !self.is_used(frame) {
                result = result.and(objects.revoke(frame.slot));
            }
        }
        result
    }

    /// Splits of what was never split go: nobody made them.
    fn drop_strangers<O: Objects>(&mut self, objects: &mut O) {
        let Self { nodes, notes, .. } = self;
        nodes.retain(|node| {
            let known = notes.has(node.note);
            if !known {
                forget(objects, node);
            }
            known
        });
    }
}

impl Notes {
    const fn has(&self, note: u16) -> bool {
        let word = note as usize / 64;
        word < self.0.len() && self.0[word] >> (note % 64) & 1 != 0
    }

    fn set(&mut self, note: u16) {
        if let Some(word) = self.0.get_mut(usize::from(note / 64)) {
            *word |= 1 << (note % 64);
        }
    }
}

impl Node {
    const fn block(&self) -> Block {
        Block {
            base: self.base,
            bits: self.bits,
            slot: 0,
        }
    }
}

/// Takes frames out of a window that were being placed there: whoever asked for them asks again.
fn clear_placed<O: Objects>(objects: &mut O) {
    let word = objects.load(PLACING_AT);
    if word & VALID != 0 && was_placing(objects).is_some() {
        let client = ClientId((word >> Placing::CLIENT & 0xff) as u16);
        let slot = (word >> Placing::SLOT) as u16;
        // The last one may be there or not.
        let end = (word as u16).saturating_add(1).min(crate::MAX_FRAMES);
        (0..end).for_each(|n| objects.clear(client, slot.saturating_add(n)));
        let made = (word >> Placing::MADE & 0xffff) as usize;
        for n in 0..made.min(MAX_NODES) {
            let note = objects.load(MADE_AT + n) as usize;
            if note < MAX_NODES {
                objects.store(NODES_AT + note, 0);
            }
        }
    }
    placed(objects);
}
