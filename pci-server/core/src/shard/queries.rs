//! What a client may ask about the devices that are granted to it, whoever holds them.

use hw::Sbdf;
use ipc_proto::pci::{DeviceAtReply, GroupAtReply, HelloReply, InfoReply, QueryReply};
use ipc_proto::{Call, DeviceState, GroupTie, Refusal, Rule, Switch, VERSION};

use super::Shard;
use crate::env::Env;
use crate::{Index, groups};

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
        let properties = self.promise(index)?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        Ok(QueryReply {
            ids: device.ids,
            class: device.class,
            state: device.state,
            properties,
        })
    }

    pub(super) fn describe_held(&self, call: Call) -> Result<InfoReply, Refusal> {
        let (hold, device) = self.held(call.badge)?;
        Ok(InfoReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            properties: hold.properties,
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
}
