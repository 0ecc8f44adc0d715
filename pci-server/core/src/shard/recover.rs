//! The start of a shard that was killed: what is held stays held, what was half done is undone or finished.
//!
//! 1. Held devices are entered as they were noted ([`enter_held`]), before the buses are scanned; what is noted and
//!    cannot be true is taken back.
//! 2. The scan finds the others, which are examined and brought to rest as at the first start. Held ones are only read
//!    ([`crate::boot::recall`]), and so are bridges and physical functions that they depend on.
//! 3. Capabilities and frames that belong to nothing are taken away ([`Shard::recall_authority`]).
//! 4. What was being done to a held device is undone, or begun again as a job ([`jobs`]).
//!
//! All of it may be killed again at any instruction: nothing is noted to be over before it is.

mod jobs;

use hw::{BusRange, Sbdf};
use ipc_proto::{ClientId, MAX_GENERATION, Rule};
use system::info::{ClientEntry, PciInfo};

use super::arrivals::Regroup;
use super::revoke::detach;
use super::{Assignments, Shard};
use crate::assignment::Hold;
use crate::boot::late;
use crate::device::Recall;
use crate::env::{Env, Parking};
use crate::notes::{self, Phase, State, Work, broken, facts, sizing};
use crate::reset::Failure;
use crate::space::Range;
use crate::{Device, Index, MAX_ASSIGNMENTS, Table, virtual_functions};
use ipc_proto::DeviceState;

/// Enters the devices that are noted as held, and takes their assignment slots up. What is noted and cannot be is
/// marked to be taken back.
pub(super) fn enter_held<E: Env>(
    env: &mut E,
    info: &PciInfo,
    clients: &[ClientEntry],
    devices: &mut Table,
    assignments: &mut Assignments<<E as Parking>::Ticket>,
) {
    for at in 0..MAX_ASSIGNMENTS as u16 {
        let word = env.load(notes::Word::State.of(at));
        if word == 0 {
            continue;
        }
        let known = State::from_word(word);
        let generation = known.map_or(0, |state| state.generation);
        let held = match known {
            Some(state) if state.phase == Phase::Held => {
                enter(env, info, clients, devices, at, &state).map(|device| (state, device))
            }
            Some(_) => continue,
            None => None,
        };
        let Some(assignment) = assignments.get_mut(usize::from(at)) else {
            continue;
        };
        match held {
            Some((state, device)) => {
                assignment.generation = generation;
                let mut hold = hold(&state, device);
                let client = clients.get(usize::from(hold.client.0));
                // Asking the msi-server once too often does no harm.
                hold.silenced = client.is_some_and(|client| client.interrupt_rate != 0);
                assignment.hold = Some(hold);
            }
            None => env.store(notes::Word::State.of(at), State::doubtful(generation)),
        }
    }
    // The generations of the others: whatever a slot is, it begins after the last one that it had.
    for (at, assignment) in (0u16..).zip(assignments.iter_mut()) {
        let state = State::from_word(env.load(notes::Word::State.of(at)));
        assignment.generation = state.map_or(0, |state| state.generation);
    }
}

/// Of a function whose BARs were being sized when an earlier life ended nobody would know where they were.
pub(super) fn end_sizing<E: Env>(env: &mut E, info: &PciInfo, devices: &Table) {
    if let Some(at) = sizing::whose(env) {
        // Nobody holds what is examined.
        if is_inside(info, at) && devices.at(at).is_none() {
            sizing::undo(env, at);
        }
        sizing::end(env);
    }
}

/// An earlier life died at its first start, in which nobody holds anything: nothing that it has made stays.
pub(super) fn take_everything<E: Env>(env: &mut E) {
    let taken = env.keep_masters(0, 0).and(env.sweep_frames());
    if let Err(refusal) = taken {
        env.log(format_args!(
            "something is left of an earlier start: {refusal}"
        ));
    }
}

/// Enters one device, if what is noted of it can be true.
fn enter<E: Env>(
    env: &E,
    info: &PciInfo,
    clients: &[ClientEntry],
    devices: &mut Table,
    at: u16,
    state: &State,
) -> Option<Index> {
    let device = facts::read(env, at);
    let plausible = (1..=MAX_GENERATION).contains(&state.generation)
        && usize::from(state.client.0) < clients.len()
        && facts::are_of(env, at, state.client)
        && state.attached == info.iommu_present
        && is_inside(info, device.at)
        && device.physical.is_none_or(|physical| {
            is_inside(info, physical)
                && physical.segment() == device.at.segment()
                && is_physical(devices, &device, physical)
        })
        && devices.iter().all(|(_, other)| !meets(other, &device));
    if !plausible {
        return None;
    }
    let index = late::enter(clients, devices, device).ok()?;
    let device = devices.get_mut(index)?;
    if !device.is_granted(state.client.0) {
        devices.remove(index);
        return None;
    }
    device.assignment = Some(at);
    device.state = DeviceState::Assigned;
    Some(index)
}

/// Can `physical` be the physical function of this one, as far as others have been entered?
fn is_physical(devices: &Table, device: &Device, physical: Sbdf) -> bool {
    let own = devices.at(physical);
    physical != device.at
        && own.is_none_or(|own| own.physical.is_none())
        && devices
            .iter()
            .all(|(_, other)| other.physical != Some(device.at))
}

/// Is it an address of the shard?
fn is_inside(info: &PciInfo, at: Sbdf) -> bool {
    info.ecam.iter().any(|window| {
        window.segment == at.segment() && (window.first_bus..=window.last_bus).contains(&at.bus())
    })
}

/// Have two devices memory in common?
fn meets(one: &Device, other: &Device) -> bool {
    let ranges = |device: &Device| {
        device.bars.map(|region| {
            let placed = region.is_memory() && region.is_placed();
            if placed {
                Range::new(region.base, region.bytes)
            } else {
                None
            }
        })
    };
    let others = ranges(other);
    (ranges(one).iter().flatten()).any(|range| others.iter().flatten().any(|it| it.meets(range)))
}

/// The hold that was noted; what belongs to it beside comes later.
fn hold<T>(state: &State, device: Index) -> Hold<T> {
    Hold {
        fixed: State::held(
            state.generation,
            state.client,
            state.properties,
            state.attached,
        ),
        device,
        client: state.client,
        properties: state.properties,
        attached: state.attached,
        interrupts: None,
        vectors: state.vectors,
        silenced: false,
        line: state.line,
        remapped: state.remapped,
        frames: 0,
        regions: state.regions,
        views: 0,
        agreed: state.agreed,
        in_bus_reset: state.work == Work::BusReset,
        stuck: false,
        intent: state.intent,
        job: None,
    }
}

impl<E: Env> Shard<'_, E> {
    /// Before anything else is done: devices that were being assigned are nobody's again, and of capabilities and frames
    /// only those stay that belong to what is held.
    pub(super) fn recall_authority(&mut self) {
        self.gone = self.env.load(notes::GONE_AT) as u32;
        let views = self.recall_views();
        let mut masters = 0u64;
        let placing = notes::was_placing(&self.env);
        for at in 0..self.assignments.len() as u16 {
            if let Some(parts) = self.parts(at) {
                masters |= 1 << at;
                let frames = parts.env.load(notes::Word::Frames.of(at)) as u32;
                parts.hold.frames = match placing {
                    Some((for_whom, before)) if for_whom == at => before,
                    _ => frames,
                };
                let frames = parts.hold.frames.into();
                parts.env.store(notes::Word::Frames.of(at), frames);
                for (bar, region) in parts.device.bars.iter().enumerate() {
                    if parts.hold.regions >> bar & 1 != 0
                        && let Some(memory) = region.memory()
                    {
                        parts.env.keep_frames(memory);
                    }
                }
            }
        }
        if let Err(refusal) = self.env.keep_masters(masters, views) {
            self.env
                .log(format_args!("capabilities are left of before: {refusal}"));
        }
        if let Err(refusal) = self.env.sweep_frames() {
            self.env
                .log(format_args!("frames are left of before: {refusal}"));
        }
        for at in 0..self.assignments.len() as u16 {
            self.undo_assignment(at);
        }
        self.recall_broken();
        self.recall_virtual();
    }

    /// Takes a device back that was being assigned, or of which what is noted cannot be true. Its capability is gone,
    /// and it was brought to rest with those that nobody has.
    fn undo_assignment(&mut self, at: u16) {
        let place = notes::Word::State.of(at);
        let Some(state) = State::from_word(self.env.load(place)) else {
            return;
        };
        let whole = match state.phase {
            Phase::Assigning => false,
            Phase::Doubtful => true,
            Phase::Free | Phase::Held => return,
        };
        let address = facts::read(&self.env, at).at;
        let index = self.devices.find(address);
        let nobodys = index
            .and_then(|index| self.devices.get(index))
            .is_none_or(|device| device.assignment.is_none());
        if is_inside(self.info, address) && nobodys {
            let mut result = Ok(());
            if whole {
                let _ = super::lines::leave_line(&mut self.env, address);
                result = self.env.unremap(address);
                if result.is_ok() {
                    result = self.env.give_back(address);
                }
            }
            if self.info.iommu_present {
                result = detach(&mut self.env, address).and(result);
            }
            // Of what is not in its unit's tables nothing is left, either.
            if let Err(refusal) = result
                && refusal.rule != Rule::NoSuchDevice
                && let Some(device) = index.and_then(|index| self.devices.get_mut(index))
            {
                device.state = DeviceState::Broken;
                device.leaks = true;
                broken::note(&mut self.env, address, true);
                self.env
                    .log(format_args!("{address} cannot be taken back: {refusal}"));
            }
        }
        self.env.store(place, State::free(state.generation));
    }

    /// Virtual functions of a physical one that is held, or of which some are, stay switched on; those of others are
    /// switched off, so that all is as at the first start.
    pub(super) fn recall_virtual(&mut self) {
        let mut next = self.devices.after(None);
        while let Some(index) = next {
            next = self.devices.next(index);
            let Some(device) = self.devices.get_mut(index) else {
                return;
            };
            if device.virtualization == 0 || device.recall != Recall::Done {
                continue;
            }
            if device.assignment.is_some() || device.virtual_held > 0 {
                device.virtual_count = virtual_functions::enabled(&self.env, device);
            } else if device.withheld.is_none() {
                virtual_functions::disable(&mut self.env, device);
            }
        }
    }

    /// Functions that nobody got any more stay so.
    fn recall_broken(&mut self) {
        for n in 0..crate::MAX_FUNCTIONS {
            let Some((at, leaks)) = broken::nth(&self.env, n) else {
                continue;
            };
            let index = self.devices.find(at);
            match index.and_then(|index| self.devices.get_mut(index)) {
                Some(device) if device.assignment.is_none() => {
                    if device.state == DeviceState::Quarantined {
                        device.state = DeviceState::Broken;
                    }
                    device.leaks = leaks;
                }
                _ => {}
            }
        }
    }

    /// What was going on with held devices is undone, or goes on.
    pub(super) fn resume(&mut self) {
        let mut holders = 0u32;
        for at in 0..self.assignments.len() as u16 {
            let Some(client) = self.parts(at).map(|parts| parts.hold.client) else {
                continue;
            };
            holders |= 1u32.checked_shl(client.0.into()).unwrap_or(0);
            self.resume_hold(at);
        }
        for client in (0..32u16).filter(|client| holders >> client & 1 != 0) {
            self.events.lose(&mut self.env, ClientId(client));
        }
        for port in 0..self.ports.len() {
            self.look_at_errors(port);
            self.look_at_slot(port);
        }
        if self.gone != 0 && self.owed == 0 {
            self.env.tell_supervisor();
        }
        // Whatever was reported meanwhile.
        self.trouble = self.info.iommu_present;
        self.line_trouble = true;
        self.arm();
    }

    /// A function has answered that did not when the shard was restarted.
    pub(super) fn known_at_last(&mut self, at: Sbdf) {
        if let Some(buses) = BusRange::new(at.bus(), at.bus()) {
            self.find_bus_resets(at.segment(), buses);
        }
        self.regroup = Regroup::Everything;
    }

    /// What is wrong with a revocation that goes on after a restart.
    const fn trouble_before() -> Failure {
        Failure::Cached
    }
}
