//! What a shard notes for its next start ([`crate::notes`]): the words of its buffers and lists.

use hw::Sbdf;

use super::Shard;
use crate::backend::{Backend, DeviceCache, InterruptMessage};
use crate::buffers::{Content, Fate};
use crate::env::Env;
use crate::notes::{self, BufferNote, DeviceNote, Kind, MappingNote, MessageNote, Stage};

/// Word of the buffer in place `index`.
pub(super) fn buffer_word(index: u16) -> usize {
    notes::BUFFERS + usize::from(index)
}

/// Word of its mapping, where the tables do not say which it is.
pub(super) fn mapping_word(index: u16) -> usize {
    notes::MAPPINGS + usize::from(index)
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Notes the buffer in place `index`, as it is in the table.
    pub(super) fn note_buffer(&mut self, index: u16, stage: Stage) {
        let Some(buffer) = self.buffers.get(index) else {
            return;
        };
        let (kind, lose) = match &buffer.content {
            Content::Memory(memory) => {
                let kind = Kind::Memory {
                    page_bits: memory.page_bits,
                    pages: memory.pages,
                };
                (kind, memory.fate == Fate::Lose)
            }
            Content::Share { of } => (Kind::Share(*of), false),
        };
        let note = BufferNote {
            stage,
            holder: buffer.holder,
            generation: self.buffers.generation(index),
            kind,
            lose,
            master: buffer.master.unwrap_or(0),
        };
        self.env.store(buffer_word(index), note.word());
    }

    /// Notes that a buffer's memory is not to be used again.
    pub(super) fn note_loss(&mut self, index: u16) {
        let word = self.env.load(buffer_word(index));
        self.env.store(buffer_word(index), notes::with_loss(word));
    }

    /// Notes that it is not certain who reaches the memory of a buffer or share.
    #[cold]
    pub(super) fn note_doubt(&mut self, index: u16) {
        match self.buffers.get(index).map(|buffer| &buffer.content) {
            Some(Content::Share { of }) => self.note_loss(*of),
            Some(Content::Memory(_)) => self.note_loss(index),
            None => {}
        }
    }

    /// Notes that place `index` has no buffer any more, and which life it had.
    pub(super) fn note_free_place(&mut self, index: u16) {
        self.forget_mapping(index);
        let word = notes::free_place(self.buffers.generation(index));
        self.env.store(buffer_word(index), word);
    }

    pub(super) fn write_mapping(&mut self, index: u16, context: u16, iova: u64) {
        let note = MappingNote { context, iova };
        self.env.store(mapping_word(index), note.word());
    }

    pub(super) fn forget_mapping(&mut self, index: u16) {
        if self.env.load(mapping_word(index)) != 0 {
            self.env.store(mapping_word(index), 0);
        }
    }

    fn change_device(&mut self, place: usize, change: impl Fn(DeviceNote) -> DeviceNote) {
        let word = notes::DEVICES + place;
        if let Some(note) = DeviceNote::read(self.env.load(word)) {
            self.env.store(word, change(note).word());
        }
    }

    /// Notes how far the device in a place of the list is.
    pub(super) fn note_device(&mut self, place: usize, stage: Stage) {
        self.change_device(place, |note| DeviceNote { stage, ..note });
    }

    /// Notes what a device may keep.
    pub(super) fn note_cache(&mut self, device: Sbdf, cache: DeviceCache) {
        let mut devices = self.devices.iter();
        if let Some(place) = devices.position(|attached| attached.device == device) {
            let depth = cache.depth();
            self.change_device(place, |note| DeviceNote { depth, ..note });
        }
    }

    /// Notes that the last word of a list, number `last`, has moved to `place`, of which what was there went.
    pub(super) fn note_removal(&mut self, list: usize, place: usize, last: usize) {
        if place != last {
            let moved = self.env.load(list + last);
            self.env.store(list + place, moved);
        }
        self.env.store(list + last, 0);
    }

    /// Notes the aliases anew, after some went: each that stays is there at every moment.
    pub(super) fn note_aliases(&mut self) {
        for place in 0..super::MAX_REQUESTERS {
            let alias = self.aliases.get(place);
            let word = alias.map_or(0, |(device, alias)| notes::alias_word(*device, *alias));
            if self.env.load(notes::ALIASES + place) != word {
                self.env.store(notes::ALIASES + place, word);
            }
        }
    }

    /// Notes messages that were made deliverable, once.
    pub(super) fn note_messages(&mut self, device: Sbdf, sent: InterruptMessage, count: u16) {
        let note = MessageNote {
            device,
            sent,
            count,
        };
        // As it is read again.
        let note = MessageNote::read(note.word()).unwrap_or(note);
        if self.messages.contains(&note) {
            return;
        }
        let word = notes::MESSAGES + self.messages.len();
        // There is room: it was checked.
        if self.messages.push(note).is_ok() {
            self.env.store(word, note.word());
        }
    }

    /// Forgets the messages of a device.
    pub(super) fn forget_messages(&mut self, device: Sbdf) {
        let mut place = 0;
        while let Some(note) = self.messages.get(place) {
            if note.device == device {
                self.messages.swap_remove(place);
                self.note_removal(notes::MESSAGES, place, self.messages.len());
            } else {
                place += 1;
            }
        }
    }
}
