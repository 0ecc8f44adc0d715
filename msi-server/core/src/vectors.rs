//! [`Vectors`]: the vectors of a shard, of which some may be kept for one client from the start.
//!
//! Vectors are counted as the processor does; the difference from the kernel's count matters for alignment: a device
//! with several MSI messages counts up in the low bits of the data.

use heapless::Vec;
use ipc_proto::ClientId;
use system::info::ClientEntry;
use system::model::MAX_CLIENTS;
use system::pool::NumberPool;

use crate::rate::Rate;
use crate::shard::{ConfigError, MAX_VECTORS};

/// Words of a pool of any of a processor's vectors.
const WORDS: usize = MAX_VECTORS / 64;

/// What a client may have.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// Vectors it may hold.
    pub(crate) quota: u16,
    /// Vectors it holds.
    pub(crate) used: u16,
    /// Core that it runs on.
    pub(crate) core: u8,
    /// How often each of its vectors may be raised, where that is bounded.
    pub(crate) rate: Option<Rate>,
    /// How many are to be kept for it.
    keep: u16,
    /// Those that are its own, in one aligned block.
    reserved: NumberPool<WORDS>,
}

impl Share {
    /// What the description gives a client. Nothing is kept for it yet.
    pub(crate) const fn of(client: &ClientEntry) -> Self {
        Self {
            quota: client.vectors,
            used: 0,
            core: client.core,
            rate: Rate::per_second(client.interrupt_rate),
            keep: client.reserved_vectors,
            reserved: NumberPool::empty(),
        }
    }

    /// Vectors that are kept for the client.
    pub(crate) fn reserved(&self) -> u16 {
        self.reserved.count() as u16
    }

    /// Of these, vectors that are free.
    pub(crate) fn kept_free(&self) -> u16 {
        self.reserved.free() as u16
    }
}

/// All vectors of the shard.
#[derive(Debug)]
pub(crate) struct Vectors {
    common: NumberPool<WORDS>,
    shares: Vec<Share, MAX_CLIENTS>,
}

impl Vectors {
    /// `count` vectors from `first` on; those that are kept for clients are set aside. `clients` are in the order of their
    /// ids.
    pub(crate) fn new(
        first: u32,
        count: u32,
        clients: impl Iterator<Item = Share>,
    ) -> Result<Self, ConfigError> {
        let mut common =
            NumberPool::new(first, count).ok_or(ConfigError::Vectors { first, count })?;
        let mut shares: Vec<Share, MAX_CLIENTS> = Vec::new();
        for (id, share) in (0..).zip(clients.take(MAX_CLIENTS)) {
            let size = match share.keep {
                0 => 0,
                some => u32::from(some).next_power_of_two(),
            };
            let own = match size {
                0 => NumberPool::empty(),
                // Alignment beyond what MSI can ask for is of no use.
                size => common
                    .take_run(size, size.min(32))
                    .and_then(|start| NumberPool::new(start, size))
                    .ok_or(ConfigError::Reserved { client: id })?,
            };
            let share = Share {
                reserved: own,
                ..share
            };
            // There is room: the clients were cut off.
            let _ = shares.push(share);
        }
        Ok(Self { common, shares })
    }

    pub(crate) fn share(&self, client: ClientId) -> Option<&Share> {
        self.shares.get(usize::from(client.0))
    }

    /// Takes `count` vectors, aligned to their number, for a client: of its own where there are any, else of those for all.
    pub(crate) fn take(&mut self, client: ClientId, count: u16) -> Option<u32> {
        let share = self.shares.get_mut(usize::from(client.0))?;
        let count = u32::from(count);
        let first = (share.reserved.take_run(count, count))
            .or_else(|| self.common.take_run(count, count))?;
        share.used = share.used.saturating_add(count as u16);
        Some(first)
    }

    /// Takes the vectors from `first` on for a client, as an earlier life of the shard gave them to it. `false`, and nothing
    /// changes, where they are not free for it, or too many.
    pub(crate) fn claim(&mut self, client: ClientId, first: u16, count: u16) -> bool {
        let Some(share) = self.shares.get_mut(usize::from(client.0)) else {
            return false;
        };
        let used = share.used.saturating_add(count);
        if used > share.quota {
            return false;
        }
        let (first, count) = (first.into(), count.into());
        let claimed = share.reserved.claim_run(first, count) || self.common.claim_run(first, count);
        if claimed {
            share.used = used;
        }
        claimed
    }

    /// Takes a vector for nobody, whoever it was kept for. Nothing happens where it is taken.
    pub(crate) fn withdraw(&mut self, vector: u16) {
        let own = self.shares.iter_mut().map(|share| &mut share.reserved);
        let _ = own
            .chain([&mut self.common])
            .any(|pool| pool.claim_run(vector.into(), 1));
    }

    /// Gives a vector of a client back.
    pub(crate) fn give(&mut self, client: ClientId, vector: u32) {
        self.forget(client);
        let own = self.shares.get_mut(usize::from(client.0));
        let given = own.is_some_and(|share| share.reserved.give(vector));
        if !given {
            // It was taken.
            let _ = self.common.give(vector);
        }
    }

    /// A vector is not the client's any more, and nobody's.
    pub(crate) fn forget(&mut self, client: ClientId) {
        if let Some(share) = self.shares.get_mut(usize::from(client.0)) {
            share.used = share.used.saturating_sub(1);
        }
    }

    /// Vectors that are free, those that are kept for somebody among them.
    pub(crate) fn free(&self) -> u16 {
        let own = self.shares.iter().map(|share| share.reserved.free());
        own.fold(self.common.free(), u32::saturating_add) as u16
    }

    /// Vectors that are free for everybody.
    pub(crate) fn common_free(&self) -> u16 {
        self.common.free() as u16
    }

    /// First vector, and how many.
    pub(crate) const fn range(&self) -> (u32, u32) {
        (self.common.first(), self.common.count())
    }

    /// The client that holds most, and how many; 0 when nobody holds any.
    pub(crate) fn most(&self) -> (ClientId, u16) {
        (0..)
            .map(ClientId)
            .zip(self.shares.iter().map(|share| share.used))
            .max_by_key(|(client, used)| (*used, core::cmp::Reverse(client.0)))
            .unwrap_or((ClientId(0), 0))
    }
}
