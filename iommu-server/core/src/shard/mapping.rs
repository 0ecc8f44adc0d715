//! Buffers in contexts: the path that a driver takes for each packet.

use ipc_proto::{ANY_IOVA, Access, ClientId, Refusal, Rule};

use super::contexts::{domain_of, find_context};
use super::ledger::mapping_word;
use super::{Shard, backend_refusal};
use crate::backend::{Addressing, Backend, BackendError};
use crate::buffers::{Buffer, Certainty, Content, Fate, Mapping};
use crate::context::IovaError;
use crate::env::Env;
use crate::notes::MappingNote;

/// What says after a restart where a buffer is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The page tables: there is one mapping of the memory for its holder.
    ByTables,
    /// The ledger: a share may be its holder's second way to the same memory.
    ByLedger,
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Maps a buffer in a context of its holder; returns where.
    #[inline]
    pub(super) fn map_buffer(
        &mut self,
        index: u16,
        iova: u64,
        access: Access,
        context: u16,
    ) -> Result<u64, Refusal> {
        match self.buffers.get(index).map(|buffer| &buffer.content) {
            Some(Content::Share { .. }) => self.map_share(index, iova, access, context),
            _ => self.map_as(Told::ByTables, index, iova, access, context),
        }
    }

    #[inline(never)]
    fn map_share(
        &mut self,
        index: u16,
        iova: u64,
        access: Access,
        context: u16,
    ) -> Result<u64, Refusal> {
        self.map_as(Told::ByLedger, index, iova, access, context)
    }

    #[inline(always)]
    fn map_as(
        &mut self,
        told: Told,
        index: u16,
        iova: u64,
        access: Access,
        context: u16,
    ) -> Result<u64, Refusal> {
        let stale = Refusal::from(Rule::StaleCapability);
        let buffer = self.buffers.get(index).ok_or(stale)?;
        let holder = buffer.holder;
        if let Some(mapping) = buffer.mapping {
            return Err(Refusal::new(Rule::AlreadyMapped, mapping.iova));
        }
        let memory = self.buffers.memory(index).ok_or(stale)?;
        let limit = match self.addressing {
            Addressing::Translated { limit } => limit,
            Addressing::Physical => {
                let at = memory.extents.first().ok_or(stale)?.physical;
                if iova != ANY_IOVA && iova != at {
                    return Err(Refusal::new(Rule::BadIova, at));
                }
                find_context(self.clients, self.private, holder, context)?;
                self.write_mapping(index, context, at);
                self.note_mapping(index, context, at, Certainty::Mapped);
                return Ok(at);
            }
        };
        let found = find_context(self.clients, self.private, holder, context)?;
        let taken = if iova == ANY_IOVA {
            found.take_any(memory.bytes(), limit)
        } else {
            found.take(iova, memory.bytes(), limit).map(|()| iova)
        };
        let at = taken.map_err(|error| match error {
            IovaError::Unusable => Refusal::new(Rule::BadIova, iova),
            IovaError::TooMany => Rule::TooManyBuffers.into(),
        })?;
        if told == Told::ByLedger {
            let note = MappingNote { context, iova: at };
            self.env.store(mapping_word(index), note.word());
        }
        let owner = (holder, context);
        let mapped = match domain_of(found, owner, &mut self.backend, &mut self.env) {
            Ok(domain) => self.backend.map(domain, at, &memory.extents, access),
            Err(error) => Err(error),
        };
        if let Err(error) = mapped {
            return Err(self.undo_map(index, (holder, context), at, error));
        }
        self.note_mapping(index, context, at, Certainty::Mapped);
        Ok(at)
    }

    #[cold]
    fn undo_map(
        &mut self,
        index: u16,
        (holder, context): (ClientId, u16),
        at: u64,
        error: BackendError,
    ) -> Refusal {
        if error == BackendError::Unconfirmed {
            // A unit may have seen it: the addresses and the memory stay as they are.
            self.note_mapping(index, context, at, Certainty::Unconfirmed);
            self.note_doubt(index);
        } else if let Ok(found) = self.context(holder, context) {
            found.give(at);
            self.end_idle_context(holder, context);
        }
        self.forget_mapping(index);
        backend_refusal(error)
    }

    /// Takes a buffer's mapping away; when this returns `Ok`, no unit has it cached.
    #[inline]
    pub(super) fn unmap_buffer(&mut self, index: u16) -> Result<(), Refusal> {
        match self.buffers.get(index).map(|buffer| &buffer.content) {
            Some(Content::Share { .. }) => self.unmap_share(index),
            _ => self.unmap_as(Told::ByTables, index),
        }
    }

    #[inline(never)]
    fn unmap_share(&mut self, index: u16) -> Result<(), Refusal> {
        self.unmap_as(Told::ByLedger, index)
    }

    #[inline(always)]
    fn unmap_as(&mut self, told: Told, index: u16) -> Result<(), Refusal> {
        let stale = Refusal::from(Rule::StaleCapability);
        let buffer = self.buffers.get(index).ok_or(stale)?;
        let holder = buffer.holder;
        let mapping = buffer.mapping.ok_or(Rule::NotMapped)?;
        if mapping.certainty == Certainty::Unconfirmed {
            return Err(Rule::InvalidationTimeout.into());
        }
        if self.addressing == Addressing::Physical {
            self.clear_mapping(index);
            self.forget_mapping(index);
            return Ok(());
        }
        let bytes = match &buffer.content {
            Content::Memory(memory) => memory.bytes(),
            Content::Share { .. } => self.buffers.memory(index).ok_or(stale)?.bytes(),
        };
        let number = mapping.context;
        let context = find_context(self.clients, self.private, holder, number)?;
        let domain = context.domain.ok_or(Rule::NoContext)?;
        if let Err(error) = self.backend.unmap(domain, mapping.iova, bytes) {
            return Err(self.doubt_unmap(index, mapping, error));
        }
        context.give(mapping.iova);
        if context.is_idle() {
            self.end_idle_context(holder, number);
        }
        self.clear_mapping(index);
        if told == Told::ByLedger {
            self.env.store(mapping_word(index), 0);
        }
        Ok(())
    }

    /// A unit, or a device, did not say that it forgot a mapping: its addresses and its memory stay taken.
    #[cold]
    fn doubt_unmap(&mut self, index: u16, mapping: Mapping, error: BackendError) -> Refusal {
        self.note_mapping(index, mapping.context, mapping.iova, Certainty::Unconfirmed);
        self.note_doubt(index);
        self.hear_silent();
        backend_refusal(error)
    }

    /// Takes a buffer and its shares out of every context, tries all, and takes the shares apart
    /// that came out.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn withdraw(&mut self, index: u16) -> Result<(), Refusal> {
        let mut outcome = self.unmap_if_mapped(index);
        if self.shares_of(index) == 0 {
            return outcome;
        }
        let is_share =
            |buffer: &Buffer| matches!(buffer.content, Content::Share { of } if of == index);
        let mut from = 0;
        while let Some(share) = self.buffers.first_where(from, is_share) {
            let done = match self.unmap_if_mapped(share) {
                Ok(()) => self.dismantle(share, Fate::Reuse),
                Err(refusal) => Err(refusal),
            };
            outcome = outcome.and(done);
            from = share.saturating_add(1);
        }
        outcome
    }

    /// Shares there are of a buffer.
    pub(super) fn shares_of(&self, index: u16) -> u16 {
        match self.buffers.get(index).map(|buffer| &buffer.content) {
            Some(Content::Memory(memory)) => memory.shares,
            _ => 0,
        }
    }

    pub(super) fn unmap_if_mapped(&mut self, index: u16) -> Result<(), Refusal> {
        let mapped = |buffer: &Buffer| buffer.mapping.is_some();
        if self.buffers.get(index).is_some_and(mapped) {
            self.unmap_buffer(index)
        } else {
            Ok(())
        }
    }

    pub(super) fn note_mapping(
        &mut self,
        index: u16,
        context: u16,
        iova: u64,
        certainty: Certainty,
    ) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.mapping = Some(Mapping {
                context,
                iova,
                certainty,
            });
        }
    }

    fn clear_mapping(&mut self, index: u16) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.mapping = None;
        }
    }
}
