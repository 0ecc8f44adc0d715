//! The administrator's operations: [`Scan`] of all buses again, and removal.
//!
//! A scan is steps like everything that takes time: a bounded number of functions each. A function
//! that is known and unchanged costs one read.

use hw::header::register;
use hw::{BusRange, ConfigSpace, Sbdf};
use ipc_proto::pci::{RemoveReply, RescanReply};
use ipc_proto::{ClientId, Refusal, Reply, Rule};

use super::Shard;
use super::removals::Removed;
use super::revoke::Manner;
use super::waiting::Waiting;
use crate::device::Presence;
use crate::env::Env;
use crate::ports::{Port, State};
use crate::{Device, Withheld};

/// Functions, or places for one, that are looked at in one step.
const LOOKS: u32 = 256;
/// Between two looks at slots that get power.
const POWER_LOOK_US: u64 = 50_000;
/// Such looks: longer than any slot takes.
const POWER_LOOKS: u8 = 100;

/// What a scan does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Gives power to cards that have none.
    Power,
    /// Until they are settled: so many more looks.
    Settle(u8),
    /// Looks whether the functions after this one are still there.
    Known(Option<Sbdf>),
    /// Looks for others on the buses after this one.
    New(Option<(u16, u8)>),
}

/// A scan under way.
#[derive(Debug)]
pub struct Scan<T> {
    step: Step,
    /// When the next step is due.
    pub(super) due: u64,
    functions: u32,
    ticks: u64,
    /// Functions that had come and gone since the boot when it began.
    before: (u32, u32),
    pub(super) waiting: Waiting<T>,
}

impl<E: Env> Shard<'_, E> {
    /// Scans the buses again.
    pub(super) fn scan(&mut self, client: ClientId) -> Result<Reply<RescanReply>, Refusal> {
        if self.later.scan.is_some() {
            return Err(Rule::DeviceBusy.into());
        }
        let waiting = self.park(client)?;
        self.later.scan = Some(Scan {
            step: Step::Power,
            due: 0,
            functions: 0,
            ticks: 0,
            before: (self.later.arrived, self.later.departed),
            waiting,
        });
        let now = self.env.now_us();
        self.scan_step(now);
        self.arm();
        Ok(Reply::Later)
    }

    /// The next step of the scan.
    pub(super) fn scan_step(&mut self, now: u64) {
        let start = self.env.ticks();
        let mut left = LOOKS;
        while let Some(step) = self.later.scan.as_ref().map(|scan| scan.step) {
            let next = match step {
                Step::Known(last) => self.look_at_known(last, &mut left),
                Step::New(last) => self.look_for_new(last, &mut left),
                Step::Power => self.power_slots(now),
                Step::Settle(looks) => Some(self.await_slots(looks)),
            };
            let Some(scan) = &mut self.later.scan else {
                return;
            };
            let Some(next) = next else {
                break;
            };
            scan.step = next;
            if let Step::Settle(_) = next {
                scan.due = now.saturating_add(POWER_LOOK_US);
                left = 0;
            }
            if left == 0 {
                scan.ticks = scan
                    .ticks
                    .saturating_add(self.env.ticks().saturating_sub(start));
                return;
            }
        }
        let Some(scan) = self.later.scan.take() else {
            return;
        };
        let ticks = scan
            .ticks
            .saturating_add(self.env.ticks().saturating_sub(start));
        let reply = RescanReply {
            functions: scan.functions,
            added: self.later.arrived.wrapping_sub(scan.before.0),
            removed: self.later.departed.wrapping_sub(scan.before.1),
            ticks,
        };
        self.env.answer(scan.waiting.ticket, &reply.encode());
    }

    fn look_at_known(&mut self, mut last: Option<Sbdf>, left: &mut u32) -> Option<Step> {
        while let Some(index) = self.devices.after(last) {
            let Some(device) = self.devices.get(index) else {
                break;
            };
            if *left == 0 {
                return Some(Step::Known(last));
            }
            *left -= 1;
            last = Some(device.at);
            let gone = is_gone(&self.env, device);
            if let Some(scan) = &mut self.later.scan {
                scan.functions += 1;
            }
            if gone && !device.in_bus_reset && !device.leaving {
                self.gone(index);
            }
        }
        Some(Step::New(None))
    }

    /// A function is not there any more.
    pub(super) fn gone(&mut self, index: crate::Index) {
        if let Some(device) = self.devices.get_mut(index) {
            device.leaving = true;
        }
        self.take_from_holder(index, Manner::Removed);
        self.forget(index);
    }

    fn look_for_new(&mut self, mut last: Option<(u16, u8)>, left: &mut u32) -> Option<Step> {
        loop {
            let next = self
                .devices
                .buses()
                .map(|(segment, bus, _)| (segment, bus))
                .find(|bus| last.is_none_or(|last| *bus > last));
            // None left: the scan is over.
            let (segment, bus) = next?;
            if *left == 0 {
                return Some(Step::New(last));
            }
            *left = left.saturating_sub(32);
            last = next;
            let range = self.info.ecam.iter().find_map(|window| {
                let inside = window.segment == segment
                    && (window.first_bus..=window.last_bus).contains(&bus);
                inside.then(|| BusRange::new(bus, window.last_bus))?
            });
            // Cards in a slot come with an event, or got power before; what is behind a bridge on one does not.
            let slot = self.ports.iter().any(|port| {
                let on_card = bus == port.buses.first() || port.state != State::Occupied;
                port.slot.is_some()
                    && port.at.segment() == segment
                    && port.buses.contains(bus)
                    && on_card
            });
            if let Some(range) = range.filter(|_| !slot && self.has_unknown(segment, bus)) {
                let bridge = self.devices.bridge_to(segment, bus);
                self.take_in(bridge, segment, range);
                self.adopt_ports(segment, range);
            }
        }
    }

    /// Does a function answer on this bus that is not in the table?
    fn has_unknown(&self, segment: u16, bus: u8) -> bool {
        (0..=Sbdf::MAX_DEVICE)
            .filter_map(|device| Sbdf::from_parts(segment, bus, device, 0).ok())
            .any(|first| {
                let mut known = 0u8;
                let mut multi = false;
                for (_, device) in self.devices.functions_of(first) {
                    known |= 1 << device.at.function();
                    multi |= device.at.function() == 0
                        && device.header.is_some_and(|header| header.multi_function);
                }
                let last = if multi { Sbdf::MAX_FUNCTION } else { 0 };
                (0..=last).any(|function| {
                    let at = first.with_function(function);
                    known >> function & 1 == 0
                        && !matches!(
                            self.env.read32(at, register::VENDOR_ID),
                            u32::MAX | 0 | 0xffff_0000
                        )
                })
            })
    }

    /// What happened at slots without a word, and power where there is a card.
    fn power_slots(&mut self, now: u64) -> Option<Step> {
        for port in 0..self.ports.len() {
            self.look_at_slot(port);
            let Some(place) = self.ports.get_mut(port) else {
                break;
            };
            let at = place.at;
            let off = matches!(place.state, State::Empty | State::Failed(_));
            if off
                && let Some(slot) = &place.slot
                && slot.present(&self.env, at)
                && !place.in_reset
                && !matches!(
                    place.state,
                    State::Failed(crate::ports::PortFault::Contained)
                )
            {
                place.power_on(&mut self.env, now);
            }
        }
        Some(self.await_slots(POWER_LOOKS))
    }

    fn await_slots(&self, looks: u8) -> Step {
        match looks.checked_sub(1) {
            Some(left) if self.ports.iter().any(comes_up) => Step::Settle(left),
            _ => Step::Known(None),
        }
    }

    /// Takes a device away for good, with the whole card where it is in a slot.
    pub(super) fn remove_device(
        &mut self,
        client: ClientId,
        at: Sbdf,
    ) -> Result<Reply<RemoveReply>, Refusal> {
        let index = self
            .devices
            .find(at)
            .ok_or(Refusal::new(Rule::NoSuchDevice, u64::from(at.to_bits())))?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        let platform = !matches!(device.withheld, None | Some(Withheld::Malformed(_)));
        if platform || device.physical.is_some() {
            return Err(device.refusal(Rule::NotRemovable));
        }
        let busy = device.refusal(Rule::DeviceBusy);
        if device.in_bus_reset || device.leaving || self.enables(index) {
            return Err(busy);
        }
        let port = (0..)
            .zip(self.ports.iter())
            .filter(|(_, port)| {
                port.slot.is_some()
                    && port.at.segment() == at.segment()
                    && port.buses.contains(at.bus())
            })
            .max_by_key(|(_, port)| port.buses.first())
            .map(|(number, port)| (number, port.at, port.state, port.in_reset));
        match port {
            None => self.remove_function(client, index, at),
            Some((number, address, State::Occupied | State::RemovalPending, false)) => {
                let mut functions = 0u16;
                self.each_behind(number, |_, _| functions = functions.saturating_add(1));
                self.await_removal(client, Removed::Card(address), functions)?;
                let now = self.env.now_us();
                if let Some(port) = self.ports.get_mut(number) {
                    let task = port.withdraw(&mut self.env, now);
                    self.perform(number, task);
                }
                self.arm();
                Ok(Reply::Later)
            }
            Some(_) => Err(busy),
        }
    }

    fn remove_function(
        &mut self,
        client: ClientId,
        index: crate::Index,
        at: Sbdf,
    ) -> Result<Reply<RemoveReply>, Refusal> {
        let held = self
            .devices
            .get(index)
            .is_some_and(|device| device.assignment.is_some());
        if !held {
            self.drop_virtual(index);
            let kept = self
                .devices
                .get(index)
                .is_some_and(|device| device.virtual_held > 0);
            if kept {
                return Err(Refusal::new(
                    Rule::VirtualFunctionHeld,
                    u64::from(at.to_bits()),
                ));
            }
            self.forget(index);
            return Ok(Reply::Now(RemoveReply { functions: 1 }));
        }
        self.await_removal(client, Removed::Function(at), 1)?;
        if let Some(device) = self.devices.get_mut(index) {
            device.leaving = true;
        }
        self.take_from_holder(index, Manner::Orderly);
        self.arm();
        Ok(Reply::Later)
    }
}

/// Is a function that was known not there any more? Virtual ones are as long as their physical one.
fn is_gone<C: ConfigSpace>(cfg: &C, device: &Device) -> bool {
    if device.physical.is_some() {
        return false;
    }
    match (device.presence(cfg), device.header) {
        (Presence::Same, _) => false,
        (Presence::Gone, _) | (Presence::Other, Some(_)) => true,
        // It never had ids.
        (Presence::Other, None) => false,
    }
}

fn comes_up(port: &Port) -> bool {
    matches!(port.state, State::PoweringOn(_) | State::Settling(_))
}
