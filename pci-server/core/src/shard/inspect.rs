//! What the supervisor, and clients that may look at everything, are told. Nothing is changed.

use hw::Sbdf;
use ipc_proto::pci::{
    FiguresReply, HeldAtReply, HeldBarReply, HolderBarReply, HolderReply, MessageAtReply,
    RawConfigReply, WhyReply,
};
use ipc_proto::{BarKind, ClientId, DeviceState, Refusal, Rule, Switch, WithheldCode};

use super::queries::readable;
use super::{Parts, Shard};
use crate::config;
use crate::env::Env;
use crate::groups::Kind;
use crate::interrupts::{Setup, reading};
use crate::{Device, Withheld};

impl<E: Env> Shard<'_, E> {
    pub(super) fn count(&self) -> Result<FiguresReply, Refusal> {
        let usage = self.env.usage();
        let holds = || {
            self.assignments
                .iter()
                .filter_map(|assignment| assignment.hold.as_ref())
        };
        Ok(FiguresReply {
            devices: self.devices.len(),
            assigned: holds().count() as u32,
            slots_used: usage.slots,
            untyped_used: usage.untyped_bytes,
            operations: self.operations,
            refused: self.refused,
            parked: self.waiting().count() as u64,
        })
    }

    pub(super) fn holder_of(&self, index: u32) -> Result<HolderReply, Refusal> {
        let device = self.nth(index)?;
        let hold = device
            .assignment
            .and_then(|at| self.assignments.get(usize::from(at)))
            .and_then(|assignment| assignment.hold.as_ref());
        Ok(HolderReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
            state: device.state,
            holder: hold.map_or(0, |hold| hold.client.0 + 1),
            frames: hold.map_or(0, |hold| hold.frames),
            messages: hold.map_or(0, |hold| {
                hold.interrupts.as_ref().map_or(0, Setup::messages)
            }),
        })
    }

    /// The `index`-th device that a client holds: as many steps as assignments are possible.
    pub(super) fn held_of(&self, client: ClientId, index: u16) -> Result<HeldAtReply, Refusal> {
        let held = (self.assignments.iter())
            .filter_map(|assignment| assignment.hold.as_ref())
            .filter(|hold| hold.client == client)
            .nth(index.into())
            .and_then(|hold| self.devices.get(hold.device));
        let device = held.ok_or(Rule::EndOfList)?;
        Ok(HeldAtReply {
            device: device.at,
            ids: device.ids,
            class: device.class,
        })
    }

    pub(super) fn held_bar_of(&self, at: Sbdf, bar: u8) -> Result<HeldBarReply, Refusal> {
        let none = Refusal::new(Rule::NoSuchDevice, at.to_bits().into());
        let device = self.devices.at(at).ok_or(none)?;
        let HolderBarReply { kind, base, bytes } = self.bar(device, bar)?;
        Ok(HeldBarReply { kind, base, bytes })
    }

    pub(super) fn bar_of(&self, index: u32, bar: u8) -> Result<HolderBarReply, Refusal> {
        self.bar(self.nth(index)?, bar)
    }

    fn bar(&self, device: &Device, bar: u8) -> Result<HolderBarReply, Refusal> {
        const ROM: u8 = 6;
        if bar == ROM {
            return Ok(self.rom_of(device));
        }
        let region = device
            .bars
            .get(usize::from(bar))
            .ok_or(Refusal::new(Rule::NoSuchBar, u64::from(bar)))?;
        Ok(HolderBarReply {
            kind: region.kind,
            base: region.base,
            bytes: region.bytes,
        })
    }

    /// An enabled message of a device, as its registers have it.
    pub(super) fn message_of(&mut self, at: Sbdf, message: u16) -> Result<MessageAtReply, Refusal> {
        let about = u64::from(at.to_bits());
        let device = self.devices.at(at);
        let device = device.ok_or(Refusal::new(Rule::NoSuchDevice, about))?;
        readable(device)?;
        let none = Refusal::new(Rule::MessageNotEnabled, message.into());
        let slot = device.assignment.ok_or(none)?;
        let Parts {
            env, hold, device, ..
        } = self.parts(slot).ok_or(none)?;
        let setup = hold.interrupts.as_ref().ok_or(none)?;
        if let Some(msix) = device.msix {
            // Noted before: frames may exist even where mapping them fails.
            hold.regions |= 1u8.checked_shl(u32::from(msix.pending.bar)).unwrap_or(0);
        }
        let now = reading::message(env, device, slot, setup, message)?;
        let switch = |on: bool| if on { Switch::On } else { Switch::Off };
        Ok(MessageAtReply {
            mechanism: setup.mechanism,
            address: now.message.address,
            data: now.message.data,
            masked: switch(now.masked),
            pending: switch(now.pending),
        })
    }

    fn rom_of(&self, device: &Device) -> HolderBarReply {
        let layout = device.header.map(|header| header.layout);
        // The register of a virtual function is its physical function's; one that is in a reset is not touched.
        let is_asked = device.physical.is_none() && readable(device).is_ok();
        let register = layout
            .filter(|_| is_asked)
            .and_then(|layout| hw::bar::read_rom(&self.env, device.at, layout));
        let base = register.map_or(0, |rom| rom.address);
        let bytes = match device.rom_bits {
            0 => 0,
            bits => 1u64.checked_shl(bits.into()).unwrap_or(0),
        };
        let kind = match (base, bytes) {
            (0, 0) => BarKind::None,
            _ => BarKind::Memory32,
        };
        HolderBarReply { kind, base, bytes }
    }

    pub(super) fn why_withheld(&self, at: Sbdf) -> Result<WhyReply, Refusal> {
        let about = u64::from(at.to_bits());
        let device = self.devices.at(at);
        let device = device.ok_or(Refusal::new(Rule::NoSuchDevice, about))?;
        let why = device
            .withheld
            .filter(|_| device.state == DeviceState::Withheld);
        let bar = match why {
            Some(Withheld::Malformed(malformed)) => malformed.bar(),
            _ => None,
        };
        Ok(WhyReply {
            code: why.map_or(WithheldCode::No, Withheld::code),
            bar: bar.unwrap_or(0),
        })
    }

    pub(super) fn raw(&self, at: Sbdf, offset: u16) -> Result<RawConfigReply, Refusal> {
        let about = u64::from(at.to_bits());
        let device = self.devices.at(at);
        let device = device.ok_or(Refusal::new(Rule::NoSuchDevice, about))?;
        if !offset.is_multiple_of(64) {
            return Err(Refusal::new(Rule::BadAccess, offset.into()));
        }
        readable(device)?;
        let bytes = match device.node.kind {
            Kind::Conventional => 256,
            _ if self.env.read32(at, 256) == u32::MAX => 256,
            _ => 4096,
        };
        if offset >= bytes {
            return Err(Refusal::new(Rule::OutsideShard, offset.into()));
        }
        let half = |offset: u16| {
            let hidden = offset < 256 && (device.hidden & !config::SIZING) >> (offset / 4) & 1 != 0;
            if hidden {
                0
            } else {
                u64::from(self.env.read32(at, offset))
            }
        };
        // Below 4096.
        let word = |n: u16| half(offset + 8 * n) | half(offset + 8 * n + 4) << 32;
        Ok(RawConfigReply {
            w0: word(0),
            w1: word(1),
            w2: word(2),
            w3: word(3),
            w4: word(4),
            w5: word(5),
            w6: word(6),
            w7: word(7),
        })
    }
}
