//! Writes to configuration space that mean more than their register: each [`Action`] is the
//! operation that it stands for, with that operation's rights.

use hw::ConfigSpace;
use hw::header::{Command, register};
use ipc_proto::pci::ConfigWriteReply;
use ipc_proto::{Badge, DeviceState, Refusal, Reply, Rule, Switch, Width};

use super::views::{Need, slot_of};
use super::{Assignments, Parts, Shard};
use crate::assignment::Asked;
use crate::config::{self, Action};
use crate::env::Env;
use crate::interrupts::Bits;
use crate::{Device, Table, notes};

impl<E: Env> Shard<'_, E> {
    /// Writes a register of a held device. When the action is refused nothing is written. Beside a reset
    /// or a new power state nothing else of the write is done.
    pub(super) fn write_config(
        &mut self,
        badge: Badge,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<Reply<ConfigWriteReply>, Refusal> {
        let Parts { env, device, .. } = self.held_mut(badge, Need::WriteConfig)?;
        let planned = config::plan(env, device, offset, width, value)?;
        match planned.action {
            None => planned.carry_out(env, device),
            Some(Action::Sizing(bar, switch)) => {
                let bit = config::sizing(bar);
                match switch {
                    Switch::On => device.hidden |= bit,
                    Switch::Off => device.hidden &= !bit,
                }
                let sizing = device.hidden & config::SIZING;
                env.store(notes::Word::Sizing.of(slot_of(badge)), sizing);
            }
            Some(Action::Reset) => {
                self.reset_device(badge, Asked::Write)?;
                return Ok(Reply::Later);
            }
            Some(Action::Power(state)) => {
                self.change_power(badge, state)?;
                return Ok(Reply::Later);
            }
            Some(Action::BusMaster(switch)) => {
                self.set_master(badge, switch)?;
                self.write_rest(badge, offset, width, value)?;
            }
            Some(Action::Messages {
                mechanism,
                enable,
                mask,
            }) => {
                self.switch_messages(badge, mechanism, Bits { enable, mask })?;
                self.write_rest(badge, offset, width, value)?;
            }
            Some(Action::Masks { changed, value }) => self.write_masks(badge, changed, value)?,
        }
        Ok(Reply::Now(ConfigWriteReply {}))
    }

    /// Reads a register over a whole device's capability; `None` where anything is special about it.
    #[inline(always)]
    pub(super) fn read_plainly(&self, badge: Badge, offset: u16, width: Width) -> Option<u32> {
        match width {
            Width::Dword => self.read_of(badge, offset, Width::Dword),
            Width::Byte | Width::Word => self.read_narrowly(badge, offset, width),
        }
    }

    /// The same for narrow registers, apart: so the others need not ask again how wide they are.
    #[inline(never)]
    fn read_narrowly(&self, badge: Badge, offset: u16, width: Width) -> Option<u32> {
        self.read_of(badge, offset, width)
    }

    #[inline(always)]
    fn read_of(&self, badge: Badge, offset: u16, width: Width) -> Option<u32> {
        let device = held_plainly(self.assignments, &self.devices, badge)?;
        config::read_plain(&self.env, device, offset, width)
    }

    /// Writes a register where that means nothing beyond it; `None`, and nothing is done, where it does or is refused.
    #[inline(always)]
    pub(super) fn write_plainly(
        &mut self,
        badge: Badge,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Option<ConfigWriteReply> {
        match width {
            Width::Dword => self.write_of(badge, offset, Width::Dword, value),
            Width::Byte | Width::Word => self.write_narrowly(badge, offset, width, value),
        }
    }

    #[inline(never)]
    fn write_narrowly(
        &mut self,
        badge: Badge,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Option<ConfigWriteReply> {
        self.write_of(badge, offset, width, value)
    }

    #[inline(always)]
    fn write_of(
        &mut self,
        badge: Badge,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Option<ConfigWriteReply> {
        let device = held_plainly(self.assignments, &self.devices, badge)?;
        config::plain::write(&mut self.env, device, offset, width, value)?;
        Some(ConfigWriteReply {})
    }

    /// Writes what no action has done: the register is another one now.
    fn write_rest(
        &mut self,
        badge: Badge,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        let Parts { env, device, .. } = self.held_mut(badge, Need::WriteConfig)?;
        config::plan(env, device, offset, width, value)?.carry_out(env, device);
        Ok(())
    }

    /// Lets the device issue memory requests, or stops it.
    #[inline]
    pub(super) fn set_master(&mut self, badge: Badge, switch: Switch) -> Result<(), Refusal> {
        let Parts { env, device, .. } = self.held_mut(badge, Need::Control)?;
        let command = env.read16(device.at, register::COMMAND);
        if command == u16::MAX {
            return Err(device.refusal(Rule::NoSuchDevice));
        }
        let mut command = Command::from_bits_retain(command);
        command.set(Command::BUS_MASTER, switch == Switch::On);
        env.write16(device.at, register::COMMAND, command.bits());
        Ok(())
    }
}

/// The device that a capability stands for which was not narrowed, while nothing is being done to it.
#[inline(always)]
fn held_plainly<'s, T>(
    assignments: &'s Assignments<T>,
    devices: &'s Table<'_>,
    badge: Badge,
) -> Option<&'s Device> {
    let assignment = assignments.get(usize::from(badge.index))?;
    let device = devices.get(assignment.hold.as_ref()?.device)?;
    let is_held =
        assignment.generation == badge.generation && device.state == DeviceState::Assigned;
    is_held.then_some(device)
}
