//! [`Bank`]: device memory from untypeds to frames, over the few kernel
//! operations of [`Objects`].
//!
//! At boot every BAR gets an untyped of its own ([`Bank::prepare`]). When frames
//! are wanted it is split, top down: an untyped into up to 64 equal ones, the
//! last level into frames, so that any page can be had without making them all.
//! Revoking the BAR's untyped takes everything below it, wherever it is, and
//! leaves slots and memory as they were at boot.

use heapless::Vec;
use ipc_proto::{ClientId, Refusal, Rule};

use crate::carve::{Cut, Piece, carve};
use crate::env::RegionId;

/// Most BARs (or pages that small BARs share) that can be given out.
pub const MAX_REGIONS: usize = 256;
/// Most pieces of untyped that are kept for later.
pub const MAX_PIECES: usize = 512;
/// Most untypeds that are split at a time, over all BARs.
pub const MAX_NODES: usize = 512;

/// Bits of a page.
const PAGE_BITS: u8 = 12;
/// An untyped is split into at most 2^6 parts.
const FAN_BITS: u8 = 6;

/// What the bank needs of the kernel and of the shard's slots. A call that fails has changed nothing.
pub trait Objects {
    /// Makes `count` untypeds of 2^`bits` bytes from the untyped in slot `untyped`, in new slots in a
    /// row; gives the first.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    fn split(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal>;
    /// Makes `count` frames of 4 KiB, likewise.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    fn frames(&mut self, untyped: u32, count: u32) -> Result<u32, Refusal>;
    /// Deletes everything derived from the capability in a slot.
    ///
    /// # Errors
    /// `KernelRefused`.
    fn revoke(&mut self, slot: u32) -> Result<(), Refusal>;
    /// Takes back slots whose capabilities are gone.
    fn forget(&mut self, first: u32, count: u32);
    /// Copies a frame into a client's window.
    ///
    /// # Errors
    /// `WindowSlotOccupied`, `WindowSlotOutOfRange`, `NoWindow`, `KernelRefused`.
    fn place(&mut self, frame: u32, client: ClientId, slot: u16) -> Result<(), Refusal>;
    /// Empties a slot of a client's window.
    fn clear(&mut self, client: ClientId, slot: u16);
}

/// The memory of a BAR.
#[derive(Clone, Copy, Debug)]
struct Region {
    base: u64,
    bits: u8,
    /// Slot of its untyped.
    untyped: u32,
}

/// An untyped below a region's that has been split (the region's own among them).
#[derive(Clone, Copy, Debug)]
struct Node {
    region: RegionId,
    /// First page, counted from the region's start.
    page: u32,
    /// Size: 2^bits bytes.
    bits: u8,
    /// First slot of its parts.
    parts: u32,
}

impl Node {
    /// Size of each part: 2^bits bytes. A multiple of [`FAN_BITS`] above a page, so that the last
    /// level is full.
    const fn part_bits(bits: u8) -> u8 {
        match bits.checked_sub(PAGE_BITS + 1) {
            Some(above) => PAGE_BITS + above / FAN_BITS * FAN_BITS,
            None => PAGE_BITS,
        }
    }

    /// How many parts.
    const fn count(bits: u8) -> u32 {
        1 << (bits - Self::part_bits(bits))
    }
}

/// Device memory of a shard.
#[derive(Debug)]
pub struct Bank {
    pieces: Vec<Piece, MAX_PIECES>,
    regions: Vec<Region, MAX_REGIONS>,
    nodes: Vec<Node, MAX_NODES>,
    split_bytes: u64,
}

impl Bank {
    /// A bank without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pieces: Vec::new(),
            regions: Vec::new(),
            nodes: Vec::new(),
            split_bytes: 0,
        }
    }

    /// Takes an untyped of 2^`bits` bytes of device memory in.
    ///
    /// # Errors
    /// `SlotsExhausted` with the bound when there are too many.
    pub fn add(&mut self, slot: u32, base: u64, bits: u8) -> Result<(), Refusal> {
        let piece = Piece {
            slot,
            base,
            bits,
            used: 0,
        };
        self.pieces
            .push(piece)
            .map_err(|_| Refusal::new(Rule::SlotsExhausted, MAX_PIECES as u64))
    }

    /// Bytes of device memory that have been split for frames (at boot: none).
    #[must_use]
    pub const fn split_bytes(&self) -> u64 {
        self.split_bytes
    }

    /// Makes an untyped for the memory at `base`, 2^`bits` bytes, unless there is one.
    ///
    /// # Errors
    /// `PageOutOfRange` when no piece of untyped holds it; `SlotsExhausted`; `KernelRefused`.
    pub fn prepare<O: Objects>(
        &mut self,
        objects: &mut O,
        base: u64,
        bits: u8,
    ) -> Result<RegionId, Refusal> {
        if let Some(at) = (0..)
            .zip(&self.regions)
            .find_map(|(at, region)| (region.base == base && region.bits == bits).then_some(at))
        {
            return Ok(RegionId(at));
        }
        let full = Refusal::new(Rule::SlotsExhausted, MAX_REGIONS as u64);
        if bits < PAGE_BITS || self.regions.is_full() {
            return Err(full);
        }
        let index = self
            .pieces
            .iter()
            .position(|piece| piece.holds(base, bits))
            .ok_or(Refusal::new(Rule::PageOutOfRange, base))?;
        let piece = *self.pieces.get(index).ok_or(full)?;
        for cut in carve(&piece, base, bits) {
            let slot = self.cut(objects, index, cut)?;
            // One that cannot be kept in mind is lost for BARs that are placed later, nothing else.
            let _ = self.pieces.push(Piece {
                slot,
                base: cut.base,
                bits: cut.bits,
                used: 0,
            });
        }
        let untyped = self.cut(objects, index, Cut { base, bits })?;
        let id = self.regions.len() as u16;
        self.regions
            .push(Region {
                base,
                bits,
                untyped,
            })
            .map_err(|_| full)?;
        Ok(RegionId(id))
    }

    /// Cuts a block off at the watermark of piece `index`.
    fn cut<O: Objects>(&mut self, objects: &mut O, index: usize, cut: Cut) -> Result<u32, Refusal> {
        let piece = self
            .pieces
            .get_mut(index)
            .ok_or(Refusal::new(Rule::PageOutOfRange, cut.base))?;
        let slot = objects.split(piece.slot, cut.bits, 1)?;
        // The block is inside the piece.
        piece.used = (cut.base - piece.base).saturating_add(1 << cut.bits);
        Ok(slot)
    }

    /// Places frames of `count` pages of a region from page `first` in a client's window from `slot`
    /// on: all or none.
    ///
    /// # Errors
    /// `PageOutOfRange`, `SlotsExhausted`, `KernelRefused`, and what the window refuses.
    pub fn place<O: Objects>(
        &mut self,
        objects: &mut O,
        region: RegionId,
        first: u32,
        count: u16,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        for n in 0..count {
            let placed = self
                .frame(objects, region, first.saturating_add(u32::from(n)))
                .and_then(|frame| objects.place(frame, client, slot.saturating_add(n)));
            if let Err(refusal) = placed {
                (0..n).for_each(|n| objects.clear(client, slot.saturating_add(n)));
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Slot of the frame of a page, made if need be.
    ///
    /// # Errors
    /// `PageOutOfRange`, `SlotsExhausted`, `KernelRefused`.
    pub fn frame<O: Objects>(
        &mut self,
        objects: &mut O,
        region: RegionId,
        page: u32,
    ) -> Result<u32, Refusal> {
        let outside = Refusal::new(Rule::PageOutOfRange, u64::from(page));
        let whole = *self.regions.get(usize::from(region.0)).ok_or(outside)?;
        if u64::from(page) >> (whole.bits - PAGE_BITS) != 0 {
            return Err(outside);
        }
        let (mut untyped, mut bits, mut start) = (whole.untyped, whole.bits, 0);
        // Each round goes one level down: at most eight.
        loop {
            let part_bits = Node::part_bits(bits);
            let parts = self.split(objects, region, untyped, bits, start)?;
            let part_pages = part_bits - PAGE_BITS;
            let part = (page - start) >> part_pages;
            if part_bits == PAGE_BITS {
                return Ok(parts + part);
            }
            (untyped, bits, start) = (parts + part, part_bits, start + (part << part_pages));
        }
    }

    /// First slot of the parts of an untyped, which is split if it was not.
    fn split<O: Objects>(
        &mut self,
        objects: &mut O,
        region: RegionId,
        untyped: u32,
        bits: u8,
        page: u32,
    ) -> Result<u32, Refusal> {
        let known = self
            .nodes
            .iter()
            .find(|node| (node.region, node.page, node.bits) == (region, page, bits));
        if let Some(node) = known {
            return Ok(node.parts);
        }
        let full = Refusal::new(Rule::SlotsExhausted, MAX_NODES as u64);
        if self.nodes.is_full() {
            return Err(full);
        }
        let part_bits = Node::part_bits(bits);
        let parts = if part_bits == PAGE_BITS {
            objects.frames(untyped, Node::count(bits))?
        } else {
            objects.split(untyped, part_bits, Node::count(bits))?
        };
        self.nodes
            .push(Node {
                region,
                page,
                bits,
                parts,
            })
            .map_err(|_| full)?;
        if part_bits == PAGE_BITS {
            self.split_bytes = self.split_bytes.saturating_add(1 << bits);
        }
        Ok(parts)
    }

    /// Takes every frame of a region away, and everything else that was made of it since boot.
    ///
    /// # Errors
    /// `KernelRefused`: frames may be left, and their slots stay taken.
    pub fn revoke<O: Objects>(&mut self, objects: &mut O, region: RegionId) -> Result<(), Refusal> {
        let Some(untyped) = self
            .regions
            .get(usize::from(region.0))
            .map(|region| region.untyped)
        else {
            return Ok(());
        };
        if !self.nodes.iter().any(|node| node.region == region) {
            return Ok(());
        }
        objects.revoke(untyped)?;
        let mut at = 0;
        while let Some(&node) = self.nodes.get(at) {
            if node.region != region {
                at += 1;
                continue;
            }
            self.nodes.swap_remove(at);
            objects.forget(node.parts, Node::count(node.bits));
            if Node::part_bits(node.bits) == PAGE_BITS {
                self.split_bytes = self.split_bytes.saturating_sub(1 << node.bits);
            }
        }
        Ok(())
    }
}

impl Default for Bank {
    fn default() -> Self {
        Self::new()
    }
}
