//! What a client may ask about the devices that are granted to it, whoever holds them.

use hw::Sbdf;
use hw::capability::{CapabilityList, Express, ExtendedWalk, Walk};
use ipc_proto::pci::{
    CapabilityAtReply, DeviceAtReply, GroupAtReply, HelloReply, InfoReply, QueryReply,
    ReservedAtReply, TopologyReply,
};
use ipc_proto::{
    Call, CapabilityListKind, DeviceState, GroupTie, NO_PROXIMITY, Properties, Refusal, Rule,
    Switch, VERSION,
};

use super::views::Need;
use super::{Shard, from_below};
use crate::env::Env;
use crate::{Device, Index, groups};

impl<E: Env> Shard<'_, E> {
    pub(super) fn greet(&self, call: Call, version: u64) -> Result<HelloReply, Refusal> {
        self.client(call)?;
        if version != VERSION {
            return Err(Refusal::new(Rule::VersionMismatch, VERSION));
        }
        let (segment, first_bus, last_bus) = self.info.ecam.first().map_or((0, 0, 0), |window| {
            (window.segment, window.first_bus, window.last_bus)
        });
        Ok(HelloReply {
            version: VERSION,
            shard: u16::from(self.info.shard),
            segment,
            first_bus,
            last_bus,
        })
    }

    pub(super) fn granted_at(&self, call: Call, index: u16) -> Result<DeviceAtReply, Refusal> {
        let client = self.client(call)?;
        let device = self
            .devices
            .nth_granted(client.0, index.into())
            .and_then(|index| self.devices.get(index))
            .ok_or(Rule::EndOfList)?;
        Ok(DeviceAtReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            state: device.state,
        })
    }

    pub(super) fn describe(&mut self, call: Call, device: Sbdf) -> Result<QueryReply, Refusal> {
        let client = self.client(call)?;
        let index = self.granted(client, device)?;
        let properties = self.promise(client, index)?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        Ok(QueryReply {
            ids: device.ids,
            class: device.class,
            state: device.state,
            properties,
        })
    }

    pub(super) fn describe_held(&mut self, call: Call) -> Result<InfoReply, Refusal> {
        let (hold, device) = self.held_for(call.badge, Need::Nothing)?;
        let (client, index) = (hold.client, hold.device);
        let info = InfoReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            properties: hold.properties,
        };
        // As many as there are now.
        let vectors = self.reserved_vectors(client, index).unwrap_or(0);
        Ok(InfoReply {
            properties: Properties {
                vectors,
                ..info.properties
            },
            ..info
        })
    }

    pub(super) fn member_at(
        &mut self,
        call: Call,
        device: Sbdf,
        index: u16,
    ) -> Result<GroupAtReply, Refusal> {
        let client = self.client(call)?;
        self.see_groups();
        let start = self.granted(client, device)?;
        let member = groups::ring(&self.devices, start.number())
            .nth(usize::from(index))
            .and_then(|place| self.devices.get(Index::new(place)))
            .ok_or(Rule::EndOfList)?;
        let granted = member.is_granted(client.0) && member.state != DeviceState::Withheld;
        Ok(GroupAtReply {
            member: member.at,
            // Of what is not granted only the address is told.
            tie: if granted {
                member.node.tie()
            } else {
                GroupTie::Alone
            },
            granted: if granted { Switch::On } else { Switch::Off },
        })
    }

    pub(super) fn place_of(&mut self, call: Call, at: Sbdf) -> Result<TopologyReply, Refusal> {
        let client = self.client(call)?;
        self.see_groups();
        let index = self.granted(client, at)?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        let proximity = (self.info.proximity.iter())
            .find(|(first, last, _)| (*first..=*last).contains(&at.bus()))
            .map_or(NO_PROXIMITY, |(_, _, domain)| *domain);
        let port = device
            .node
            .parent()
            .and_then(|port| self.devices.get(Index::new(port)));
        // Asked for seldom: read, not kept.
        let slot = port.and_then(|port| {
            let list = CapabilityList::read(&self.env, port.at, port.header?.layout);
            list.find::<Express, E>(&self.env, port.at).ok()??.slot
        });
        Ok(TopologyReply {
            proximity,
            port: port.map_or(at, |port| port.at),
            slot: slot.map_or(0, |slot| slot.number),
            hotplug: match slot {
                Some(slot) if slot.hot_plug => Switch::On,
                _ => Switch::Off,
            },
        })
    }

    pub(super) fn capability_of(
        &self,
        call: Call,
        at: Sbdf,
        index: u16,
    ) -> Result<CapabilityAtReply, Refusal> {
        let client = self.client(call)?;
        let device = self
            .devices
            .get(self.granted(client, at)?)
            .ok_or(Rule::NoSuchDevice)?;
        readable(device)?;
        let layout = device.header.ok_or(Rule::EndOfList)?.layout;
        let standard = Walk::new(&self.env, at, layout)
            .map_while(Result::ok)
            .map(|entry| CapabilityAtReply {
                list: CapabilityListKind::Standard,
                id: entry.id.into(),
                // Where a capability has one is its own affair.
                version: 0,
                offset: entry.offset.into(),
            });
        let extended = (device.config_bytes > 256)
            .then(|| ExtendedWalk::new(&self.env, at))
            .into_iter()
            .flatten()
            .map_while(Result::ok)
            .map(|entry| CapabilityAtReply {
                list: CapabilityListKind::Extended,
                id: entry.id,
                version: entry.version,
                offset: entry.offset,
            });
        let entry = standard.chain(extended).nth(usize::from(index));
        Ok(entry.ok_or(Rule::EndOfList)?)
    }

    pub(super) fn reserved_for(
        &mut self,
        call: Call,
        at: Sbdf,
        index: u16,
    ) -> Result<ReservedAtReply, Refusal> {
        let client = self.client(call)?;
        self.granted(client, at)?;
        if !self.info.iommu_present {
            return Err(Rule::EndOfList.into());
        }
        let region = self.env.reserved_at(at, index);
        let region = region.map_err(|refusal| match refusal.rule {
            Rule::EndOfList => refusal,
            _ => from_below(refusal),
        })?;
        Ok(ReservedAtReply {
            base: region.base,
            bytes: region.bytes,
            allowed: region.allowed,
        })
    }
}

/// Refuses a device whose registers must not be touched now, or are not there.
pub(super) fn readable(device: &Device) -> Result<(), Refusal> {
    match device.state {
        DeviceState::Absent => Err(device.refusal(Rule::NoSuchDevice)),
        DeviceState::Resetting | DeviceState::Draining => Err(device.refusal(Rule::DeviceBusy)),
        _ if device.in_bus_reset => Err(device.refusal(Rule::DeviceBusy)),
        _ => Ok(()),
    }
}
