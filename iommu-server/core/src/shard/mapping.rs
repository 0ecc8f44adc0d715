//! Buffers in contexts: the path that a driver takes for each packet.

use ipc_proto::{ANY_IOVA, Access, ClientId, Refusal, Rule};

use super::{Shard, backend_refusal};
use crate::backend::{Addressing, Backend, BackendError, DomainId};
use crate::buffers::{Buffer, Certainty, Content, Fate, Mapping};
use crate::context::{Context, IovaError};
use crate::env::Env;

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Maps a buffer in its holder's context; returns where.
    #[inline]
    pub(super) fn map_buffer(
        &mut self,
        index: u16,
        iova: u64,
        access: Access,
    ) -> Result<u64, Refusal> {
        let stale = Refusal::from(Rule::StaleCapability);
        let buffer = self.buffers.get(index).ok_or(stale)?;
        let holder = buffer.holder;
        if let Some(mapping) = buffer.mapping {
            return Err(Refusal::new(Rule::AlreadyMapped, mapping.iova));
        }
        let memory = self.buffers.memory(index).ok_or(stale)?;
        let limit = match self.backend.addressing() {
            Addressing::Translated { limit } => limit,
            Addressing::Physical => {
                let at = memory.extents.first().ok_or(stale)?.physical;
                if iova != ANY_IOVA && iova != at {
                    return Err(Refusal::new(Rule::BadIova, at));
                }
                self.note_mapping(index, at, Certainty::Mapped);
                return Ok(at);
            }
        };
        let client = self.clients.get_mut(usize::from(holder.0)).ok_or(stale)?;
        let context = &mut client.context;
        let taken = if iova == ANY_IOVA {
            context.take_any(memory.bytes(), limit)
        } else {
            context.take(iova, memory.bytes(), limit).map(|()| iova)
        };
        let at = taken.map_err(|error| match error {
            IovaError::Unusable => Refusal::new(Rule::BadIova, iova),
            IovaError::TooMany => Rule::TooManyBuffers.into(),
        })?;
        let mapped = match domain_of(context, &mut self.backend) {
            Ok(domain) => self.backend.map(domain, at, &memory.extents, access),
            Err(error) => Err(error),
        };
        if let Err(error) = mapped {
            return Err(self.undo_map(index, holder, at, error));
        }
        self.note_mapping(index, at, Certainty::Mapped);
        Ok(at)
    }

    #[cold]
    fn undo_map(&mut self, index: u16, holder: ClientId, at: u64, error: BackendError) -> Refusal {
        if error == BackendError::Unconfirmed {
            // A unit may have seen it: the addresses and the memory stay as they are.
            self.note_mapping(index, at, Certainty::Unconfirmed);
        } else if let Ok(client) = self.client(holder) {
            client.context.give(at);
            self.end_idle_context(holder);
        }
        backend_refusal(error)
    }

    /// Takes a buffer's mapping away; when this returns `Ok`, no unit has it cached.
    #[inline]
    pub(super) fn unmap_buffer(&mut self, index: u16) -> Result<(), Refusal> {
        let stale = Refusal::from(Rule::StaleCapability);
        let buffer = self.buffers.get(index).ok_or(stale)?;
        let holder = buffer.holder;
        let mapping = buffer.mapping.ok_or(Rule::NotMapped)?;
        if mapping.certainty == Certainty::Unconfirmed {
            return Err(Rule::InvalidationTimeout.into());
        }
        if self.backend.addressing() == Addressing::Physical {
            self.clear_mapping(index);
            return Ok(());
        }
        let bytes = self.buffers.memory(index).ok_or(stale)?.bytes();
        let client = self.clients.get_mut(usize::from(holder.0)).ok_or(stale)?;
        let context = &mut client.context;
        let domain = context.domain.ok_or(Rule::NoContext)?;
        if let Err(error) = self.backend.unmap(domain, mapping.iova, bytes) {
            self.note_mapping(index, mapping.iova, Certainty::Unconfirmed);
            return Err(backend_refusal(error));
        }
        context.give(mapping.iova);
        if context.is_idle() {
            self.end_idle_context(holder);
        }
        self.clear_mapping(index);
        Ok(())
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

    /// Ends a client's domain when neither a device nor a mapping is left.
    pub(super) fn end_idle_context(&mut self, client: ClientId) {
        let Some(client) = self.clients.get_mut(usize::from(client.0)) else {
            return;
        };
        if client.context.is_idle()
            && let Some(domain) = client.context.domain.take()
        {
            // A domain that some unit may still know is retired by the back end: that is not the
            // caller's failure, and a new domain will be made.
            let _ = self.backend.destroy_domain(domain);
        }
    }

    fn note_mapping(&mut self, index: u16, iova: u64, certainty: Certainty) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.mapping = Some(Mapping { iova, certainty });
        }
    }

    fn clear_mapping(&mut self, index: u16) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.mapping = None;
        }
    }
}

/// The domain of a context, made if there is none.
#[inline]
pub(super) fn domain_of<B: Backend>(
    context: &mut Context,
    backend: &mut B,
) -> Result<DomainId, BackendError> {
    if let Some(domain) = context.domain {
        return Ok(domain);
    }
    let domain = backend.create_domain()?;
    context.domain = Some(domain);
    Ok(domain)
}
