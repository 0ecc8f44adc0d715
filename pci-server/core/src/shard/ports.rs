//! Cards that come and go: what a port asks for is done here, with the devices behind it.
//!
//! Insertion: enumerate, place, quarantine, announce. Orderly removal: announce, drain and revoke,
//! power off. Surprise removal: revoke without touching what is gone. All of it through the
//! jobs of the devices: nothing waits. Errors that ports collect are in `errors`.

use hw::capability::{CapabilityList, Express};
use hw::header::{BusNumbers, Layout};
use hw::{BusRange, Sbdf};
use ipc_proto::{ClientId, DeviceState, EventKind, Refusal, Rule};

use super::Shard;
use super::removals::Removed;
use super::revoke::Manner;
use crate::device::Presence;
use crate::env::{Env, VectorBlock};
use crate::notes::broken;
use crate::ports::errors::{self, ErrorSource};
use crate::ports::slot::Slot;
use crate::ports::{GRACE_US, Port, State, Task, message};
use crate::{Device, Index};

impl<E: Env> Shard<'_, E> {
    /// Looks after the ports among the functions on these buses, new ones.
    pub(super) fn adopt_ports(&mut self, segment: u16, buses: BusRange) {
        let mut next = self.next_on(segment, buses, before(segment, buses));
        while let Some(index) = next {
            next = self.following(segment, buses, index);
            let Some(device) = self.devices.get(index) else {
                return;
            };
            let at = device.at;
            let is_bridge = device
                .header
                .is_some_and(|header| header.layout == Layout::Bridge);
            if is_bridge && self.ports.iter().all(|port| port.at != at) {
                self.adopt_port(at);
            }
        }
        self.arm();
    }

    pub(super) fn adopt_port(&mut self, at: Sbdf) {
        let list = CapabilityList::read(&self.env, at, Layout::Bridge);
        let Ok(Some(express)) = list.find::<Express, E>(&self.env, at) else {
            return;
        };
        let Some(buses) = BusNumbers::read(&self.env, at).behind() else {
            return;
        };
        let slot = Port::slot_of(&self.env, at, &express);
        let errors = ErrorSource::new(&self.env, at, &express, &list);
        if self.info.port_interrupt.is_some() {
            errors::pass(&mut self.env, at, &express);
        }
        if !express.port.is_downstream() || slot.is_none() && errors.is_none() {
            return;
        }
        let interrupts = match self.info.port_interrupt {
            None => false,
            Some(interrupt) => {
                let vector = VectorBlock {
                    address: interrupt.address,
                    data: interrupt.data,
                };
                let programmed = self
                    .own_message(at, vector)
                    .and_then(|vector| message::program(&mut self.env, at, &list, vector));
                if let Err(refusal) = programmed {
                    self.env
                        .log(format_args!("{at} cannot interrupt: {refusal}"));
                }
                programmed.is_ok()
            }
        };
        let mut port = Port::new(at, buses, slot, errors);
        let occupied = self.next_behind(&port, None).is_some();
        // After a restart there may be a device that is held and was pulled out meanwhile.
        let answers = occupied && self.answers_behind(&port);
        let tells = |slot: &Slot| {
            slot.present(&self.env, at) || slot.link_active(&self.env, at) == Some(true)
        };
        if answers && !port.slot.as_ref().is_none_or(tells) {
            // It would be believed to be pulled out: such a slot cannot be one for hot-plug.
            self.env.log(format_args!(
                "{at} says that there is no card, but one answers: not a slot for hot-plug"
            ));
            port.slot = None;
        }
        let now = self.env.now_us();
        port.begin(&mut self.env, now, occupied, interrupts);
        if let Some(errors) = port.errors.as_mut().filter(|_| interrupts) {
            errors.begin(&mut self.env, at);
        }
        if let Some(slot) = &port.slot {
            let number = slot.number;
            let how = if interrupts {
                ""
            } else {
                ", only looked at by a scan"
            };
            self.env.log(format_args!(
                "{at} slot {number} for buses {:02x} to {:02x}{how}",
                buses.first(),
                buses.last()
            ));
        }
        let reports = port.errors.is_some() && interrupts;
        if !self.ports.push(port) {
            self.env
                .log(format_args!("{at} is beyond the bound of ports"));
            return;
        }
        if reports {
            let number = self.ports.len().saturating_sub(1);
            self.each_behind(number, |shard, index| shard.report_errors(index));
        }
    }

    /// The shard's message as this port is to send it, where interrupts are remapped.
    fn own_message(&mut self, at: Sbdf, vector: VectorBlock) -> Result<VectorBlock, Refusal> {
        if !self.info.iommu_present {
            return Ok(vector);
        }
        // One of an earlier life of the port, or of its address.
        self.env.unremap(at)?;
        match self.env.remap(at, vector, 1) {
            // No unit sees it: nothing remaps it either.
            Err(refusal) if refusal.rule == Rule::NoIommu => Ok(vector),
            remapped => remapped,
        }
    }

    /// The first function behind a port after `last`.
    fn next_behind(&self, port: &Port, last: Option<Sbdf>) -> Option<Index> {
        let segment = port.at.segment();
        let last = last.or_else(|| before(segment, port.buses));
        self.next_on(segment, port.buses, last)
    }

    /// Does a function answer behind a port?
    fn answers_behind(&self, port: &Port) -> bool {
        let mut last = None;
        while let Some(device) = (self.next_behind(port, last)).and_then(|at| self.devices.get(at))
        {
            if device.presence(&self.env) != Presence::Gone {
                return true;
            }
            last = Some(device.at);
        }
        false
    }

    /// The first function on these buses after `last`.
    pub(super) fn next_on(
        &self,
        segment: u16,
        buses: BusRange,
        last: Option<Sbdf>,
    ) -> Option<Index> {
        let index = self.devices.after(last)?;
        self.is_on(segment, buses, index).then_some(index)
    }

    /// The function on these buses after another one of the table.
    pub(super) fn following(&self, segment: u16, buses: BusRange, index: Index) -> Option<Index> {
        let index = self.devices.next(index)?;
        self.is_on(segment, buses, index).then_some(index)
    }

    fn is_on(&self, segment: u16, buses: BusRange, index: Index) -> bool {
        let device = self.devices.get(index);
        device.is_some_and(|Device { at, .. }| at.segment() == segment && buses.contains(at.bus()))
    }

    /// Does somebody hold a function behind the port?
    fn is_held(&self, port: usize) -> bool {
        self.any_behind(port, |device| device.assignment.is_some())
    }

    fn any_behind(&self, port: usize, is: impl Fn(&Device) -> bool) -> bool {
        let Some(port) = self.ports.get(port) else {
            return false;
        };
        let mut last = None;
        while let Some(device) = self
            .next_behind(port, last)
            .and_then(|index| self.devices.get(index))
        {
            if is(device) {
                return true;
            }
            last = Some(device.at);
        }
        false
    }

    /// Does something with every function behind a port; it may be taken out of the table.
    pub(super) fn each_behind(&mut self, port: usize, mut act: impl FnMut(&mut Self, Index)) {
        let Some((segment, buses)) = self
            .ports
            .get(port)
            .map(|port| (port.at.segment(), port.buses))
        else {
            return;
        };
        let mut last = before(segment, buses);
        while let Some(index) = self.next_on(segment, buses, last) {
            let Some(at) = self.devices.get(index).map(|device| device.at) else {
                return;
            };
            last = Some(at);
            act(self, index);
        }
    }

    /// Ports interrupt: all of them are looked at, since they share the vector.
    pub fn on_interrupt(&mut self) {
        let mut port = 0;
        // A port may go while another is served, never come.
        while port < self.ports.len() {
            self.look_at_errors(port);
            self.look_at_slot(port);
            port += 1;
        }
        self.arm();
    }

    /// What happened at a slot.
    pub(super) fn look_at_slot(&mut self, port: usize) {
        let held = self.is_held(port);
        let now = self.env.now_us();
        let Some(place) = self.ports.get_mut(port) else {
            return;
        };
        let task = place.notice(&mut self.env, now, held);
        self.perform(port, task);
    }

    /// The port's moment has come.
    pub(super) fn port_due(&mut self, port: usize, now: u64) {
        let held = self.is_held(port);
        let Some(place) = self.ports.get_mut(port) else {
            return;
        };
        let at = place.at;
        if let Some(errors) = &mut place.errors
            && errors.resume(&mut self.env, at, now)
        {
            self.look_at_errors(port);
            return;
        }
        if place.due() <= now {
            let task = place.tick(&mut self.env, now, held);
            self.perform(port, task);
        }
    }

    /// Does what a port asks for.
    pub(super) fn perform(&mut self, port: usize, task: Task) {
        let Some(at) = self.ports.get(port).map(|port| port.at) else {
            return;
        };
        match task {
            Task::Nothing => {}
            Task::Enumerate => self.enter_card(port),
            Task::Announce => {
                self.each_behind(port, |shard, index| {
                    shard.set_leaving(index, true);
                    if let Some((client, device)) = shard.holding(index) {
                        shard.tell(client, EventKind::RemovalRequested, device, GRACE_US);
                    }
                });
            }
            Task::Keep => self.each_behind(port, |shard, index| shard.set_leaving(index, false)),
            Task::TakeBack => {
                self.each_behind(port, |shard, index| {
                    shard.set_leaving(index, true);
                    shard.take_from_holder(index, Manner::Orderly);
                });
                self.check_withdrawn(at);
            }
            Task::Vanished => {
                self.env.log(format_args!("{at} the card is gone"));
                self.each_behind(port, |shard, index| {
                    shard.set_leaving(index, true);
                    shard.take_from_holder(index, Manner::Removed);
                });
                self.check_withdrawn(at);
            }
            Task::Failed(fault) => {
                self.env.log(format_args!("{at} slot failed: {fault}"));
            }
        }
        self.answer_removals(at);
    }

    fn set_leaving(&mut self, index: Index, leaving: bool) {
        if let Some(device) = self.devices.get_mut(index) {
            device.leaving = leaving;
        }
    }

    /// Who holds a device, and its address.
    pub(super) fn holding(&self, index: Index) -> Option<(ClientId, Sbdf)> {
        let device = self.devices.get(index)?;
        let assignment = self.assignments.get(usize::from(device.assignment?))?;
        Some((assignment.hold.as_ref()?.client, device.at))
    }

    /// Takes a device from its holder, if it has one; else it is only noted that it is gone.
    pub(super) fn take_from_holder(&mut self, index: Index, manner: Manner) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        match device.assignment {
            Some(at) => drop(self.take_back(at, manner).is_some()),
            None if manner == Manner::Removed && device.state == DeviceState::Quarantined => {
                device.state = DeviceState::Absent;
            }
            None => {}
        }
    }

    /// If nobody holds anything behind the port any more, and it waits for that: the card is forgotten.
    fn check_withdrawn(&mut self, at: Sbdf) {
        let Some(port) = self.ports.iter().position(|port| port.at == at) else {
            return;
        };
        let waits = self
            .ports
            .get(port)
            .is_some_and(|port| matches!(port.state, State::Withdrawing(_)));
        if !waits || self.is_held(port) {
            return;
        }
        self.each_behind(port, |shard, index| shard.forget(index));
        // Ports of a switch on the card are gone with it, which moves the others.
        let Some(segment) = self.ports.get(port).map(|port| port.at.segment()) else {
            return;
        };
        if let Some(buses) = self.ports.get(port).map(|port| port.buses) {
            self.ports
                .retain(|port| port.at.segment() != segment || !buses.contains(port.at.bus()));
        }
        let now = self.env.now_us();
        if let Some(port) = self.ports.iter_mut().find(|port| port.at == at) {
            if let Some(errors) = &port.errors {
                errors.release(&mut self.env, at);
            }
            port.withdrawn(&mut self.env, now);
        }
        self.answer_removals(at);
    }

    /// A device was taken back: a removal may wait for that.
    pub(super) fn after_end(&mut self, at: Sbdf) {
        // Its state first: it tells nearly all ports apart, and this is on the way of every release.
        let gives_way = |port: &Port| {
            matches!(port.state, State::Withdrawing(_) | State::RemovalPending)
                && port.at.segment() == at.segment()
                && port.buses.contains(at.bus())
        };
        let mut last = 0;
        while let Some(number) = (self.ports.iter().skip(last))
            .position(gives_way)
            .map(|place| last + place)
        {
            last = number + 1;
            let Some((address, state)) = self.ports.get(number).map(|port| (port.at, port.state))
            else {
                break;
            };
            match state {
                State::Withdrawing(_) => self.check_withdrawn(address),
                // All holders have let go: nobody needs the rest of the grace.
                State::RemovalPending if !self.is_held(number) => {
                    let now = self.env.now_us();
                    if let Some(port) = self.ports.get_mut(number) {
                        let task = port.withdraw(&mut self.env, now);
                        self.perform(number, task);
                    }
                }
                _ => {}
            }
        }
        // Removed by itself, not with a card.
        let card = last > 0 && self.ports.iter().any(gives_way);
        let leaves = |index: &Index| {
            let device = self.devices.get(*index);
            device.is_some_and(|device| device.leaving)
        };
        if !card && let Some(index) = self.devices.find(at).filter(leaves) {
            self.forget(index);
            self.answer_removal(Removed::Function(at));
        }
    }

    /// Takes a function out of the table, which nobody holds. Who it was granted to is told.
    pub(super) fn forget(&mut self, index: Index) {
        let Some(device) = self.devices.get(index) else {
            return;
        };
        if device.assignment.is_some() {
            return;
        }
        if device.leaks {
            let at = device.at;
            self.env
                .log(format_args!("{at} removed, and kept in quarantine"));
            return;
        }
        let (at, state) = (device.at, device.state);
        let (granted, withheld) = (device.granted(), device.withheld.is_some());
        self.drop_virtual(index);
        if state == DeviceState::Broken {
            broken::forget(&mut self.env, at);
        }
        self.later.departed = self.later.departed.wrapping_add(1);
        self.take_out(index);
        self.env.log(format_args!("{at} removed"));
        if !withheld {
            self.tell_all(granted, EventKind::Removed, at, 0);
        }
    }

    /// A card answers: its functions are taken in.
    fn enter_card(&mut self, port: usize) {
        let Some((at, buses)) = self.ports.get(port).map(|port| (port.at, port.buses)) else {
            return;
        };
        self.take_in(Some(at), at.segment(), buses);
        // A scan may have found some of them before.
        let mut found = 0usize;
        self.each_behind(port, |_, _| found += 1);
        let now = self.env.now_us();
        if let Some(port) = self.ports.get_mut(port) {
            let next = port.entered(&mut self.env, now, found);
            self.perform_last(at, next);
        }
        if found > 0 {
            self.adopt_ports(at.segment(), buses);
        }
    }

    fn perform_last(&mut self, at: Sbdf, task: Task) {
        if let Task::Failed(fault) = task {
            self.env.log(format_args!("{at} slot failed: {fault}"));
        }
    }

    /// Announces functions that have come.
    pub(super) fn announce(&mut self, index: Index) {
        let Some(device) = self.devices.get(index) else {
            return;
        };
        self.later.arrived = self.later.arrived.wrapping_add(1);
        if device.state == DeviceState::Quarantined {
            let (at, granted) = (device.at, device.granted());
            self.tell_all(granted, EventKind::Added, at, 0);
        }
    }
}

/// The address before the first on these buses.
pub(super) fn before(segment: u16, buses: BusRange) -> Option<Sbdf> {
    let first = Sbdf::from_parts(segment, buses.first(), 0, 0).ok()?;
    first.to_bits().checked_sub(1).map(Sbdf::from_bits)
}
