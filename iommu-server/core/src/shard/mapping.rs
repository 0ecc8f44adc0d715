//! Buffers in contexts: the path that a driver takes for each packet.

use ipc_proto::{ANY_IOVA, Access, ClientId, Refusal, Rule};

use super::contexts::{domain_of, find_context};
use super::ledger::mapping_word;
use super::memory::Clearing;
use super::{Shard, backend_refusal};
use crate::backend::{Addressing, Backend, BackendError};
use crate::buffers::{Buffer, Certainty, Content, Fate, Mapping, Memory};
use crate::context::{Context, IovaError};
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

/// Why a buffer is not mapped.
enum Failure {
    /// Nothing was changed.
    Refused(Refusal),
    /// The back end failed; these addresses are taken.
    Backend(u64, BackendError),
}

/// What is to be mapped.
struct Wanted<'m> {
    memory: &'m Memory,
    iova: u64,
    access: Access,
    /// Addresses end here.
    limit: u64,
}

/// Takes addresses of a context and maps memory there. `noted` hears where, before any unit does.
#[inline(always)]
fn map_memory<E: Env, B: Backend>(
    (found, owner): (&mut Context, (ClientId, u16)),
    wanted: &Wanted<'_>,
    backend: &mut B,
    env: &mut E,
    noted: impl FnOnce(&mut E, u64),
) -> Result<u64, Failure> {
    let bytes = wanted.memory.bytes();
    let taken = if wanted.iova == ANY_IOVA {
        found.take_any(bytes, wanted.limit)
    } else {
        found
            .take(wanted.iova, bytes, wanted.limit)
            .map(|()| wanted.iova)
    };
    let at = match taken {
        Ok(at) => at,
        Err(IovaError::Unusable) => {
            let refusal = Refusal::new(Rule::BadIova, wanted.iova);
            return Err(Failure::Refused(refusal));
        }
        Err(IovaError::TooMany) => return Err(Failure::Refused(Rule::TooManyBuffers.into())),
    };
    noted(env, at);
    let mapped = match domain_of(found, owner, backend, env) {
        Ok(domain) => backend.map(domain, at, &wanted.memory.extents, wanted.access),
        Err(error) => Err(error),
    };
    match mapped {
        Ok(()) => Ok(at),
        Err(error) => Err(Failure::Backend(at, error)),
    }
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
        let stale = Refusal::from(Rule::StaleCapability);
        // One look at the buffer's record, from which everything else follows.
        let buffer = self.buffers.get_mut(index).ok_or(stale)?;
        let (Content::Memory(memory), Addressing::Translated { limit }) =
            (&buffer.content, self.addressing)
        else {
            return self.map_otherwise(index, iova, access, context);
        };
        if let Some(mapping) = buffer.mapping {
            return Err(Refusal::new(Rule::AlreadyMapped, mapping.iova));
        }
        let owner = (buffer.holder, context);
        let found = find_context(self.clients, self.private, owner.0, context)?;
        let wanted = Wanted {
            memory,
            iova,
            access,
            limit,
        };
        let (backend, env) = (&mut self.backend, &mut self.env);
        match map_memory((found, owner), &wanted, backend, env, |_, _| ()) {
            Ok(iova) => {
                let certainty = Certainty::Mapped;
                buffer.mapping = Some(Mapping {
                    context,
                    iova,
                    certainty,
                });
                Ok(iova)
            }
            Err(failure) => Err(self.undo_map(index, owner, failure)),
        }
    }

    /// The rest of [`Self::map_buffer`]: a share, or memory of which nothing is translated.
    #[inline(never)]
    fn map_otherwise(
        &mut self,
        index: u16,
        iova: u64,
        access: Access,
        context: u16,
    ) -> Result<u64, Refusal> {
        let stale = Refusal::from(Rule::StaleCapability);
        let buffer = self.buffers.get(index).ok_or(stale)?;
        let owner = (buffer.holder, context);
        if let Some(mapping) = buffer.mapping {
            return Err(Refusal::new(Rule::AlreadyMapped, mapping.iova));
        }
        let memory = self.buffers.memory(index).ok_or(stale)?;
        let found = find_context(self.clients, self.private, owner.0, context)?;
        let limit = match self.addressing {
            Addressing::Translated { limit } => limit,
            Addressing::Physical => {
                let at = memory.extents.first().ok_or(stale)?.physical;
                if iova != ANY_IOVA && iova != at {
                    return Err(Refusal::new(Rule::BadIova, at));
                }
                self.write_mapping(index, context, at);
                self.note_mapping(index, context, at, Certainty::Mapped);
                return Ok(at);
            }
        };
        let wanted = Wanted {
            memory,
            iova,
            access,
            limit,
        };
        let (backend, env) = (&mut self.backend, &mut self.env);
        // It may be its holder's second way to the same memory, which tables do not tell apart.
        let noted = |env: &mut E, iova| {
            let note = MappingNote { context, iova };
            env.store(mapping_word(index), note.word());
        };
        match map_memory((found, owner), &wanted, backend, env, noted) {
            Ok(iova) => {
                self.note_mapping(index, context, iova, Certainty::Mapped);
                Ok(iova)
            }
            Err(failure) => Err(self.undo_map(index, owner, failure)),
        }
    }

    #[cold]
    fn undo_map(
        &mut self,
        index: u16,
        (holder, context): (ClientId, u16),
        failure: Failure,
    ) -> Refusal {
        let (at, error) = match failure {
            Failure::Refused(refusal) => return refusal,
            Failure::Backend(at, error) => (at, error),
        };
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
                Ok(()) => self.dismantle(share, Fate::Reuse, Clearing::Later),
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
