//! Buffers and aliases out of the ledger.

use ipc_proto::{Badge, BadgeKind};

use crate::adopt::Adopt;
use crate::backend::Extent;
use crate::buffers::{
    Buffer, Content, Fate, MAX_BLOCKS, MAX_BUFFERS, MAX_PAGES, Memory, NO_FRAMES, Sharing,
};
use crate::env::{Env, Note, Slot};
use crate::notes::{self, BufferNote, Kind, Node, Stage};
use crate::pool::Block;
use crate::shard::devices::MAX_ALIASES;
use crate::shard::ledger::buffer_word;
use crate::shard::{MAX_REQUESTERS, Shard};

impl<E: Env, B: Adopt> Shard<'_, E, B> {
    /// Enters every buffer that is noted, with its memory. What is not whole is noted as ending.
    pub(super) fn restore_buffers(&mut self) {
        for index in 0..MAX_BUFFERS as u16 {
            self.restore_buffer(index);
        }
        self.restore_blocks();
        for index in 0..MAX_BUFFERS as u16 {
            self.check_buffer(index);
        }
        for index in 0..MAX_BUFFERS as u16 {
            self.check_share(index);
        }
    }

    fn restore_buffer(&mut self, index: u16) {
        let word = self.env.load(buffer_word(index));
        let generation = notes::generation(word);
        let note = BufferNote::read(word).filter(|note| {
            let sensible = match note.kind {
                Kind::Memory { pages, .. } => (1..=MAX_PAGES).contains(&pages),
                Kind::Share(of) => usize::from(of) < MAX_BUFFERS && of != index,
            };
            sensible && generation != 0 && self.known(note.holder).is_ok()
        });
        let buffer = note.map(|note| Buffer {
            holder: note.holder,
            content: match note.kind {
                Kind::Memory { page_bits, pages } => Content::Memory(Memory {
                    fate: if note.lose { Fate::Lose } else { Fate::Reuse },
                    ..Memory::new(page_bits, pages, Sharing::Shareable)
                }),
                Kind::Share(of) => Content::Share { of },
            },
            master: None,
            mapping: None,
        });
        let Some(found) = &buffer else {
            if word != notes::free_place(generation) {
                self.env
                    .store(buffer_word(index), notes::free_place(generation));
            }
            let _ = self.buffers.restore(index, generation, None);
            return;
        };
        let (holder, bytes) = (found.holder, found.quota_bytes());
        // Each place is filled once.
        let _ = self.buffers.restore(index, generation, buffer);
        if let Ok(client) = self.client(holder) {
            client.used_bytes = client.used_bytes.saturating_add(bytes);
            client.buffers = client.buffers.saturating_add(1);
        }
    }

    /// Gives each buffer the blocks that say they are its own, in their order. A block of nobody's is free.
    fn restore_blocks(&mut self) {
        for number in 0..MAX_BLOCKS as u8 {
            let mut from = 0;
            while let Some(block) = self.pool.used_from(from) {
                from = self.pool.number(block).saturating_add(1);
                self.restore_block(block, number);
            }
        }
        let mut from = 0;
        while let Some(block) = self.pool.used_from(from) {
            from = self.pool.number(block).saturating_add(1);
            let node = Node::read(self.env.load(self.pool.word(block)));
            let owned = match node {
                Node::Used { buffer, number, .. } => self
                    .buffers
                    .memory(buffer)
                    .is_some_and(|memory| memory.blocks.get(usize::from(number)) == Some(&block)),
                _ => true,
            };
            if !owned {
                self.dissolve(block);
            }
        }
    }

    fn restore_block(&mut self, block: Block, wanted: u8) {
        let Node::Used {
            buffer,
            number,
            frames,
            pages,
        } = Node::read(self.env.load(self.pool.word(block)))
        else {
            return;
        };
        let (bits, base) = (self.pool.bits(block), self.pool.base(block));
        let Some(memory) = self.buffers.memory_mut(buffer).filter(|_| number == wanted) else {
            return;
        };
        let extent = Extent {
            physical: base,
            bytes: u64::from(pages) << memory.page_bits,
            frames,
            page_bits: memory.page_bits,
        };
        let fits = memory.blocks.len() == usize::from(number)
            && !memory.extents.is_full()
            && (1..=1 << bits).contains(&extent.bytes);
        if fits
            && (frames == NO_FRAMES || self.slots.claim_run(frames, pages))
            && memory.blocks.push(block).is_ok()
        {
            if frames == NO_FRAMES {
                memory.sharing = Sharing::Private;
            }
            // As many as blocks.
            let _ = memory.extents.push(extent);
        }
    }

    fn dissolve(&mut self, block: Block) {
        let word = self.pool.word(block);
        if self.env.revoke(self.pool.slot(block)).is_ok() {
            self.env.store(word, Node::Free.word());
            self.pool.give(block);
        } else {
            let bytes = 1 << self.pool.bits(block);
            self.env.store(word, Node::Lost.word());
            self.env.note(Note::MemoryLost { bytes });
        }
    }

    /// A buffer that is said to be whole has all its memory, and the master of its capability.
    fn check_buffer(&mut self, index: u16) {
        let Some(note) = BufferNote::read(self.env.load(buffer_word(index))) else {
            return;
        };
        if note.stage != Stage::Whole {
            return;
        }
        let complete = match self.buffers.get(index).map(|buffer| &buffer.content) {
            Some(Content::Memory(memory)) => {
                let found = memory
                    .extents
                    .iter()
                    .map(|extent| extent.bytes)
                    .sum::<u64>();
                found == memory.bytes()
            }
            Some(Content::Share { .. }) => true,
            None => false,
        };
        if complete && self.restore_master(index, note.master) {
            return;
        }
        self.cast_off(index);
    }

    fn restore_master(&mut self, index: u16, master: Slot) -> bool {
        debug_assert_eq!(
            self.buffers.badge(index),
            Badge::new(BadgeKind::Buffer, self.buffers.generation(index), index)
        );
        let ours = master != 0 && self.slots.claim_run(master, 1);
        if let Some(buffer) = self.buffers.get_mut(index).filter(|_| ours) {
            buffer.master = Some(master);
        }
        ours
    }

    /// A share is of a whole buffer, and counted there.
    fn check_share(&mut self, index: u16) {
        let Some(Content::Share { of }) = self.buffers.get(index).map(|buffer| &buffer.content)
        else {
            return;
        };
        let of = *of;
        let whole = self.stage_of(of) == Some(Stage::Whole);
        let Some(memory) = self.buffers.memory_mut(of) else {
            self.cast_off(index);
            return;
        };
        memory.shares = memory.shares.saturating_add(1);
        if !whole {
            self.cast_off(index);
        }
    }

    /// Notes that a buffer is ending, and gives up its master, if it has one: the slot is swept.
    fn cast_off(&mut self, index: u16) {
        let word = self.env.load(buffer_word(index));
        self.env
            .store(buffer_word(index), notes::with_stage(word, Stage::Ending));
        let master = self
            .buffers
            .get_mut(index)
            .and_then(|buffer| buffer.master.take());
        if let Some(master) = master {
            let _ = self.slots.give(master);
        }
    }

    pub(super) fn restore_aliases(&mut self) {
        for place in 0..MAX_REQUESTERS {
            let word = self.env.load(notes::ALIASES + place);
            let Some((device, alias)) = notes::read_alias(word) else {
                continue;
            };
            let known = self.aliases.iter().filter(|(of, _)| *of == device).count();
            let sensible = device.segment() == alias.segment()
                && known < MAX_ALIASES
                && !self.aliases.contains(&(device, alias));
            if sensible {
                // There are as many places as words.
                let _ = self.aliases.push((device, alias));
            }
        }
        self.note_aliases();
    }
}
