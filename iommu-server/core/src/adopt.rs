//! [`Adopt`]: what a shard needs of a back end after a restart. Its units have gone on with the tables that an earlier
//! life of the shard has left; these are what counts. The shard says what it knows of (domains, requesters,
//! messages), the back end how that is in the tables; then [`Adopt::settle`] blocks and takes away all the rest, and
//! has the units forget whatever they may have cached. Until then no table is made, and no memory counts as free.

use hw::Sbdf;
use ipc_proto::ClientId;

use crate::backend::{Backend, BackendError, Chosen, DeviceCache, DomainId, InterruptMessage};
use crate::iospace::{IoSpaces, Spaces};
use crate::paging::Leaf;
use crate::physical::Physical;

/// How a requester is in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// In the domain.
    Within,
    /// Blocked, and not recorded.
    Silenced,
    /// Blocked.
    Blocked,
    /// Where devices without a domain are.
    Released,
}

/// See the module.
pub trait Adopt: Backend {
    /// Takes a domain up, whose tables are known by `mark` ([`Backend::domain_mark`]).
    ///
    /// # Errors
    /// `NoDomain`: there can be no such domain.
    fn adopt_domain(
        &mut self,
        domain: DomainId,
        owner: ClientId,
        mark: u32,
    ) -> Result<(), BackendError>;

    /// Takes a requester of a domain up, which may have kept what `cache` says. Save where it is `Released` it
    /// counts as attached.
    fn adopt_requester(&mut self, id: Sbdf, domain: DomainId, cache: DeviceCache) -> Found;

    /// Takes messages up. `false`: they are not there as they were made.
    fn adopt_messages(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        sent: InterruptMessage,
        count: u16,
    ) -> bool;

    /// The first translation of a domain at or after `from`, or in which that lies.
    fn leaf(&self, domain: DomainId, from: u64) -> Option<Leaf>;

    /// Takes away what is translated of a range.
    fn scrub(&mut self, domain: DomainId, iova: u64, bytes: u64);

    /// Blocks every requester of which `known` does not know, takes away messages that were not taken up, and has units
    /// and devices forget everything. `doubt` hears of clients whose devices may use old translations still.
    fn settle(&mut self, known: &dyn Fn(Sbdf) -> bool, doubt: &mut dyn FnMut(ClientId));
}

macro_rules! either {
    ($self:ident, $backend:ident => $call:expr) => {
        match $self {
            Chosen::Units($backend) => $call,
            Chosen::None($backend) => $call,
        }
    };
}

impl<A: Adopt, B: Adopt> Adopt for Chosen<A, B> {
    fn adopt_domain(
        &mut self,
        domain: DomainId,
        owner: ClientId,
        mark: u32,
    ) -> Result<(), BackendError> {
        either!(self, backend => backend.adopt_domain(domain, owner, mark))
    }
    fn adopt_requester(&mut self, id: Sbdf, domain: DomainId, cache: DeviceCache) -> Found {
        either!(self, backend => backend.adopt_requester(id, domain, cache))
    }
    fn adopt_messages(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        sent: InterruptMessage,
        count: u16,
    ) -> bool {
        either!(self, backend => backend.adopt_messages(device, aliases, sent, count))
    }
    fn leaf(&self, domain: DomainId, from: u64) -> Option<Leaf> {
        either!(self, backend => backend.leaf(domain, from))
    }
    fn scrub(&mut self, domain: DomainId, iova: u64, bytes: u64) {
        either!(self, backend => backend.scrub(domain, iova, bytes))
    }
    fn settle(&mut self, known: &dyn Fn(Sbdf) -> bool, doubt: &mut dyn FnMut(ClientId)) {
        either!(self, backend => backend.settle(known, doubt))
    }
}

/// Nothing is translated, so nothing is left.
impl Adopt for Physical {
    fn adopt_domain(&mut self, _: DomainId, _: ClientId, _: u32) -> Result<(), BackendError> {
        Ok(())
    }
    fn adopt_requester(&mut self, _: Sbdf, _: DomainId, _: DeviceCache) -> Found {
        Found::Within
    }
    fn adopt_messages(&mut self, _: Sbdf, _: &[Sbdf], _: InterruptMessage, _: u16) -> bool {
        true
    }
    fn leaf(&self, _: DomainId, _: u64) -> Option<Leaf> {
        None
    }
    fn scrub(&mut self, _: DomainId, _: u64, _: u64) {}
    fn settle(&mut self, _: &dyn Fn(Sbdf) -> bool, _: &mut dyn FnMut(ClientId)) {}
}

/// What the kernel has mapped for a device cannot be read back: nothing can be taken up, and every client is in doubt. A
/// server over this back end is not to be restarted.
impl<S: Spaces> Adopt for IoSpaces<'_, S> {
    fn adopt_domain(&mut self, _: DomainId, _: ClientId, _: u32) -> Result<(), BackendError> {
        Err(BackendError::NoDomain)
    }
    fn adopt_requester(&mut self, _: Sbdf, _: DomainId, _: DeviceCache) -> Found {
        Found::Blocked
    }
    fn adopt_messages(&mut self, _: Sbdf, _: &[Sbdf], _: InterruptMessage, _: u16) -> bool {
        false
    }
    fn leaf(&self, _: DomainId, _: u64) -> Option<Leaf> {
        None
    }
    fn scrub(&mut self, _: DomainId, _: u64, _: u64) {}
    fn settle(&mut self, _: &dyn Fn(Sbdf) -> bool, doubt: &mut dyn FnMut(ClientId)) {
        for client in 0..system::model::MAX_CLIENTS as u16 {
            doubt(ClientId(client));
        }
    }
}
