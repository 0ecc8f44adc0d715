//! Functions that come into the table and go out of it while the shard serves, and what depends on
//! who is where: the reset of a bus as a function's own.

use hw::capability::Express;
use hw::header::{BusNumbers, register};
use hw::{BusRange, Sbdf};
use ipc_proto::{DeviceState, Refusal, ResetKind, Rule};

use super::Shard;
use super::ports::before;
use crate::boot::late;
use crate::env::Env;
use crate::groups::Claims;
use crate::ports::State;
use crate::ports::errors::{REPORT_COMMAND, REPORT_ERRORS};
use crate::table::Part;
use crate::virtual_functions::Plan;
use crate::{Device, Index, groups, placement};

/// Where isolation groups are to be formed anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Regroup {
    Nothing,
    /// Around a device of a root bus: it and what is behind it.
    Around(Sbdf),
    Everything,
}

impl<E: Env> Shard<'_, E> {
    /// After the boot: ports, resets of buses, remapping units, virtual functions.
    pub(super) fn start(&mut self, is_restart: bool) {
        for window in &self.info.ecam {
            if let Some(buses) = BusRange::new(window.first_bus, window.last_bus) {
                self.find_bus_resets(window.segment, buses);
                self.adopt_ports(window.segment, buses);
            }
        }
        // Units keep their messages.
        if !is_restart {
            self.program_units();
        }
        self.begin_virtual();
    }

    /// Takes in what is behind a port and was not known; gives how many functions that is. Those whom
    /// they are granted to hear of them.
    pub(super) fn take_in(&mut self, bridge: Option<Sbdf>, segment: u16, buses: BusRange) -> u16 {
        let count = late::take_in(
            &mut self.env,
            self.info,
            self.clients,
            &mut self.devices,
            segment,
            buses,
            bridge,
        );
        if count == 0 {
            return 0;
        }
        let mut last = before(segment, buses);
        while let Some(index) = self.next_on(segment, buses, last) {
            let Some(device) = self.devices.get(index) else {
                break;
            };
            let (at, is_new) = (device.at, device.is_new);
            last = Some(at);
            if is_new && self.is_a_ports(at, bridge) {
                self.take_out(index);
            } else if is_new {
                self.regroup_at(at);
                late::settle(&mut self.env, self.info, &mut self.devices, index);
                self.settled(index);
            }
        }
        self.find_bus_resets(segment, buses);
        count
    }

    /// Is it in a slot whose port has not let it in, or has let it go? Whoever looks at the buses above comes by there;
    /// what is in the table without its port's knowledge would never leave it.
    fn is_a_ports(&self, at: Sbdf, lets_in: Option<Sbdf>) -> bool {
        self.ports.iter().any(|port| {
            port.slot.is_some()
                && port.at.segment() == at.segment()
                && port.buses.contains(at.bus())
                && Some(port.at) != lets_in
                && !matches!(port.state, State::Occupied | State::RemovalPending)
        })
    }

    /// A new function is ready.
    fn settled(&mut self, index: Index) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        device.is_new = false;
        let at = device.at;
        let reports = self.ports.iter().any(|port| {
            port.errors.is_some()
                && port.at.segment() == at.segment()
                && port.buses.contains(at.bus())
        });
        if reports {
            self.report_errors(index);
        }
        self.announce(index);
    }

    /// Lets a function report its errors to the port above, which takes them.
    pub(super) fn report_errors(&mut self, index: Index) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if device.error_reporting == 0 || device.state != DeviceState::Quarantined {
            return;
        }
        let control = device
            .express
            .map(|express: Express| express.device_control_register());
        if let Some(register) = control {
            device.baseline.device_control |= REPORT_ERRORS;
            let value = device.baseline.device_control;
            self.env.write16(device.at, register, value);
            device.baseline.command |= REPORT_COMMAND.bits();
            let command = device.baseline.command;
            self.env.write16(device.at, register::COMMAND, command);
        }
    }

    /// Functions on these buses that have no reset of their own and are alone behind a bridge: its bus is
    /// reset in their place.
    pub(super) fn find_bus_resets(&mut self, segment: u16, buses: BusRange) {
        let mut next = self.next_on(segment, buses, before(segment, buses));
        while let Some(index) = next {
            next = self.following(segment, buses, index);
            let Some(device) = self.devices.get(index) else {
                return;
            };
            if !matches!(device.reset, None | Some(ResetKind::Bus)) || device.withheld.is_some() {
                continue;
            }
            let bridge = self.alone_behind(device);
            if let Some(device) = self.devices.get_mut(index) {
                device.reset = bridge.map(|_| ResetKind::Bus);
                device.reset_bridge = bridge;
            }
        }
    }

    /// The bridge above a function, if nothing else is behind it.
    fn alone_behind(&self, device: &Device) -> Option<Sbdf> {
        if device.physical.is_some() {
            return None;
        }
        let at = device.at;
        let bridge = self.devices.bridge_to(at.segment(), at.bus())?;
        let is_type1 = self.devices.at(bridge)?.header?.layout == hw::header::Layout::Bridge;
        let buses = BusNumbers::read(&self.env, bridge).behind()?;
        let first = self.next_on(at.segment(), buses, before(at.segment(), buses))?;
        let alone = self.devices.get(first)?.at == at
            && self.next_on(at.segment(), buses, Some(at)).is_none();
        (is_type1 && alone).then_some(bridge)
    }

    /// Takes a function out of the table; its memory may be used for another.
    pub(super) fn take_out(&mut self, index: Index) {
        let Some(device) = self.devices.get(index) else {
            return;
        };
        match device.physical {
            Some(_) => self.regroup = Regroup::Everything,
            None => self.regroup_at(device.at),
        }
        let Some(device) = self.devices.remove(index) else {
            return;
        };
        let at = device.at;
        if device.bridge.is_some() {
            self.devices.close_behind(at);
        }
        let only = self.devices.on_bus(at.segment(), at.bus()).next().is_none();
        if only && !self.may_refill(&device) {
            self.devices.close(at.segment(), at.bus());
        }
    }

    /// Is the bus of a function that has left one where others may come: a root bus, or one that a bridge leads to? A scan
    /// looks at buses that are open and at no others.
    fn may_refill(&self, left: &Device) -> bool {
        let (segment, bus) = (left.at.segment(), left.at.bus());
        match self.devices.bridge_to(segment, bus) {
            Some(bridge) => self
                .devices
                .at(bridge)
                .and_then(|bridge| bridge.bridge?.buses)
                .is_some_and(|buses| buses.contains(bus)),
            // Virtual functions may have a bus of their own, which is there with them.
            None => left.physical.is_none(),
        }
    }

    /// The groups around an address are to be formed anew.
    fn regroup_at(&mut self, at: Sbdf) {
        let top = self.devices.top_of(at);
        let top = top.map_or(Regroup::Everything, |top| {
            Regroup::Around(top.with_function(0))
        });
        self.regroup = match self.regroup {
            Regroup::Nothing => top,
            before if before == top => before,
            _ => Regroup::Everything,
        };
    }

    /// Forms the isolation groups anew where functions have come or gone since.
    #[inline]
    pub(super) fn see_groups(&mut self) {
        if self.regroup != Regroup::Nothing {
            self.form_groups();
        }
    }

    #[cold]
    fn form_groups(&mut self) {
        let around = match core::mem::replace(&mut self.regroup, Regroup::Nothing) {
            // Elsewhere a bridge may claim what is in the part.
            Regroup::Around(at) if self.claims == Claims::Apart => Some(at),
            _ => None,
        };
        let part = around.and_then(|at| Part::of(&mut self.devices, at));
        self.claims = match part {
            Some(mut part) => groups::form(&mut part),
            None => groups::form(&mut self.devices),
        };
    }

    /// Enters a virtual function.
    pub(super) fn take_in_virtual(&mut self, device: Device) -> Result<(), Refusal> {
        let at = device.at;
        let full = |_| Refusal::new(Rule::BadFunctionCount, u64::from(at.to_bits()));
        let index = late::enter(self.clients, &mut self.devices, device).map_err(full)?;
        self.regroup = Regroup::Everything;
        late::settle(&mut self.env, self.info, &mut self.devices, index);
        self.settled(index);
        Ok(())
    }

    /// Memory for virtual functions, in the windows of the bridge above.
    pub(super) fn place_virtual(
        &mut self,
        physical: Index,
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        let placed = placement::place_virtual(
            &mut self.env,
            &mut self.devices,
            self.info,
            physical,
            &mut plan.bars,
            plan.registers.count,
        );
        if placed {
            Ok(())
        } else {
            Err(Refusal::new(Rule::BadFunctionCount, 0))
        }
    }

    /// Gives it back.
    pub(super) fn give_virtual_memory(&mut self, physical: Sbdf) {
        let index = self.devices.find(physical);
        if let Some(device) = index.and_then(|index| self.devices.get_mut(index)) {
            device.virtual_memory = None;
        }
    }

    /// The last bus number that reaches functions beside the one at `at`.
    pub(super) fn last_bus_beside(&self, at: Sbdf) -> u8 {
        self.devices
            .bridge_to(at.segment(), at.bus())
            .and_then(|bridge| BusNumbers::read(&self.env, bridge).behind())
            .map_or(at.bus(), BusRange::last)
    }

    /// The first virtual function of a physical one after `last`.
    pub(super) fn next_virtual(&self, physical: Sbdf, last: Option<Sbdf>) -> Option<Index> {
        let end = self.last_bus_beside(physical);
        let mut last = last.unwrap_or(physical);
        loop {
            let index = self.devices.after(Some(last))?;
            let device = self.devices.get(index)?;
            if device.at.segment() != physical.segment() || device.at.bus() > end {
                return None;
            }
            if device.physical == Some(physical) {
                return Some(index);
            }
            last = device.at;
        }
    }
}
