//! A shard after a restart: its memory is as at the first start, everything else went on. What it held is found out of
//! the units' tables (where requests go), of the ledger (who holds what), and of nothing else.
//!
//! 1. The pool as it was split, buffers with their blocks, aliases (`buffers`, here).
//! 2. Contexts, devices and messages, as the tables have them (`devices`). Nothing more is let through than was.
//! 3. Mappings: the page tables' translations, matched with buffers (`mappings`). A translation of nobody's is taken away.
//! 4. [`Adopt::settle`]: what is not known is blocked, and every unit forgets all that it may have cached: so what was
//!    being taken away is gone, before its memory counts as free.
//! 5. What was begun is undone, what was being taken back is taken back; slots of nobody's are emptied.
//!
//! What it reads may be anything. What does not fit together is taken back: a buffer that is not whole, a device that is
//! not where it should be, which its pci-server hears of as trouble.

mod buffers;
mod devices;
mod mappings;

use ipc_proto::{ClientId, Trouble};
use ledger::Words;

use super::ledger::buffer_word;
use super::memory::Clearing;
use super::{Setup, SetupError, Shard, Standing, Storage};
use crate::adopt::Adopt;
use crate::buffers::{Content, Fate, MAX_BUFFERS};
use crate::env::{Env, Slot};
use crate::notes::{self, BufferNote, DeviceNote, Placing, Stage};

/// Whether a shard with this ledger has started before: then it is to be recovered.
pub fn has_started<W: Words>(words: &W) -> bool {
    words.load(notes::HEADER) == notes::STARTED
}

impl<'a, E: Env, B: Adopt> Shard<'a, E, B> {
    /// The shard that [`Self::new`] has made in an earlier life with the same setup, over a back end that has taken its
    /// units up.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn recover(
        storage: &'a mut Storage,
        env: E,
        backend: B,
        setup: &Setup<'_>,
    ) -> Result<Self, SetupError> {
        let mut shard = Self::assemble(storage, env, backend, setup)?;
        if shard.env.count() < notes::WORDS {
            return Err(SetupError::Ledger);
        }
        shard.pool.recover(&mut shard.env, shard.slots);
        shard.restore_buffers();
        shard.restore_aliases();
        shard.restore_contexts();
        shard.restore_devices();
        shard.restore_mappings();
        shard.restore_messages();
        shard.settle();
        shard.finish();
        Ok(shard)
    }

    /// Has everything else blocked and forgotten. Memory of which that is not certain is not used again.
    fn settle(&mut self) {
        let requesters = &*self.requesters;
        let known = |id| requesters.iter().any(|found| found.id == id);
        let mut doubted = 0u64;
        self.backend.settle(&known, &mut |client: ClientId| {
            doubted |= 1u64.checked_shl(client.0.into()).unwrap_or(0);
        });
        if doubted == 0 {
            return;
        }
        for index in 0..MAX_BUFFERS as u16 {
            let Some(buffer) = self.buffers.get(index) else {
                continue;
            };
            let of = match buffer.content {
                Content::Memory(_) => index,
                Content::Share { of } => of,
            };
            if doubted.checked_shr(buffer.holder.0.into()).unwrap_or(0) & 1 == 0 {
                continue;
            }
            if let Some(memory) = self.buffers.memory_mut(of) {
                memory.fate = Fate::Lose;
                self.note_loss(of);
            }
        }
    }

    /// Undoes and finishes what was under way.
    fn finish(&mut self) {
        self.take_placed_back();
        self.finish_devices();
        // What was cast off has no capability: the slot of its master is swept. Shares go before what they are of.
        for shares in [true, false] {
            for index in 0..MAX_BUFFERS as u16 {
                let cast_off = self.stage_of(index) != Some(Stage::Whole);
                let buffer = self.buffers.get(index);
                let kind = |content: &Content| matches!(content, Content::Share { .. });
                if cast_off && buffer.is_some_and(|buffer| kind(&buffer.content) == shares) {
                    // What the kernel refuses stays out of use.
                    let _ = self.dismantle(index, Fate::Reuse, Clearing::Later);
                }
            }
        }
        for client in 0..self.clients.len() as u16 {
            self.end_idle_contexts(ClientId(client));
        }
        self.keep_slots();
        self.env.sweep();
    }

    /// Frames that were on their way into a window: their owner asks again.
    fn take_placed_back(&mut self) {
        let Some(placing) = Placing::read(self.env.load(notes::PLACING)) else {
            return;
        };
        let fits = self.window(placing.client, placing.slot, placing.placed);
        if self.known(placing.client).is_ok() && fits.is_ok() {
            for number in 0..placing.placed {
                // The sum is inside the window, which was checked.
                let slot = placing.slot.wrapping_add(number);
                self.env.take_back(placing.client, slot);
            }
        }
        self.env.store(notes::PLACING, 0);
    }

    /// Detaches devices that are not whole; silences those that are not where they should be.
    fn finish_devices(&mut self) {
        let mut place = 0;
        while let Some(attached) = self.devices.get(place).copied() {
            let listed = self.devices.len();
            let note = DeviceNote::read(self.env.load(notes::DEVICES + place));
            if note.is_none_or(|note| note.stage != Stage::Whole) {
                // What is not confirmed stays listed, as ever.
                let _ = self.detach_device(attached.device);
            } else if attached.trouble.is_some() {
                self.silence_device(attached.device);
            }
            if self.devices.len() == listed {
                place += 1;
            }
        }
        self.hear_silent();
        for place in 0..self.devices.len() {
            let told = self.devices.get(place).copied();
            if let Some(attached) = told.filter(|attached| attached.trouble.is_some()) {
                self.tell_trouble(attached.device, Trouble::FaultStorm, 1);
            }
        }
    }

    /// How far a buffer is, as noted.
    fn stage_of(&self, index: u16) -> Option<Stage> {
        let note = BufferNote::read(self.env.load(buffer_word(index)));
        note.map(|note| note.stage)
    }

    /// The slots that are in use stay, and those that never were need no sweeping.
    fn keep_slots(&mut self) {
        let used = Slot::try_from(self.env.load(notes::SLOTS_END)).unwrap_or(Slot::MAX);
        let end = self.slots.first().saturating_add(self.slots.count());
        let mut first = self.slots.first();
        while first < end {
            let mut count = 0;
            let stays = |slot: Slot| slot >= used || self.slots.is_taken(slot);
            while first + count < end && stays(first + count) {
                count += 1;
            }
            if count > 0 {
                // Nobody else takes any of these.
                let _ = self.env.adopt(first, count);
            }
            first += count.max(1);
        }
    }

    /// A device that somebody believes attached and that is not: its pci-server hears of it.
    fn report_lost(&mut self, device: hw::Sbdf) {
        let stranger = super::Stranger {
            device,
            storm: crate::faults::Storm::new(),
            standing: Standing::Silenced,
            trouble: None,
        };
        if self.strangers.push(stranger).is_ok() {
            self.tell_trouble(device, Trouble::FaultStorm, 1);
        }
    }
}
