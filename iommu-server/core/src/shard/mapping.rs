//! Buffers in contexts: the path that a driver takes for each packet.

use ipc_proto::{ANY_IOVA, Access, ClientId, Refusal, Rule};

use super::{Shard, backend_refusal};
use crate::backend::{Addressing, Backend, BackendError, DomainId};
use crate::buffers::{Buffer, Certainty, Content, Fate, Mapping};
use crate::context::IovaError;
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
        let (extents, bytes) = self.buffers.extents(index).ok_or(stale)?;
        let limit = match self.backend.addressing() {
            Addressing::Translated { limit } => limit,
            Addressing::Physical => {
                let at = extents.first().ok_or(stale)?.physical;
                if iova != ANY_IOVA && iova != at {
                    return Err(Refusal::new(Rule::BadIova, at));
                }
                self.note_mapping(index, at, Certainty::Mapped);
                return Ok(at);
            }
        };
        let context = &mut self.client(holder)?.context;
        let taken = if iova == ANY_IOVA {
            context.take_any(bytes, limit)
        } else {
            context.take(iova, bytes, limit).map(|()| iova)
        };
        let at = taken.map_err(|error| match error {
            IovaError::Unusable => Refusal::new(Rule::BadIova, iova),
            IovaError::TooMany => Rule::TooManyBuffers.into(),
        })?;
        let mapped = match self.domain_of(holder) {
            Ok(domain) => self.backend.map(domain, at, &extents, access),
            Err(error) => Err(error),
        };
        match mapped {
            Ok(()) => {
                self.note_mapping(index, at, Certainty::Mapped);
                Ok(at)
            }
            Err(error) => {
                if error == BackendError::Unconfirmed {
                    // A unit may have seen it: the addresses and the memory stay as they are.
                    self.note_mapping(index, at, Certainty::Unconfirmed);
                } else {
                    self.client(holder)?.context.give(at);
                    self.end_idle_context(holder)?;
                }
                Err(backend_refusal(error))
            }
        }
    }

    /// Takes a buffer's mapping away; when this returns `Ok`, no unit has it cached.
    #[inline]
    pub(super) fn unmap_buffer(&mut self, index: u16) -> Result<(), Refusal> {
        let buffer = self.buffers.get(index).ok_or(Rule::StaleCapability)?;
        let holder = buffer.holder;
        let mapping = buffer.mapping.ok_or(Rule::NotMapped)?;
        if mapping.certainty == Certainty::Unconfirmed {
            return Err(Rule::InvalidationTimeout.into());
        }
        if self.backend.addressing() == Addressing::Physical {
            self.clear_mapping(index);
            return Ok(());
        }
        let domain = self.client(holder)?.context.domain.ok_or(Rule::NoContext)?;
        let (_, pages, bits) = self
            .buffers
            .memory(index)
            .map(|(page_bits, pages, _)| ((), pages, page_bits))
            .ok_or(Rule::StaleCapability)?;
        let bytes = u64::from(pages) << bits;
        if let Err(error) = self.backend.unmap(domain, mapping.iova, bytes) {
            self.note_mapping(index, mapping.iova, Certainty::Unconfirmed);
            return Err(backend_refusal(error));
        }
        self.clear_mapping(index);
        self.client(holder)?.context.give(mapping.iova);
        self.end_idle_context(holder)
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
            Some(Content::Memory { shares, .. }) => *shares,
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

    /// The domain of a client's context, made if there is none.
    #[inline]
    pub(super) fn domain_of(&mut self, client: ClientId) -> Result<DomainId, BackendError> {
        let context = self
            .clients
            .get_mut(usize::from(client.0))
            .map(|client| &mut client.context)
            .ok_or(BackendError::NoDomain)?;
        if let Some(domain) = context.domain {
            return Ok(domain);
        }
        let domain = self.backend.create_domain()?;
        context.domain = Some(domain);
        Ok(domain)
    }

    /// Ends a client's domain when neither a device nor a mapping is left.
    #[inline]
    pub(super) fn end_idle_context(&mut self, client: ClientId) -> Result<(), Refusal> {
        let context = &mut self.client(client)?.context;
        if !context.is_idle() {
            return Ok(());
        }
        let Some(domain) = context.domain.take() else {
            return Ok(());
        };
        // A domain that some unit may still know is retired by the back end: that is not the
        // caller's failure, and a new domain will be made.
        let _ = self.backend.destroy_domain(domain);
        Ok(())
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
