//! [`Shard`]: who holds which vectors, and the transactions on them.

use heapless::Vec;
use hw::Sbdf;
use hw::msi::Message;
use ipc_proto::{Call, ClientId, Exhausted, Messages, Refusal, Rule, Word};
use system::info::{ClientEntry, MAX_CORES, MAX_SERVER_VECTORS, MsiInfo};
use system::layout::MAX_SHARDS;
use thiserror::Error;

use crate::Env;
use crate::lines::Lines;
use crate::metered::{Meters, Naming};
use crate::notes::{Notes, Stage};
use crate::vectors::{Share, Vectors};

/// Vectors that a processor has.
pub const MAX_VECTORS: usize = 256;
/// Vectors below are the processor's exceptions.
const FIRST_VECTOR: u32 = 32;
/// Most messages that one request may ask for: what MSI can have (PCI 3.0, 6.8.1.3).
pub(crate) const MAX_MESSAGES: u16 = 32;
/// Most blocks of vectors: each has one at least.
const MAX_BLOCKS: usize = 128;

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
    /// There are fewer vectors than are to be kept free.
    #[error("there are too few vectors to keep those of client {client} free")]
    Reserved {
        /// For whom there are none left.
        client: u16,
    },
    /// The vectors that are kept for clients with an `interrupt_rate` are more than can be metered.
    #[error("{wanted} vectors of metered clients are kept free, and {room} can be metered")]
    Metered {
        /// So many are kept.
        wanted: usize,
        /// So many can be metered.
        room: usize,
    },
}

/// Who waits for the messages of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Its client.
    Client,
    /// Nobody: the client is gone, and the device may still send.
    Nobody,
}

/// Vectors that were taken together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Whose messages raise them.
    pub(crate) device: Sbdf,
    /// To whom they count.
    pub(crate) client: ClientId,
    pub(crate) holder: Holder,
    /// First vector.
    pub(crate) first: u16,
    /// Message of the first vector, and how many.
    pub(crate) messages: Messages,
}

impl Block {
    /// Number of the message that raises a vector of the block.
    pub(crate) fn message_of(&self, vector: u16) -> u16 {
        let number = vector.saturating_sub(self.first);
        self.messages.first.saturating_add(number)
    }

    pub(crate) fn vectors(&self) -> core::ops::Range<u16> {
        self.first..self.first.saturating_add(self.messages.count)
    }
}

/// A vector that is not free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) device: Sbdf,
    pub(crate) client: ClientId,
    pub(crate) holder: Holder,
    pub(crate) message: u16,
    pub(crate) core: u8,
}

/// What `take` gives: the message of vector n is `address`, `data` + n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) address: u64,
    pub(crate) data: u32,
    /// First vector, as the kernel counts.
    pub(crate) first: u16,
}

/// A range of interrupt vectors, and who holds which; and the lines, where it has any.
#[derive(Debug)]
pub struct Shard<E: Env> {
    pub(crate) env: E,
    /// Processor vector of kernel vector 0.
    pub(crate) kernel_offset: u8,
    /// Local APIC of each core.
    pub(crate) apics: Vec<u8, MAX_CORES>,
    /// Buses of each pci-server shard: segment, first, last.
    buses: Vec<(u16, u8, u8), MAX_SHARDS>,
    pub(crate) vectors: Vectors,
    pub(crate) blocks: Vec<Block, MAX_BLOCKS>,
    /// Vectors whose copies may be left, one bit each.
    pub(crate) lost: [u64; MAX_VECTORS / 64],
    /// Where the messages of each vector go.
    pub(crate) cores: [u8; MAX_VECTORS],
    /// Cores that messages of each vector were sent to since it was taken (bit n: core n).
    pub(crate) seen: [u16; MAX_VECTORS],
    pub(crate) servers: Vec<u16, MAX_SERVER_VECTORS>,
    pub(crate) lines: Lines,
    pub(crate) meters: Meters,
    pub(crate) operations: u64,
    pub(crate) refused: u64,
    pub(crate) absorbed: u64,
}

impl<E: Env> Shard<E> {
    /// A shard with the vectors of `info`. `clients` are in the order of their ids. All is as the ledger says: with an empty one
    /// every vector is free.
    ///
    /// # Errors
    /// [`ConfigError`]: the range is no range of vectors, or has too few.
    pub fn new(info: &MsiInfo, clients: &[ClientEntry], env: E) -> Result<Self, ConfigError> {
        let first = u32::from(info.first_vector) + u32::from(info.cpu_vector_base);
        let count = u32::from(info.vectors);
        if first < FIRST_VECTOR || first + count > MAX_VECTORS as u32 {
            return Err(ConfigError::Vectors { first, count });
        }
        let meters = Meters::new(info.lines.len());
        let metered = clients.iter().filter(|client| client.interrupt_rate != 0);
        let wanted = metered.fold(0, |sum, client| sum + usize::from(client.reserved_vectors));
        if wanted > meters.room() {
            let room = meters.room();
            return Err(ConfigError::Metered { wanted, room });
        }
        let shares = clients.iter().map(Share::of);
        let mut shard = Self {
            env,
            kernel_offset: info.cpu_vector_base,
            apics: info.apic_ids.clone(),
            buses: info.shard_buses.clone(),
            vectors: Vectors::new(first, count, shares)?,
            blocks: Vec::new(),
            lost: [0; MAX_VECTORS / 64],
            cores: [0; MAX_VECTORS],
            seen: [0; MAX_VECTORS],
            servers: info.server_vectors.clone(),
            lines: Lines::new(&info.lines),
            meters,
            operations: 0,
            refused: 0,
            absorbed: 0,
        };
        shard.recover();
        Ok(shard)
    }

    /// A vector that nobody is bound to was raised: by a message that was on its way when the vector was taken back, or
    /// before its holder was ready.
    pub fn on_absorbed(&mut self) {
        self.absorbed = self.absorbed.wrapping_add(1);
        let absorbed = self.absorbed;
        self.notes().absorbed(absorbed);
    }

    /// Takes vectors for messages of `device` of `client` and places their handlers in window slots `slot`...:
    /// all of them, or none.
    pub(crate) fn take(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        messages: Messages,
        slot: u16,
    ) -> Result<Taken, Refusal> {
        self.check_buses(call, device)?;
        let count = messages.count;
        if !count.is_power_of_two() || count > MAX_MESSAGES || messages.end() > 1 << 16 {
            return Err(Refusal::new(Rule::BadMessageCount, count.into()));
        }
        let share = self.share(client)?;
        let (core, quota, rate) = (share.core, share.quota, share.rate);
        if share.used.saturating_add(count) > quota {
            return Err(Refusal::new(Rule::VectorQuota, quota.into()));
        }
        let other = self.blocks.iter().find(|block| {
            block.device == device && (block.client != client || block.holder == Holder::Nobody)
        });
        if let Some(other) = other {
            return Err(Refusal::new(Rule::HeldByAnother, other.client.0.into()));
        }
        let last_slot = slot
            .checked_add(count - 1)
            .ok_or(Refusal::new(Rule::WindowSlotOutOfRange, slot.into()))?;
        let address = self.address(core)?;

        if self.blocks.is_full() {
            return Err(self.exhausted());
        }
        let first = self.vectors.take(client, count);
        // The range was checked when the shard was made, so this is a vector of the processor.
        let first = first.and_then(|first| u8::try_from(first).ok());
        let first = first.map(u16::from).ok_or_else(|| self.exhausted())?;
        let block = Block {
            device,
            client,
            holder: Holder::Client,
            first,
            messages,
        };
        self.notes().block(&block, Stage::Taking);
        for (vector, slot) in block.vectors().zip(slot..=last_slot) {
            if let Some(seen) = self.seen.get_mut(usize::from(vector)) {
                *seen = 0;
            }
            self.send_to(vector, core);
            let number = self.kernel_vector(vector);
            let given = match rate {
                None => self.env.place(number, client, slot),
                Some(rate) => self.meter(call.badge.index, &block, vector, rate, Naming::New),
            };
            if let Err(refusal) = given {
                self.release(&block);
                return Err(refusal);
            }
        }
        self.notes().stage(&block, Stage::Held);
        // There is room: it was looked for.
        let _ = self.blocks.push(block);
        Ok(Taken {
            address,
            data: first.into(),
            first: self.kernel_vector(first),
        })
    }

    /// Message address of a core.
    fn address(&self, core: u8) -> Result<u64, Refusal> {
        let none = Refusal::new(Rule::NoSuchCore, core.into());
        let apic = self.apics.get(usize::from(core)).ok_or(none)?;
        // Any vector will do: it is in the data.
        let message = Message::fixed(*apic, FIRST_VECTOR as u8).map_err(|_| none)?;
        Ok(message.address.into())
    }

    fn exhausted(&self) -> Refusal {
        let (holder, held) = self.vectors.most();
        let free = self.vectors.free();
        let about = Exhausted { free, holder, held };
        Refusal::new(Rule::VectorsExhausted, about.to_word())
    }

    /// Takes back every vector of `device`; how many.
    pub(crate) fn free_device(&mut self, call: Call, device: Sbdf) -> Result<u16, Refusal> {
        self.check_buses(call, device)?;
        let mut freed = 0;
        let mut at = 0;
        // Each round goes on to the next block, or takes one away.
        while let Some(block) = self.blocks.get(at).copied() {
            if block.device == device {
                self.blocks.swap_remove(at);
                self.notes().stage(&block, Stage::Freeing);
                self.release(&block);
                freed += block.messages.count;
            } else {
                at += 1;
            }
        }
        Ok(freed)
    }

    /// The client is gone: takes its handlers back. The vectors that are left with it belong to devices whose shard could
    /// not silence them: nobody gets them. How many.
    pub(crate) fn bereave(&mut self, client: ClientId) -> u16 {
        let mut kept = 0;
        for at in 0..self.blocks.len() {
            let Some(block) = self
                .blocks
                .get_mut(at)
                .filter(|block| block.client == client)
            else {
                continue;
            };
            block.holder = Holder::Nobody;
            let block = *block;
            self.notes().stage(&block, Stage::Kept);
            for vector in block.vectors() {
                let number = self.kernel_vector(vector);
                if self.env.reclaim(number).is_err() {
                    self.lose(vector);
                }
                self.end_meter(vector);
                kept += 1;
            }
        }
        self.bereave_lines(client);
        kept
    }

    /// Where messages of the device that are all in one block go from now on.
    pub(crate) fn retarget(
        &mut self,
        call: Call,
        device: Sbdf,
        messages: Messages,
        core: u8,
    ) -> Result<u64, Refusal> {
        self.check_buses(call, device)?;
        let address = self.address(core)?;
        let none = Refusal::new(Rule::ForeignVector, messages.first.into());
        let block = self.blocks.iter().find(|block| {
            block.device == device
                && block.messages.first <= messages.first
                && messages.end() <= block.messages.end()
        });
        let block = block.ok_or(none)?;
        let skipped = messages.first.saturating_sub(block.messages.first);
        let vectors = block.vectors().skip(skipped.into());
        for vector in vectors.take(messages.count.into()) {
            self.send_to(vector, core);
        }
        Ok(address)
    }

    /// What a client may have.
    pub(crate) fn share(&self, client: ClientId) -> Result<&Share, Refusal> {
        // Position of `client` among the arguments.
        let none = Refusal::new(Rule::BadArgument, 1);
        self.vectors.share(client).ok_or(none)
    }

    /// The vectors of the shard, as the processor counts.
    pub(crate) fn range(&self) -> core::ops::Range<u16> {
        let (first, count) = self.vectors.range();
        // Below 256.
        first as u16..(first + count) as u16
    }

    /// A vector that devices hold.
    pub(crate) fn used(&self, vector: u16) -> Option<Used> {
        let block = self
            .blocks
            .iter()
            .find(|block| block.vectors().contains(&vector))?;
        Some(Used {
            device: block.device,
            client: block.client,
            holder: block.holder,
            message: block.message_of(vector),
            core: self.cores.get(usize::from(vector)).copied().unwrap_or(0),
        })
    }

    /// May copies of its handler be left?
    pub(crate) fn is_lost(&self, vector: u16) -> bool {
        let word = self.lost.get(usize::from(vector / 64));
        word.is_some_and(|word| word >> (vector % 64) & 1 != 0)
    }

    /// Copies of the vector's handler may be left.
    pub(crate) fn lose(&mut self, vector: u16) {
        let at = usize::from(vector / 64);
        if let Some(word) = self.lost.get_mut(at) {
            *word |= 1 << (vector % 64);
            let bits = *word;
            self.notes().lost(at, bits);
        }
    }

    /// The vector's messages go to a core from now on.
    fn send_to(&mut self, vector: u16, core: u8) {
        let at = usize::from(vector);
        if let (Some(place), Some(seen)) = (self.cores.get_mut(at), self.seen.get_mut(at)) {
            *place = core;
            *seen |= 1u16.checked_shl(core.into()).unwrap_or(0);
            self.notes().core(vector, core);
        }
    }

    /// Every core, one bit each.
    pub(crate) fn all_cores(&self) -> u16 {
        // There are at most as many as bits.
        self.apics.iter().fold(0, |all, _| all << 1 | 1)
    }

    /// What outlives the shard.
    pub(crate) fn notes(&mut self) -> Notes<'_, E::Ledger> {
        Notes(self.env.ledger())
    }

    /// As the kernel counts.
    pub(crate) fn kernel_vector(&self, vector: u16) -> u16 {
        vector.wrapping_sub(self.kernel_offset.into())
    }

    /// Vectors there are, and of these the free ones.
    pub(crate) fn counts(&self) -> (u16, u16) {
        (self.vectors.range().1 as u16, self.vectors.free())
    }

    /// Vectors that are free for everybody.
    pub(crate) fn common_free(&self) -> u16 {
        self.vectors.common_free()
    }

    /// What the kernel does for the shard.
    #[must_use]
    pub fn env(&self) -> &E {
        &self.env
    }

    /// The same, to change it.
    pub fn env_mut(&mut self) -> &mut E {
        &mut self.env
    }

    /// Frees the vectors of a block that is noted, whether their handlers are placed or not. One of which copies may be left
    /// is lost. A core may have been sent a message that it has not taken yet: it is waited for, so that the vector's next
    /// holder never sees it.
    fn release(&mut self, block: &Block) {
        let mut seen = 0;
        let metered = self
            .share(block.client)
            .is_ok_and(|share| share.rate.is_some());
        for vector in block.vectors() {
            let number = self.kernel_vector(vector);
            if metered {
                self.end_meter(vector);
            }
            if self.is_lost(vector) || self.env.reclaim(number).is_err() {
                self.lose(vector);
            }
            seen |= self.seen.get(usize::from(vector)).copied().unwrap_or(0);
        }
        self.env.quiesce(seen);
        for vector in block.vectors() {
            if self.is_lost(vector) {
                self.vectors.forget(block.client);
            } else {
                self.vectors.give(block.client, vector.into());
            }
        }
        self.notes().clear_block(block.first);
    }

    /// A pci-server shard speaks for the devices of its own buses only.
    pub(crate) fn check_buses(&self, call: Call, device: Sbdf) -> Result<(), Refusal> {
        if self.is_of(call.badge.index, device) {
            Ok(())
        } else {
            Err(Refusal::new(Rule::OutsideShard, device.to_bits().into()))
        }
    }

    /// Is the device on a bus of this pci-server shard?
    pub(crate) fn is_of(&self, shard: u16, device: Sbdf) -> bool {
        let buses = self.buses.get(usize::from(shard));
        buses.is_some_and(|&(segment, first, last)| {
            segment == device.segment() && (first..=last).contains(&device.bus())
        })
    }

    /// The pci-server shard on a bus of which the device is.
    pub(crate) fn shard_of(&self, device: Sbdf) -> Option<u16> {
        // There are few.
        (0..self.buses.len() as u16).find(|shard| self.is_of(*shard, device))
    }
}
