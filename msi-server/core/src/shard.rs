//! [`Shard`]: the vectors, who holds them, and the transactions on them.
//!
//! Vectors are counted as the processor does; the kernel's number is `kernel_offset` less. The difference
//! matters for alignment: a device with several MSI messages counts up in the low bits of the data.

use heapless::Vec;
use hw::Sbdf;
use hw::msi::Message;
use ipc_proto::{Call, ClientId, Refusal, Rule};
use system::info::MsiInfo;
use system::layout::MAX_SHARDS;
use system::model::MAX_CLIENTS;
use system::pool::NumberPool;
use thiserror::Error;

use crate::Env;

/// Vectors that a processor has.
pub const MAX_VECTORS: usize = 256;
/// Vectors below are the processor's exceptions.
const FIRST_VECTOR: u32 = 32;
/// Most messages that one request may ask for: what MSI can have (PCI 3.0, 6.8.1.3).
const MAX_MESSAGES: u16 = 32;

/// What is wrong with a shard's information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The range leaves the processor's vectors, or takes its exceptions in.
    #[error("{count} vectors from {first:#x} on lie outside the processor's 0x20..=0xff")]
    Vectors {
        /// First processor vector.
        first: u32,
        /// How many.
        count: u32,
    },
}

/// A vector that is held.
#[derive(Debug)]
pub(crate) struct Held<H> {
    /// Whose messages raise it.
    pub(crate) device: Sbdf,
    /// Who gets them.
    pub(crate) client: ClientId,
    handler: H,
}

/// What `take` gives: the message of vector n is `address`, `data` + n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) address: u64,
    pub(crate) data: u32,
    /// First vector, as the kernel counts.
    pub(crate) first: u16,
}

/// A range of interrupt vectors, and who holds which.
#[derive(Debug)]
pub struct Shard<E: Env> {
    env: E,
    /// Processor vector of kernel vector 0.
    kernel_offset: u8,
    /// Local APIC that messages go to.
    apic: u8,
    /// Buses of each pci-server shard: segment, first, last.
    buses: Vec<(u16, u8, u8), MAX_SHARDS>,
    /// Vectors that each client may hold.
    quotas: Vec<u16, MAX_CLIENTS>,
    pool: NumberPool<{ MAX_VECTORS / 64 }>,
    /// By vector. A vector that is taken and not held is lost.
    held: [Option<Held<E::Handler>>; MAX_VECTORS],
    pub(crate) operations: u64,
    pub(crate) refused: u64,
}

impl<E: Env> Shard<E> {
    /// A shard with the vectors of `info`, all free. `quotas` are the clients', in the order of their ids.
    ///
    /// # Errors
    /// [`ConfigError`]: the range is no range of vectors.
    pub fn new(
        info: &MsiInfo,
        quotas: impl Iterator<Item = u16>,
        env: E,
    ) -> Result<Self, ConfigError> {
        let first = u32::from(info.first_vector) + u32::from(info.cpu_vector_base);
        let count = u32::from(info.vectors);
        let wrong = ConfigError::Vectors { first, count };
        if first < FIRST_VECTOR || first + count > MAX_VECTORS as u32 {
            return Err(wrong);
        }
        Ok(Self {
            env,
            kernel_offset: info.cpu_vector_base,
            apic: info.apic_id,
            buses: info.shard_buses.clone(),
            quotas: quotas.take(MAX_CLIENTS).collect(),
            pool: NumberPool::new(first, count).ok_or(wrong)?,
            held: [const { None }; MAX_VECTORS],
            operations: 0,
            refused: 0,
        })
    }

    /// Takes `count` vectors for `device` of `client` and places their handlers in window slots `slot`...:
    /// all of them, or none.
    pub(crate) fn take(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        count: u16,
        slot: u16,
    ) -> Result<Taken, Refusal> {
        self.check_buses(call, device)?;
        if !count.is_power_of_two() || count > MAX_MESSAGES {
            return Err(Refusal::new(Rule::BadMessageCount, count.into()));
        }
        let quota = self.quota(client)?;
        if self.used_by(client).saturating_add(count) > quota {
            return Err(Refusal::new(Rule::VectorQuota, quota.into()));
        }
        if let Some(other) = self.holder_of(device).filter(|holder| *holder != client) {
            return Err(Refusal::new(Rule::HeldByAnother, other.0.into()));
        }
        let last_slot = slot
            .checked_add(count - 1)
            .ok_or(Refusal::new(Rule::WindowSlotOutOfRange, slot.into()))?;

        let exhausted = Refusal::new(Rule::VectorsExhausted, self.pool.free().into());
        let first = self
            .pool
            .take_run(count.into(), count.into())
            .ok_or(exhausted)?;
        // The range was checked when the shard was made, so this is a vector of the processor.
        let Some(message) = u8::try_from(first)
            .ok()
            .and_then(|vector| Message::fixed(self.apic, vector).ok())
        else {
            self.release(first, count);
            return Err(exhausted);
        };
        for (vector, slot) in (first..).zip(slot..=last_slot) {
            if let Err(refusal) = self.hold(vector, (vector - first) as u16, device, client, slot) {
                self.release(first, count);
                return Err(refusal);
            }
        }
        Ok(Taken {
            address: message.address.into(),
            data: message.data,
            first: self.kernel_vector(first),
        })
    }

    /// Takes back every vector of `device`; how many.
    pub(crate) fn free_device(&mut self, call: Call, device: Sbdf) -> Result<u16, Refusal> {
        self.check_buses(call, device)?;
        Ok(self.free_where(|held| held.device == device))
    }

    /// Takes back every vector of `client`; how many.
    pub(crate) fn free_client(&mut self, client: ClientId) -> u16 {
        self.free_where(|held| held.client == client)
    }

    /// Vectors that `client` may hold.
    pub(crate) fn quota(&self, client: ClientId) -> Result<u16, Refusal> {
        // Position of `client` among the arguments.
        self.quotas
            .get(usize::from(client.0))
            .copied()
            .ok_or(Refusal::new(Rule::BadArgument, 1))
    }

    /// Vectors that `client` holds.
    pub(crate) fn used_by(&self, client: ClientId) -> u16 {
        self.in_use()
            .filter(|(_, held)| held.client == client)
            .count() as u16
    }

    /// The vectors that are held, ascending, as the processor counts.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = (u16, &Held<E::Handler>)> {
        let range = self.pool.first() as usize..(self.pool.first() + self.pool.count()) as usize;
        let held = self.held.get(range).unwrap_or(&[]);
        (self.pool.first() as u16..)
            .zip(held)
            .filter_map(|(vector, held)| held.as_ref().map(|held| (vector, held)))
    }

    /// As the kernel counts.
    pub(crate) fn kernel_vector(&self, vector: u32) -> u16 {
        (vector as u16).wrapping_sub(self.kernel_offset.into())
    }

    /// Vectors there are, and of these the free ones.
    pub(crate) fn counts(&self) -> (u16, u16) {
        (self.pool.count() as u16, self.pool.free() as u16)
    }

    /// What the kernel does for the shard.
    #[must_use]
    pub fn env(&self) -> &E {
        &self.env
    }

    /// Gives the kernel's handler of a taken vector to a client.
    fn hold(
        &mut self,
        vector: u32,
        number: u16,
        device: Sbdf,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let handler = self.env.issue(self.kernel_vector(vector), device, number)?;
        let placed = self.env.place(&handler, client, slot);
        // Held even if it could not be placed: `release` takes the handler back.
        if let Some(entry) = self.held.get_mut(vector as usize) {
            *entry = Some(Held {
                device,
                client,
                handler,
            });
        }
        placed
    }

    /// Frees taken vectors, whether held or not.
    fn release(&mut self, first: u32, count: u16) {
        for vector in first..first.saturating_add(count.into()) {
            let held = self.held.get_mut(vector as usize).and_then(Option::take);
            if held.is_none_or(|held| self.env.retire(held.handler).is_ok()) {
                // It was taken.
                let _ = self.pool.give(vector);
            }
            // Else copies of the handler may be left: the vector is lost, and stays taken.
        }
    }

    fn free_where(&mut self, chosen: impl Fn(&Held<E::Handler>) -> bool) -> u16 {
        let mut freed = 0;
        for vector in self.pool.first()..self.pool.first() + self.pool.count() {
            if self
                .held
                .get(vector as usize)
                .and_then(Option::as_ref)
                .is_some_and(&chosen)
            {
                self.release(vector, 1);
                freed += 1;
            }
        }
        freed
    }

    fn holder_of(&self, device: Sbdf) -> Option<ClientId> {
        self.in_use()
            .find(|(_, held)| held.device == device)
            .map(|(_, held)| held.client)
    }

    /// A pci-server shard speaks for the devices of its own buses only.
    fn check_buses(&self, call: Call, device: Sbdf) -> Result<(), Refusal> {
        let own =
            self.buses
                .get(usize::from(call.badge.index))
                .is_some_and(|&(segment, first, last)| {
                    segment == device.segment() && (first..=last).contains(&device.bus())
                });
        if own {
            Ok(())
        } else {
            Err(Refusal::new(Rule::OutsideShard, device.to_bits().into()))
        }
    }
}
