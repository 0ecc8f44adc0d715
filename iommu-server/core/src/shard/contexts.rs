//! A client's contexts: the shared one, number 0, and private ones, each for
//! one device, numbered from 1 over all clients of the shard.

use ipc_proto::{ClientId, ContextChoice, Refusal, Rule};
use system::model::MAX_CLIENTS;

use super::{Client, Shard};
use crate::backend::{Backend, BackendError, DomainId};
use crate::context::Context;
use crate::env::Env;
use crate::notes::{self, ContextNote};

/// Most private contexts at a time.
pub const MAX_PRIVATE: usize = 32;

/// Number of the context that all devices of a client share.
pub const SHARED: u16 = 0;

/// A private context, or room for one. All zeros when free.
pub struct Private {
    /// Client id + 1; 0: free.
    pub(super) owner: u16,
    context: Context,
}

impl Private {
    /// Free.
    pub const fn new() -> Self {
        Self {
            owner: 0,
            context: Context::new(),
        }
    }
}

/// Context `number` of a client.
#[inline(always)]
pub(super) fn find_context<'c>(
    clients: &'c mut [Client],
    private: &'c mut [Private; MAX_PRIVATE],
    client: ClientId,
    number: u16,
) -> Result<&'c mut Context, Refusal> {
    if number == SHARED {
        let found = clients.get_mut(usize::from(client.0));
        return found
            .map(|client| &mut client.context)
            .ok_or(Refusal::new(Rule::UnknownBadge, client.0.into()));
    }
    private
        .get_mut(usize::from(number).wrapping_sub(1))
        .filter(|found| found.owner == client.0 + 1)
        .map(|found| &mut found.context)
        .ok_or(Refusal::new(Rule::NoSuchContext, number.into()))
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    pub(super) fn context(
        &mut self,
        client: ClientId,
        number: u16,
    ) -> Result<&mut Context, Refusal> {
        find_context(self.clients, self.private, client, number)
    }

    /// Number of the context that a device of the client is to be attached to. A private one is begun;
    /// [`Self::end_idle_context`] ends it.
    pub(super) fn choose_context(
        &mut self,
        client: ClientId,
        choice: ContextChoice,
    ) -> Result<u16, Refusal> {
        if choice == ContextChoice::Shared {
            return Ok(SHARED);
        }
        let owner = client.0 + 1;
        let owned = self.private.iter().filter(|one| one.owner == owner).count();
        let limit = self.private_a_client;
        let free = self.private.iter().position(|one| one.owner == 0);
        let place = free
            .filter(|_| owned < limit)
            .ok_or(Refusal::new(Rule::DomainsExhausted, limit as u64))?;
        if let Some(found) = self.private.get_mut(place) {
            found.owner = owner;
        }
        Ok(place as u16 + 1)
    }

    /// Ends a context's domain when neither a device nor a mapping is left, and the context with it if it
    /// is a private one.
    pub(super) fn end_idle_context(&mut self, client: ClientId, number: u16) {
        let Ok(context) = find_context(self.clients, self.private, client, number) else {
            return;
        };
        if !context.is_idle() {
            return;
        }
        if let Some(domain) = context.domain.take() {
            // A domain that some unit may still know is retired by the back end: that is not the
            // caller's failure, and a new domain will be made.
            let _ = self.backend.destroy_domain(domain);
            self.env.store(context_word(client, number), 0);
        }
        let place = usize::from(number).wrapping_sub(1);
        if let Some(found) = self.private.get_mut(place) {
            found.owner = 0;
        }
    }

    /// Ends every idle context of a client.
    pub(super) fn end_idle_contexts(&mut self, client: ClientId) {
        for number in SHARED..=MAX_PRIVATE as u16 {
            self.end_idle_context(client, number);
        }
    }
}

/// Word of the ledger that says the domain of context `number` of a client.
pub(super) fn context_word(client: ClientId, number: u16) -> usize {
    let place = match number {
        SHARED => usize::from(client.0),
        private => MAX_CLIENTS + usize::from(private) - 1,
    };
    notes::CONTEXTS + place
}

/// The domain of context `number` of a client, made if there is none.
#[inline(always)]
pub(super) fn domain_of<E: Env, B: Backend>(
    context: &mut Context,
    (owner, number): (ClientId, u16),
    backend: &mut B,
    env: &mut E,
) -> Result<DomainId, BackendError> {
    match context.domain {
        Some(domain) => Ok(domain),
        None => make_domain(context, (owner, number), backend, env),
    }
}

#[cold]
fn make_domain<E: Env, B: Backend>(
    context: &mut Context,
    (owner, number): (ClientId, u16),
    backend: &mut B,
    env: &mut E,
) -> Result<DomainId, BackendError> {
    let domain = backend.create_domain(owner)?;
    context.domain = Some(domain);
    let note = ContextNote {
        owner,
        domain: domain.0,
        mark: backend.domain_mark(domain),
    };
    env.store(context_word(owner, number), note.word());
    Ok(domain)
}
