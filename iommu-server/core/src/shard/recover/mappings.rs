//! Mappings: what the page tables translate, matched with what may be mapped there.

use ipc_proto::{Access, ClientId};

use crate::adopt::Adopt;
use crate::backend::{Addressing, DomainId, Extent};
use crate::buffers::{Certainty, Content, MAX_BUFFERS, NO_FRAMES};
use crate::env::Env;
use crate::notes::{MappingNote, Node, Stage};
use crate::shard::Shard;
use crate::shard::contexts::{MAX_PRIVATE, SHARED};
use crate::shard::ledger::mapping_word;

impl<E: Env, B: Adopt> Shard<'_, E, B> {
    pub(super) fn restore_mappings(&mut self) {
        let limit = match self.addressing {
            Addressing::Translated { limit } => limit,
            Addressing::Physical => 0,
        };
        if self.addressing != Addressing::Physical {
            for place in 0..self.devices.len() {
                self.restore_reserved(place, limit);
            }
        }
        for index in 0..MAX_BUFFERS as u16 {
            self.restore_noted(index, limit);
        }
        if self.addressing == Addressing::Physical {
            return;
        }
        for client in 0..self.clients.len() as u16 {
            for number in SHARED..=MAX_PRIVATE as u16 {
                let context = self.context(ClientId(client), number);
                if let Some(domain) = context.ok().and_then(|context| context.domain) {
                    self.restore_context(ClientId(client), number, domain, limit);
                }
            }
        }
    }

    /// Regions that firmware reserved for a device. One that is not mapped whole is taken away; a device that
    /// needs it goes with it.
    fn restore_reserved(&mut self, place: usize, limit: u64) {
        let Some(attached) = self.devices.get(place).copied() else {
            return;
        };
        let mut number = 0;
        while let Ok(region) = self.reserved_at_index(attached.device, number) {
            number += 1;
            let extent = Extent {
                physical: region.base,
                bytes: region.bytes,
                frames: NO_FRAMES,
                page_bits: 12,
            };
            let context = self.context(attached.client, attached.context);
            let Some(domain) = context.ok().and_then(|context| context.domain) else {
                return;
            };
            let whole = self.is_mapped(domain, region.base, &[extent], Some(region.access));
            let taken = whole
                && self
                    .context(attached.client, attached.context)
                    .is_ok_and(|context| {
                        context
                            .take_reserved(region.base, region.bytes, limit)
                            .is_ok()
                    });
            if !taken {
                self.backend.scrub(domain, region.base, region.bytes);
                self.note_device(place, Stage::Ending);
            }
        }
    }

    /// The mapping of a buffer of which the ledger says it.
    fn restore_noted(&mut self, index: u16, limit: u64) {
        let word = self.env.load(mapping_word(index));
        let Some(note) = MappingNote::read(word) else {
            if word != 0 {
                self.env.store(mapping_word(index), 0);
            }
            return;
        };
        let whole = self.stage_of(index) == Some(Stage::Whole);
        let holder = self.buffers.get(index).map(|buffer| buffer.holder);
        let memory = self.buffers.memory(index);
        let restored = match (holder, memory) {
            (Some(holder), Some(memory)) => {
                let (extents, bytes) = (memory.extents.clone(), memory.bytes());
                let at = extents.first().map(|extent| extent.physical);
                if self.addressing == Addressing::Physical {
                    whole && at == Some(note.iova) && self.context(holder, note.context).is_ok()
                } else if self.is_share(index) {
                    self.restore_share(holder, note, &extents, bytes, (whole, limit))
                } else {
                    false
                }
            }
            _ => false,
        };
        if restored {
            self.note_mapping(index, note.context, note.iova, Certainty::Mapped);
        } else {
            self.env.store(mapping_word(index), 0);
        }
    }

    fn is_share(&self, index: u16) -> bool {
        let content = self.buffers.get(index).map(|buffer| &buffer.content);
        matches!(content, Some(Content::Share { .. }))
    }

    fn restore_share(
        &mut self,
        holder: ClientId,
        note: MappingNote,
        extents: &[Extent],
        bytes: u64,
        (whole, limit): (bool, u64),
    ) -> bool {
        let context = self.context(holder, note.context);
        let Some(domain) = context.ok().and_then(|context| context.domain) else {
            return false;
        };
        let mapped = whole && self.is_mapped(domain, note.iova, extents, None);
        let taken = mapped
            && self
                .context(holder, note.context)
                .is_ok_and(|context| context.take(note.iova, bytes, limit).is_ok());
        if !taken {
            self.backend.scrub(domain, note.iova, bytes);
        }
        taken
    }

    /// What else is translated in a context: buffers of its owner, each whole, or nothing.
    fn restore_context(&mut self, owner: ClientId, number: u16, domain: DomainId, limit: u64) {
        let mut at = 0;
        // Each round passes an entry of the tables.
        while let Some(leaf) = self.backend.leaf(domain, at) {
            at = leaf.iova.saturating_add(leaf.bytes);
            let Ok(context) = self.context(owner, number) else {
                return;
            };
            if let Some(end) = context.taken_until(leaf.iova) {
                at = at.max(end);
                continue;
            }
            let candidate = leaf
                .leads
                .and_then(|(physical, _)| self.begins_at(physical, owner))
                .filter(|(_, extents, _)| self.is_mapped(domain, leaf.iova, extents, None));
            let restored = candidate.filter(|(_, _, bytes)| {
                self.context(owner, number)
                    .is_ok_and(|context| context.take(leaf.iova, *bytes, limit).is_ok())
            });
            match restored {
                Some((index, _, bytes)) => {
                    self.note_mapping(index, number, leaf.iova, Certainty::Mapped);
                    at = leaf.iova.saturating_add(bytes);
                }
                None => self.backend.scrub(domain, leaf.iova, leaf.bytes),
            }
        }
    }

    /// The whole buffer of a client, mapped nowhere yet, that begins at a physical address.
    fn begins_at(&self, physical: u64, owner: ClientId) -> Option<(u16, Extents, u64)> {
        let block = self.pool.used_at(physical)?;
        let Node::Used { buffer: index, .. } = Node::read(self.env.load(self.pool.word(block)))
        else {
            return None;
        };
        let buffer = self.buffers.get(index)?;
        let memory = self.buffers.memory(index)?;
        let fits = buffer.holder == owner
            && buffer.mapping.is_none()
            && !self.is_share(index)
            && self.stage_of(index) == Some(Stage::Whole)
            && memory.extents.first()?.physical == physical;
        fits.then(|| (index, memory.extents.clone(), memory.bytes()))
    }

    /// Whether exactly these extents are translated from `iova` on, all with the same rights, or with these.
    fn is_mapped(
        &self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Option<Access>,
    ) -> bool {
        let (mut at, mut access) = (iova, access);
        for extent in extents {
            let mut done = 0;
            while done < extent.bytes {
                let Some(leaf) = self.backend.leaf(domain, at) else {
                    return false;
                };
                let Some((physical, rights)) = leaf.leads else {
                    return false;
                };
                let expected = extent.physical.wrapping_add(done);
                let fits = leaf.iova == at
                    && physical == expected
                    && leaf.bytes <= extent.bytes - done
                    && *access.get_or_insert(rights) == rights;
                if !fits {
                    return false;
                }
                done += leaf.bytes;
                at = at.wrapping_add(leaf.bytes);
            }
        }
        true
    }
}

type Extents = heapless::Vec<Extent, { crate::buffers::MAX_BLOCKS }>;
