//! [`Backend`]: what a shard needs of its IOMMU units, whoever makes them.
//!
//! A domain is a set of translations shared by the devices attached to it; a
//! device that is attached to none is blocked. Back ends: [`crate::vtd`]
//! (Intel, driven from here), [`crate::iospace`] (the kernel's own driver) and
//! [`crate::Physical`] (no unit). An extent names the frames as well as the
//! address: the kernel maps the former, a unit's driver the latter.

use hw::Sbdf;
use ipc_proto::{Access, ClientId, Properties};

use crate::Slot;

/// A domain of a back end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainId(pub u16);

/// Physically contiguous memory of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Physical address.
    pub physical: u64,
    /// Length, a multiple of the page size.
    pub bytes: u64,
    /// Slot of its first frame; the others follow.
    pub frames: Slot,
    /// Frames of 2^this bytes.
    pub page_bits: u8,
}

/// What I/O virtual addresses are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addressing {
    /// Translated: any page-aligned address below `limit` can be chosen, save the interrupt range.
    Translated {
        /// One past the last address.
        limit: u64,
    },
    /// Physical addresses: nothing is translated, so a buffer must be one block.
    Physical,
}

/// Why a back end did not do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendError {
    /// No unit of the shard takes this device's requests.
    NoUnit,
    /// No more domain ids.
    DomainsExhausted,
    /// No more page tables within the bound. Nothing has changed.
    TablesExhausted,
    /// There is no such domain.
    NoDomain,
    /// A unit did not confirm that it forgot what it may have cached: it may still use the old
    /// translation. The unit is not trusted again.
    Unconfirmed,
    /// A device did not answer the invalidation of its own translation cache
    /// ([`Backend::next_silent`] says which). It is blocked: its unit has confirmed that; every unit has
    /// forgotten what it was to forget.
    DeviceSilent,
    /// No more interrupt remapping entries in a row. Nothing has changed.
    RemapExhausted,
    /// The message is none that the back end makes entries for: which part of it.
    BadMessage(MessagePart),
    /// The back end has no such thing.
    Cannot,
}

/// Part of an interrupt message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessagePart {
    /// Its address.
    Address,
    /// Its data.
    Data,
    /// How many there are.
    Count,
}

/// An interrupt message, as a device sends it: a write of `data` to `address`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptMessage {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// Whether a device may keep translations (ATS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceCache {
    /// It may not: the unit refuses what it claims to have translated.
    None,
    /// It may; so many invalidations may be under way to it at a time (1 to 32).
    Depth(u8),
}

impl DeviceCache {
    /// From the contract's number: 0 for none.
    #[must_use]
    pub const fn from_depth(depth: u8) -> Self {
        match depth {
            0 => Self::None,
            depth => Self::Depth(depth),
        }
    }

    /// The contract's number.
    #[must_use]
    pub const fn depth(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Depth(depth) => depth,
        }
    }
}

/// A DMA request that a unit blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Requester.
    pub device: Sbdf,
    /// Page of the I/O virtual address; of a blocked interrupt message the number of its entry.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// The unit's reason code.
    pub reason: u8,
}

/// How reading a unit's fault records ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Records read.
    pub records: u32,
    /// The unit had to drop some: their number and requesters are not known.
    pub overflow: bool,
    /// There may be more: the allowance was used up.
    pub more: bool,
}

/// IOMMU units, or what stands in for them.
pub trait Backend {
    /// What attaching the device promises (`reset` is not said here); `None` when no unit takes it.
    /// `cache`: what the device would like to keep.
    fn properties(&self, device: Sbdf, cache: DeviceCache) -> Option<Properties>;

    /// What I/O virtual addresses are.
    fn addressing(&self) -> Addressing;

    /// Can it map frames larger than 4 KiB?
    fn large_frames(&self) -> bool {
        true
    }

    /// Does it map frames by their capabilities, not by their addresses? Then it has to have those of every buffer.
    fn maps_frames(&self) -> bool {
        false
    }

    /// Makes a domain with no translation and no device, whose tables come out of the client's share.
    ///
    /// # Errors
    /// `DomainsExhausted`, `TablesExhausted`.
    fn create_domain(&mut self, owner: ClientId) -> Result<DomainId, BackendError>;

    /// What its tables can be found by after a restart ([`crate::Adopt`]).
    fn domain_mark(&self, _domain: DomainId) -> u32 {
        0
    }

    /// Ends a domain that has no device; its id and tables are used again.
    ///
    /// # Errors
    /// `NoDomain`; `Unconfirmed` when a unit may still hold something of it: then nothing is used again.
    fn destroy_domain(&mut self, domain: DomainId) -> Result<(), BackendError>;

    /// Moves a requester that is in no domain into one. Says what it may keep: never more than asked for.
    ///
    /// # Errors
    /// `NoUnit`, `NoDomain`, `TablesExhausted`: the device is blocked as before. `Unconfirmed`: the
    /// device may or may not be blocked; it counts as attached until a detach is confirmed.
    fn attach(
        &mut self,
        device: Sbdf,
        domain: DomainId,
        cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError>;

    /// Says what a requester that is in the domain may keep from now on; says what that is. With
    /// `DeviceCache::None`, on success, nothing is kept and no answer of the device is waited for any more.
    ///
    /// # Errors
    /// As [`Self::detach`].
    fn keep(
        &mut self,
        _device: Sbdf,
        _domain: DomainId,
        _cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        Ok(DeviceCache::None)
    }

    /// Takes a requester out of its domain. On success none of its requests reaches memory by the
    /// domain's translations any more, and they are cached for it nowhere.
    ///
    /// # Errors
    /// `NoUnit`, `NoDomain`; `Unconfirmed`: it is blocked in the tables, but the unit did not say that it
    /// knows; `DeviceSilent`: it is out of the domain and blocked, but did not say that it forgot.
    fn detach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError>;

    /// Blocks a requester that misbehaves, and stops its unit from recording what it tries. It stays in
    /// its domain (`None`: it is in none) and is blocked until it is attached anew.
    ///
    /// # Errors
    /// As [`Self::detach`]; `TablesExhausted` for one in no domain: it is blocked, but still recorded.
    fn silence(&mut self, device: Sbdf, domain: Option<DomainId>) -> Result<(), BackendError>;

    /// Makes `count` messages (`message`, and those with the next data) deliverable by the device alone, and
    /// says which message it has to send for the first; data counts on from there. `aliases` are requester
    /// ids under which its messages may arrive besides its own. Gives `message` itself back where
    /// interrupts are not remapped.
    ///
    /// # Errors
    /// `NoUnit`, `RemapExhausted`, `BadMessage`; `Unconfirmed`.
    fn remap(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        message: InterruptMessage,
        count: u16,
    ) -> Result<InterruptMessage, BackendError>;

    /// Takes every message of the device back. On success none can be raised, and the entries are free.
    ///
    /// # Errors
    /// `NoUnit`; `Unconfirmed`: the entries are not used again.
    fn unremap(&mut self, device: Sbdf) -> Result<(), BackendError>;

    /// Delivers messages of the block that [`Self::remap`] has answered with `remapped` to the core that `address` names;
    /// `first` and `count` are counted in the block. No message is lost.
    ///
    /// # Errors
    /// `NoUnit`; `BadMessage`: there is no such block, no such message in it, or no core in the address; `Unconfirmed`: some
    /// may go where they went; `Cannot`.
    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: InterruptMessage,
        (first, count): (u16, u16),
        address: u64,
    ) -> Result<(), BackendError> {
        let _ = (device, remapped, first, count, address);
        Err(BackendError::Cannot)
    }

    /// Translates the addresses from `iova` on to the extents, one after the other. The range is
    /// page-aligned, within [`Self::addressing`] and nothing of it is translated yet.
    ///
    /// # Errors
    /// `NoDomain`, `TablesExhausted`: nothing has changed. `Unconfirmed`, `DeviceSilent`: see [`Self::unmap`].
    fn map(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError>;

    /// Takes the translation of `bytes` from `iova` on away: exactly what one [`Self::map`] made. On
    /// success no unit has any of it cached.
    ///
    /// # Errors
    /// `NoDomain`; `Unconfirmed`: the translation is gone from the tables, but a unit may still use it;
    /// `DeviceSilent`: a device did not say that it forgot it.
    fn unmap(&mut self, domain: DomainId, iova: u64, bytes: u64) -> Result<(), BackendError>;

    /// Reads at most `allowance` fault records of unit `unit` and hands them over.
    fn drain_faults(&mut self, unit: usize, allowance: u32, sink: &mut dyn FnMut(Fault))
    -> Drained;

    /// The next device that did not answer (`DeviceSilent`).
    fn next_silent(&mut self) -> Option<Sbdf>;

    /// Number of units.
    fn units(&self) -> usize;

    /// Which unit takes the device's requests.
    fn unit_of(&self, device: Sbdf) -> Option<usize>;

    /// Table pages that belong to domains.
    fn tables_used(&self) -> u32;

    /// Domains in use, those retired included.
    fn domains_used(&self) -> u32;

    /// Interrupt remapping entries in use.
    fn remapped(&self) -> u32;
}

/// A back end chosen at boot.
pub enum Chosen<A, B> {
    /// The first.
    Units(A),
    /// The other.
    None(B),
}

macro_rules! either {
    ($self:ident, $backend:ident => $call:expr) => {
        match $self {
            Self::Units($backend) => $call,
            Self::None($backend) => $call,
        }
    };
}

impl<A: Backend, B: Backend> Backend for Chosen<A, B> {
    fn properties(&self, device: Sbdf, cache: DeviceCache) -> Option<Properties> {
        either!(self, backend => backend.properties(device, cache))
    }
    #[inline(always)]
    fn addressing(&self) -> Addressing {
        either!(self, backend => backend.addressing())
    }
    fn large_frames(&self) -> bool {
        either!(self, backend => backend.large_frames())
    }

    fn maps_frames(&self) -> bool {
        either!(self, backend => backend.maps_frames())
    }
    fn create_domain(&mut self, owner: ClientId) -> Result<DomainId, BackendError> {
        either!(self, backend => backend.create_domain(owner))
    }
    fn domain_mark(&self, domain: DomainId) -> u32 {
        either!(self, backend => backend.domain_mark(domain))
    }
    fn destroy_domain(&mut self, domain: DomainId) -> Result<(), BackendError> {
        either!(self, backend => backend.destroy_domain(domain))
    }
    fn attach(
        &mut self,
        device: Sbdf,
        domain: DomainId,
        cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        either!(self, backend => backend.attach(device, domain, cache))
    }
    fn keep(
        &mut self,
        device: Sbdf,
        domain: DomainId,
        cache: DeviceCache,
    ) -> Result<DeviceCache, BackendError> {
        either!(self, backend => backend.keep(device, domain, cache))
    }
    fn detach(&mut self, device: Sbdf, domain: DomainId) -> Result<(), BackendError> {
        either!(self, backend => backend.detach(device, domain))
    }
    fn silence(&mut self, device: Sbdf, domain: Option<DomainId>) -> Result<(), BackendError> {
        either!(self, backend => backend.silence(device, domain))
    }
    fn remap(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        message: InterruptMessage,
        count: u16,
    ) -> Result<InterruptMessage, BackendError> {
        either!(self, backend => backend.remap(device, aliases, message, count))
    }
    fn reroute(
        &mut self,
        device: Sbdf,
        remapped: InterruptMessage,
        messages: (u16, u16),
        address: u64,
    ) -> Result<(), BackendError> {
        either!(self, backend => backend.reroute(device, remapped, messages, address))
    }
    fn unremap(&mut self, device: Sbdf) -> Result<(), BackendError> {
        either!(self, backend => backend.unremap(device))
    }
    #[inline(always)]
    fn map(
        &mut self,
        domain: DomainId,
        iova: u64,
        extents: &[Extent],
        access: Access,
    ) -> Result<(), BackendError> {
        either!(self, backend => backend.map(domain, iova, extents, access))
    }
    #[inline(always)]
    fn unmap(&mut self, domain: DomainId, iova: u64, bytes: u64) -> Result<(), BackendError> {
        either!(self, backend => backend.unmap(domain, iova, bytes))
    }
    fn drain_faults(
        &mut self,
        unit: usize,
        allowance: u32,
        sink: &mut dyn FnMut(Fault),
    ) -> Drained {
        either!(self, backend => backend.drain_faults(unit, allowance, sink))
    }
    fn next_silent(&mut self) -> Option<Sbdf> {
        either!(self, backend => backend.next_silent())
    }
    fn units(&self) -> usize {
        either!(self, backend => backend.units())
    }
    fn unit_of(&self, device: Sbdf) -> Option<usize> {
        either!(self, backend => backend.unit_of(device))
    }
    fn tables_used(&self) -> u32 {
        either!(self, backend => backend.tables_used())
    }
    fn domains_used(&self) -> u32 {
        either!(self, backend => backend.domains_used())
    }
    fn remapped(&self) -> u32 {
        either!(self, backend => backend.remapped())
    }
}
