//! Making buffers and taking them apart. A buffer's record lists everything it
//! has from the moment it has it, so that one function, [`Shard::dismantle`],
//! undoes a buffer that is done, half made, or a share.

use ipc_proto::{ClientId, PagePreference, Refusal, Rule};

use super::{Shard, effect_refusal, pool_refusal};
use crate::backend::{Addressing, Backend, Extent};
use crate::buffers::{Buffer, Content, Fate, MAX_BLOCKS, MAX_PAGES, NO_FRAMES};
use crate::env::{EffectError, Env, Note, Placed, Slot, Target};
use crate::notes::{self, Node, Placing, Stage};
use crate::pool::{Block, PoolError};

const SMALL_BITS: u8 = 12;
const LARGE_BITS: u8 = 21;
/// Most objects of one retype (the kernel's CONFIG_RETYPE_FAN_OUT_LIMIT).
const RETYPE_MAX: u32 = 256;
/// Most bytes that a turn clears of itself.
const CLEARED_AT_ONCE: u64 = 64 << 10;
/// The smallest object the kernel makes (seL4 `MinUntypedBits`).
const SMALLEST_BITS: u8 = 4;

/// Where a buffer's frames are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// At the server, which places copies.
    Kept,
    /// In its holder's window from this slot on.
    InWindow(u16),
}

/// When memory that is given back is cleared. The kernel does it at the next retype at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clearing {
    /// In this turn, where that is short: then the next holder need not wait for it, and nothing lingers.
    Now,
    /// When it is made into something again: many buffers end in this turn.
    Later,
}

/// Page size and number of pages of a buffer of `bytes`.
///
/// # Errors
/// `BadBufferSize`, about the largest size there is with these pages.
pub(super) fn shape(bytes: u64, preference: PagePreference) -> Result<(u8, u32), Refusal> {
    let large = preference == PagePreference::Large && bytes.is_multiple_of(1 << LARGE_BITS);
    let page_bits = if large { LARGE_BITS } else { SMALL_BITS };
    let most = u64::from(MAX_PAGES) << page_bits;
    if bytes == 0 || bytes > most || !bytes.is_multiple_of(1 << page_bits) {
        return Err(Refusal::new(Rule::BadBufferSize, most));
    }
    Ok((page_bits, (bytes >> page_bits) as u32))
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Enters an empty buffer for a client, against its limits.
    pub(super) fn enter(&mut self, holder: ClientId, content: Content) -> Result<u16, Refusal> {
        let limit = self.buffers_a_client;
        let client = self.client(holder)?;
        if client.buffers >= limit {
            return Err(Refusal::new(Rule::TooManyBuffers, limit.into()));
        }
        let buffer = Buffer {
            holder,
            content,
            master: None,
            mapping: None,
        };
        let bytes = buffer.quota_bytes();
        let left = client.limits.quota.saturating_sub(client.used_bytes);
        if bytes > left {
            return Err(Refusal::new(Rule::DmaQuota, left));
        }
        // Others wait while it is made, and while it is freed.
        if bytes > client.limits.largest {
            return Err(Refusal::new(Rule::BufferTooLarge, client.limits.largest));
        }
        let index = self.buffers.insert(buffer).ok_or(Rule::TooManyBuffers)?;
        let client = self.client(holder)?;
        client.used_bytes += bytes;
        client.buffers += 1;
        self.note_buffer(index, Stage::Begun);
        Ok(index)
    }

    /// Gives a fresh buffer its memory. On failure the record holds what was made.
    pub(super) fn fill(
        &mut self,
        index: u16,
        page_bits: u8,
        pages: u32,
        frames: Frames,
    ) -> Result<(), Refusal> {
        let contiguous = self.addressing == Addressing::Physical;
        let mut left = pages;
        for number in 0..MAX_BLOCKS {
            if left == 0 {
                return Ok(());
            }
            // All that is left in one block, or as much of it as a block holds without waste.
            let last = contiguous || number + 1 == MAX_BLOCKS;
            let order = if last {
                left.next_power_of_two().trailing_zeros()
            } else {
                left.ilog2()
            } as u8;
            let smallest = if last { order } else { 0 };
            let block = self.take_block(page_bits, order, smallest)?;
            let held = 1u32 << (self.pool.bits(block) - page_bits).min(31);
            let taken = held.min(left);
            let frames = match frames {
                Frames::Kept => Frames::Kept,
                // The sum is inside the window, which was checked.
                Frames::InWindow(slot) => {
                    Frames::InWindow(slot.wrapping_add((pages - left) as u16))
                }
            };
            left -= taken;
            let extent = Extent {
                physical: self.pool.base(block),
                bytes: u64::from(taken) << page_bits,
                frames: NO_FRAMES,
                page_bits,
            };
            self.add_block(index, block, extent)?;
            self.make_frames((index, number), block, extent, frames)?;
        }
        Ok(())
    }

    /// A block of 2^`order` pages, or the largest smaller one there is.
    fn take_block(&mut self, page_bits: u8, order: u8, smallest: u8) -> Result<Block, Refusal> {
        let mut outcome = Err(PoolError::Exhausted);
        for order in (smallest..=order).rev() {
            outcome = self
                .pool
                .take(&mut self.env, self.slots, page_bits.saturating_add(order));
            if outcome != Err(PoolError::Exhausted) {
                break;
            }
        }
        outcome.map_err(pool_refusal)
    }

    fn add_block(&mut self, index: u16, block: Block, extent: Extent) -> Result<(), Refusal> {
        if let Some(memory) = self.buffers.memory_mut(index)
            && !memory.extents.is_full()
            && memory.blocks.push(block).is_ok()
        {
            // As many extents as blocks, and room for the same number.
            let _ = memory.extents.push(extent);
            return Ok(());
        }
        // The caller made the record, and makes no more blocks than it holds.
        self.pool.give(block);
        Err(Rule::StaleCapability.into())
    }

    /// Makes the frames of a buffer's block `number`.
    fn make_frames(
        &mut self,
        (index, number): (u16, usize),
        block: Block,
        extent: Extent,
        frames: Frames,
    ) -> Result<(), Refusal> {
        let pages = pages_of(&extent);
        let stale = Refusal::from(Rule::StaleCapability);
        let holder = self.buffers.get(index).ok_or(stale)?.holder;
        let first = match frames {
            Frames::Kept => self.slots.take_run(pages, 1).ok_or(Rule::SlotsExhausted)?,
            Frames::InWindow(_) => NO_FRAMES,
        };
        if frames == Frames::Kept {
            if let Some(extent) = self
                .buffers
                .memory_mut(index)
                .and_then(|memory| memory.extents.get_mut(number))
            {
                extent.frames = first;
            }
            notes::note_slots(&mut self.env, first.saturating_add(pages));
        }
        let used = Node::Used {
            buffer: index,
            number: number as u8,
            frames: first,
            pages,
        };
        self.env.store(self.pool.word(block), used.word());
        let untyped = self.pool.slot(block);
        let mut made = 0;
        while made < pages {
            let count = (pages - made).min(RETYPE_MAX);
            let into = match frames {
                Frames::Kept => Target::Own(first + made),
                // Inside the window, as all of them. A holder that deletes the frames of one round before the next has
                // the next made of the first pages again: its own memory still, and zeros.
                Frames::InWindow(slot) => Target::Window(holder, slot.wrapping_add(made as u16)),
            };
            let outcome = self.env.frames(untyped, extent.page_bits, into, count);
            outcome.map_err(|error| match (frames, error) {
                (Frames::InWindow(slot), EffectError::Occupied) => {
                    Refusal::new(Rule::WindowSlotOccupied, slot.into())
                }
                _ => effect_refusal(error),
            })?;
            made += count;
        }
        Ok(())
    }

    /// Makes the buffer's capability and puts it into its holder's window.
    pub(super) fn hand_out(&mut self, index: u16, window_slot: u16) -> Result<(), Refusal> {
        let badge = self.buffers.badge(index);
        let master = self.slots.take().ok_or(Rule::SlotsExhausted)?;
        notes::note_slots(&mut self.env, master.saturating_add(1));
        let minted = self.env.mint(badge, master);
        if let Err(error) = minted {
            let _ = self.slots.give(master);
            return Err(effect_refusal(error));
        }
        let Some(buffer) = self.buffers.get_mut(index) else {
            return Err(Rule::StaleCapability.into());
        };
        buffer.master = Some(master);
        let holder = buffer.holder;
        self.place(Placed::Buffer, master, holder, window_slot)
    }

    /// Copies a capability into a window.
    fn place(
        &mut self,
        what: Placed,
        slot: Slot,
        client: ClientId,
        window_slot: u16,
    ) -> Result<(), Refusal> {
        self.env
            .place(what, slot, client, window_slot)
            .map_err(|error| match error {
                EffectError::Occupied => Refusal::new(Rule::WindowSlotOccupied, window_slot.into()),
                EffectError::Kernel(number) => Refusal::new(Rule::KernelRefused, number),
            })
    }

    /// Places frames of a buffer in its holder's window: all of them or none.
    pub(super) fn place_frames(
        &mut self,
        index: u16,
        first: u32,
        count: u16,
        slot: u16,
    ) -> Result<(), Refusal> {
        let stale = Refusal::from(Rule::StaleCapability);
        let holder = self.buffers.get(index).ok_or(stale)?.holder;
        let memory = self.buffers.memory(index).ok_or(stale)?;
        let (pages, extents) = (memory.pages, memory.extents.clone());
        let end = first
            .checked_add(count.into())
            .filter(|end| *end <= pages)
            .ok_or(Refusal::new(Rule::PageOutOfRange, pages.into()))?;
        self.window(holder, slot, count)?;
        let mut placed = 0u16;
        let mut extent_first = 0u32;
        for extent in &extents {
            let extent_end = extent_first + pages_of(extent);
            for page in first.max(extent_first)..end.min(extent_end) {
                let frame = extent.frames + (page - extent_first);
                // The sum is inside the window, which was checked.
                let to = slot.wrapping_add(placed);
                let note = Placing {
                    client: holder,
                    slot,
                    placed: placed.wrapping_add(1),
                };
                self.env.store(notes::PLACING, note.word());
                if let Err(refusal) = self.place(Placed::Frame, frame, holder, to) {
                    for done in 0..placed {
                        self.env.take_back(holder, slot.wrapping_add(done));
                    }
                    self.env.store(notes::PLACING, 0);
                    return Err(refusal);
                }
                placed += 1;
            }
            extent_first = extent_end;
        }
        self.env.store(notes::PLACING, 0);
        Ok(())
    }

    /// Takes a buffer apart that is mapped nowhere and has no shares: its capabilities are gone
    /// everywhere, its frames too, and its memory is free, or lost. Goes on past refusals.
    ///
    /// # Errors
    /// The first refusal; what the kernel did not take apart is not used again.
    pub(super) fn dismantle(
        &mut self,
        index: u16,
        fate: Fate,
        clearing: Clearing,
    ) -> Result<(), Refusal> {
        self.note_buffer(index, Stage::Ending);
        let Some(buffer) = self.buffers.remove(index) else {
            return Err(Rule::StaleCapability.into());
        };
        let mut outcome = Ok(());
        if let Some(master) = buffer.master {
            match self.env.retire(master) {
                Ok(()) => {
                    let _ = self.slots.give(master);
                }
                Err(error) => outcome = Err(effect_refusal(error)),
            }
        }
        let bytes = buffer.quota_bytes();
        match buffer.content {
            Content::Memory(memory) => {
                let fate = match memory.fate {
                    Fate::Lose => Fate::Lose,
                    Fate::Reuse => fate,
                };
                let clearing = match memory.bytes() <= CLEARED_AT_ONCE {
                    true => clearing,
                    false => Clearing::Later,
                };
                for (block, extent) in memory.blocks.iter().zip(&memory.extents) {
                    outcome = outcome.and(self.return_block(*block, extent, fate, clearing));
                }
            }
            Content::Share { of } => {
                if let Some(memory) = self.buffers.memory_mut(of) {
                    memory.shares = memory.shares.saturating_sub(1);
                    if fate == Fate::Lose {
                        memory.fate = Fate::Lose;
                        self.note_loss(of);
                    }
                }
            }
        }
        let client = self.client(buffer.holder)?;
        client.used_bytes = client.used_bytes.saturating_sub(bytes);
        client.buffers = client.buffers.saturating_sub(1);
        self.note_free_place(index);
        outcome
    }

    /// Has the kernel clear an untyped that has no children: two of the smallest objects are made of it and taken away
    /// again, so that all of it but their page is clear when it is made into something next.
    ///
    /// # Errors
    /// They are not taken away. That they cannot be made is no error: it is cleared later.
    fn clear(&mut self, untyped: Slot) -> Result<(), EffectError> {
        let Some(pair) = self.slots.take_run(2, 1) else {
            return Ok(());
        };
        notes::note_slots(&mut self.env, pair.saturating_add(2));
        let made = self.env.split(untyped, SMALLEST_BITS, pair);
        if made.is_ok() {
            self.env.revoke(untyped)?;
        }
        let _ = self.slots.give_run(pair, 2);
        Ok(())
    }

    fn return_block(
        &mut self,
        block: Block,
        extent: &Extent,
        fate: Fate,
        clearing: Clearing,
    ) -> Result<(), Refusal> {
        // One revocation takes every frame and every copy of it. The kernel unmaps each, and clears
        // the memory when it is retyped again.
        let mut revoked = self.env.revoke(self.pool.slot(block));
        if revoked.is_ok() && clearing == Clearing::Now && fate == Fate::Reuse {
            revoked = self.clear(self.pool.slot(block));
        }
        if revoked.is_ok() && extent.frames != NO_FRAMES {
            let _ = self.slots.give_run(extent.frames, pages_of(extent));
        }
        let word = self.pool.word(block);
        if revoked.is_ok() && fate == Fate::Reuse {
            self.env.store(word, Node::Free.word());
            self.pool.give(block);
        } else {
            self.env.store(word, Node::Lost.word());
            let bytes = extent.bytes;
            self.env.note(Note::MemoryLost { bytes });
        }
        revoked.map_err(effect_refusal)
    }
}

/// Pages of an extent. A buffer has at most `MAX_PAGES`.
pub(super) fn pages_of(extent: &Extent) -> u32 {
    (extent.bytes >> extent.page_bits) as u32
}
