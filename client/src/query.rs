//! What a PD can ask about its devices without holding them: [`Group`] members,
//! [`Place`], [`CapabilityEntry`]s, [`ReservedRegion`]s, and the [`Event`]s that
//! the servers keep for it.

use hw::Sbdf;
use ipc_proto::{
    CapabilityListKind, DeviceError, EventKind, GroupTie, NO_PROXIMITY, Properties, Rule, Switch,
    retry,
};

use crate::{Client, Error, Platform};

/// Something that happened to a device of this PD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The device.
    pub device: Sbdf,
    /// What the kind says of it ([`EventKind`]).
    pub detail: u64,
    /// Events before this one that did not fit in the server's queue.
    pub lost: u32,
}

impl Event {
    /// The error that it tells of, if it is one.
    pub const fn error(&self) -> Option<DeviceError> {
        match self.kind {
            EventKind::Error => DeviceError::from_detail(self.detail),
            _ => None,
        }
    }
}

/// A member of an isolation group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The function.
    pub device: Sbdf,
    /// What ties it to the others.
    pub tie: GroupTie,
    /// Does the description grant it to this PD?
    pub granted: bool,
}

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Proximity domain, where firmware names one.
    pub proximity: Option<u32>,
    /// The port above it; `None` on a root bus.
    pub port: Option<Sbdf>,
    /// That port's physical slot number, where it has one.
    pub slot: Option<u16>,
    /// Can it be plugged in and pulled out?
    pub hotplug: bool,
}

/// A capability of a device, as its lists have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityEntry {
    /// Which list.
    pub list: CapabilityListKind,
    /// Capability id.
    pub id: u16,
    /// Version; 0 in the standard list.
    pub version: u8,
    /// Offset of its first byte.
    pub offset: u16,
}

/// Memory that firmware reserved for DMA of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedRegion {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// Does the description allow the device to have it?
    pub allowed: bool,
}

impl<P: Platform> Client<'_, P> {
    /// Would [`Self::assign`] succeed now, and what would it promise? Nothing is changed.
    ///
    /// # Errors
    /// The refusal that it would get.
    pub fn test_assign(&self, device: Sbdf) -> Result<Properties, Error> {
        let shard = self.shard_of(device)?;
        Ok(retry(|| self.pci(shard).test_assign(device))?.properties)
    }

    /// The members of a granted device's isolation group, the device among them.
    pub fn group(&self, device: Sbdf) -> impl Iterator<Item = Result<Member, Error>> + '_ {
        list(move |index| {
            let shard = self.pci(self.shard_of(device)?);
            let row = retry(|| shard.group_at(device, index))?;
            Ok(Member {
                device: row.member,
                tie: row.tie,
                granted: row.granted == Switch::On,
            })
        })
    }

    /// Where a granted device is.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn place(&self, device: Sbdf) -> Result<Place, Error> {
        let shard = self.pci(self.shard_of(device)?);
        let row = retry(|| shard.topology(device))?;
        Ok(Place {
            proximity: Some(row.proximity).filter(|domain| *domain != NO_PROXIMITY),
            port: Some(row.port).filter(|port| *port != device),
            slot: Some(row.slot).filter(|slot| *slot != 0),
            hotplug: row.hotplug == Switch::On,
        })
    }

    /// The capabilities of a granted device, those of the standard list first.
    pub fn capabilities(
        &self,
        device: Sbdf,
    ) -> impl Iterator<Item = Result<CapabilityEntry, Error>> + '_ {
        list(move |index| {
            let shard = self.shard_of(device)?;
            let row = retry(|| self.pci(shard).capability_at(device, index))?;
            Ok(CapabilityEntry {
                list: row.list,
                id: row.id,
                version: row.version,
                offset: row.offset,
            })
        })
    }

    /// The regions that firmware reserved for DMA of a granted device.
    pub fn reserved_regions(
        &self,
        device: Sbdf,
    ) -> impl Iterator<Item = Result<ReservedRegion, Error>> + '_ {
        list(move |index| {
            let shard = self.shard_of(device)?;
            let row = retry(|| self.pci(shard).reserved_at(device, index))?;
            Ok(ReservedRegion {
                base: row.base,
                bytes: row.bytes,
                allowed: row.allowed == Switch::On,
            })
        })
    }

    /// The oldest event that a pci-server shard keeps for this PD, if there is one. Ask until there is none after
    /// each signal of `system::layout::event::DEVICE`.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn next_event(&self) -> Result<Option<Event>, Error> {
        for &(shard, ..) in &self.info().pci {
            match self.pci(shard).event_next() {
                Ok(row) => {
                    return Ok(Some(Event {
                        kind: row.event,
                        device: row.device,
                        detail: row.detail,
                        lost: row.lost,
                    }));
                }
                Err(refusal) if refusal.rule == Rule::EndOfList => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(None)
    }
}

/// The rows that `at` gives, to the end of the list or the first error.
pub(crate) fn list<T>(
    mut at: impl FnMut(u16) -> Result<T, Error>,
) -> impl Iterator<Item = Result<T, Error>> {
    let mut index = Some(0u16);
    core::iter::from_fn(move || {
        let row = at(index?);
        index = match &row {
            Ok(_) => index.and_then(|index| index.checked_add(1)),
            Err(_) => None,
        };
        match row {
            Err(error) if error.rule() == Some(Rule::EndOfList) => None,
            row => Some(row),
        }
    })
}
