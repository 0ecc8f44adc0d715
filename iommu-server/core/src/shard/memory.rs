//! Making buffers and taking them apart. A buffer's record lists everything it
//! has from the moment it has it, so that one function, [`Shard::dismantle`],
//! undoes a buffer that is done, half made, or a share.

use heapless::Vec;
use ipc_proto::{ClientId, PagePreference, Refusal, Rule};

use super::{Shard, effect_refusal, pool_refusal};
use crate::backend::{Addressing, Backend};
use crate::buffers::{Buffer, Content, Fate, MAX_BLOCKS, MAX_PAGES, Piece};
use crate::env::{EffectError, Env, Note, Placed, Slot};
use crate::pool::{Block, PoolError};

const SMALL_BITS: u8 = 12;
const LARGE_BITS: u8 = 21;
/// Most objects of one retype (the kernel's CONFIG_RETYPE_FAN_OUT_LIMIT).
const RETYPE_MAX: u32 = 256;

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
        let index = self.buffers.insert(buffer).ok_or(Rule::TooManyBuffers)?;
        let client = self.client(holder)?;
        client.used_bytes += bytes;
        client.buffers += 1;
        Ok(index)
    }

    /// Gives a fresh buffer its memory. On failure the record holds what was made.
    pub(super) fn fill(&mut self, index: u16, page_bits: u8, pages: u32) -> Result<(), Refusal> {
        let contiguous = self.backend.addressing() == Addressing::Physical;
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
            let piece = Piece {
                block,
                pages: held.min(left),
                frames: None,
                physical: self.pool.base(block),
            };
            left -= piece.pages;
            self.add_piece(index, piece)?;
            self.make_frames(index, number, piece, page_bits)?;
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

    fn add_piece(&mut self, index: u16, piece: Piece) -> Result<(), Refusal> {
        if let Some(Content::Memory { pieces, .. }) = self
            .buffers
            .get_mut(index)
            .map(|buffer| &mut buffer.content)
            && pieces.push(piece).is_ok()
        {
            return Ok(());
        }
        // The caller made the record, and makes no more pieces than it holds.
        self.pool.give(piece.block);
        Err(Rule::StaleCapability.into())
    }

    fn make_frames(
        &mut self,
        index: u16,
        number: usize,
        piece: Piece,
        page_bits: u8,
    ) -> Result<(), Refusal> {
        let frames = self
            .slots
            .take_run(piece.pages, 1)
            .ok_or(Rule::SlotsExhausted)?;
        if let Some(Content::Memory { pieces, .. }) = self
            .buffers
            .get_mut(index)
            .map(|buffer| &mut buffer.content)
            && let Some(piece) = pieces.get_mut(number)
        {
            piece.frames = Some(frames);
        }
        let untyped = self.pool.slot(piece.block);
        let mut made = 0;
        while made < piece.pages {
            let count = (piece.pages - made).min(RETYPE_MAX);
            self.env
                .frames(untyped, page_bits, frames + made, count)
                .map_err(effect_refusal)?;
            made += count;
        }
        Ok(())
    }

    /// Makes the buffer's capability and puts it into its holder's window.
    pub(super) fn hand_out(&mut self, index: u16, window_slot: u16) -> Result<(), Refusal> {
        let badge = self.buffers.badge(index);
        let master = self.slots.take().ok_or(Rule::SlotsExhausted)?;
        if let Err(error) = self.env.mint(badge, master) {
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
        let (_, pages, pieces) = self.buffers.memory(index).ok_or(stale)?;
        let end = first
            .checked_add(count.into())
            .filter(|end| *end <= pages)
            .ok_or(Refusal::new(Rule::PageOutOfRange, pages.into()))?;
        self.window(holder, slot, count)?;
        let pieces: Vec<Piece, MAX_BLOCKS> = pieces.iter().copied().collect();
        let mut placed = 0u16;
        let mut piece_first = 0u32;
        for piece in &pieces {
            let piece_end = piece_first + piece.pages;
            let frames = piece.frames.unwrap_or(0);
            for page in first.max(piece_first)..end.min(piece_end) {
                let frame = frames + (page - piece_first);
                // The sum is inside the window, which was checked.
                if let Err(refusal) =
                    self.place(Placed::Frame, frame, holder, slot.wrapping_add(placed))
                {
                    for done in 0..placed {
                        self.env.take_back(holder, slot.wrapping_add(done));
                    }
                    return Err(refusal);
                }
                placed += 1;
            }
            piece_first = piece_end;
        }
        Ok(())
    }

    /// Takes a buffer apart that is mapped nowhere and has no shares: its capabilities are gone
    /// everywhere, its frames too, and its memory is free, or lost. Goes on past refusals.
    ///
    /// # Errors
    /// The first refusal; what the kernel did not take apart is not used again.
    pub(super) fn dismantle(&mut self, index: u16, fate: Fate) -> Result<(), Refusal> {
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
            Content::Memory {
                pieces,
                page_bits,
                fate: known,
                ..
            } => {
                let fate = if known == Fate::Lose { known } else { fate };
                for piece in pieces {
                    if let Err(refusal) = self.return_piece(piece, page_bits, fate) {
                        outcome = outcome.and(Err(refusal));
                    }
                }
            }
            Content::Share { of } => {
                if let Some(Content::Memory {
                    shares,
                    fate: behind,
                    ..
                }) = self.buffers.get_mut(of).map(|buffer| &mut buffer.content)
                {
                    *shares = shares.saturating_sub(1);
                    if fate == Fate::Lose {
                        *behind = Fate::Lose;
                    }
                }
            }
        }
        let client = self.client(buffer.holder)?;
        client.used_bytes = client.used_bytes.saturating_sub(bytes);
        client.buffers = client.buffers.saturating_sub(1);
        outcome
    }

    fn return_piece(&mut self, piece: Piece, page_bits: u8, fate: Fate) -> Result<(), Refusal> {
        // One revocation takes every frame and every copy of it. The kernel unmaps each, and clears
        // the memory when it is retyped again.
        let revoked = self.env.revoke(self.pool.slot(piece.block));
        if revoked.is_ok()
            && let Some(frames) = piece.frames
        {
            let _ = self.slots.give_run(frames, piece.pages);
        }
        if revoked.is_ok() && fate == Fate::Reuse {
            self.pool.give(piece.block);
        } else {
            self.env.note(Note::MemoryLost {
                bytes: u64::from(piece.pages) << page_bits,
            });
        }
        revoked.map_err(effect_refusal)
    }
}
