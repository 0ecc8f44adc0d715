//! What devices do wrong: faults on their way to the holders, devices that
//! fault too often or keep a translation too long, and who is told.
//!
//! A device over the bound is silenced at its unit at once: blocked, and not
//! recorded any more, so that a storm costs a bounded number of records however
//! long it lasts. Its pci-server shard is signalled and does the rest.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{ClientId, Refusal, Rule, Trouble};

use super::{Attached, Shard};
use crate::backend::{Backend, Fault};
use crate::env::{Env, Note};
use crate::faults::{FAULT_BURST, Storm, Waiting};

/// Most devices without a holder whose faults are counted apart.
pub const MAX_STRANGERS: usize = 16;

/// Whether a device is still let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Yes.
    Good,
    /// It was silenced.
    Silenced,
}

/// What is wrong with a device, until its shard has heard.
pub type Untold = Option<(Trouble, u32)>;

/// A device that nobody holds, and that faults.
#[derive(Clone, Copy, Debug)]
pub struct Stranger {
    pub(super) device: Sbdf,
    pub(super) storm: Storm,
    pub(super) standing: Standing,
    pub(super) trouble: Untold,
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// A unit's fault interrupt came.
    pub fn on_interrupt(&mut self, unit: usize) {
        if unit < self.backend.units() {
            self.drain(unit);
        }
    }

    /// The time asked for with [`Env::wake_in`] is over.
    pub fn on_timer(&mut self) {
        for unit in 0..self.backend.units() {
            let waits = self.gates.get(unit).map(|gate| gate.waiting());
            if waits == Some(Waiting::Yes) {
                self.drain(unit);
            }
        }
    }

    /// Reads a unit's fault records as far as its gate allows, and tells their holders.
    pub(super) fn drain(&mut self, unit: usize) {
        let now_us = self.env.now_us();
        let Some(gate) = self.gates.get_mut(unit) else {
            return;
        };
        let allowance = gate.allowance(now_us);
        let mut faults: Vec<Fault, { FAULT_BURST as usize }> = Vec::new();
        let drained = self.backend.drain_faults(unit, allowance, &mut |fault| {
            // The allowance is at most the room.
            let _ = faults.push(fault);
        });
        let waiting = if drained.more {
            Waiting::Yes
        } else {
            Waiting::No
        };
        if gate.count(drained.records, waiting) {
            self.env.note(Note::Storm { unit: unit as u8 });
        }
        if waiting == Waiting::Yes {
            let micros = gate.resumes_in(now_us);
            self.env.wake_in(micros);
        }
        let mut heard: u32 = 0;
        for fault in &faults {
            self.faults += 1;
            if let Some(client) = self.record(*fault, now_us) {
                heard |= 1u32.checked_shl(client.0.into()).unwrap_or(0);
            }
        }
        if heard == 0 {
            return;
        }
        for number in 0..self.clients.len() as u16 {
            if heard >> number & 1 == 0 {
                continue;
            }
            if drained.overflow
                && let Some(client) = self.clients.get_mut(usize::from(number))
            {
                // Of whom the dropped ones were is not known: those who faulted now are told.
                client.faults.count_lost();
            }
            self.env.signal(ClientId(number));
        }
    }

    /// Files a fault under the holder of its device, and says who that is.
    fn record(&mut self, fault: Fault, now_us: u64) -> Option<ClientId> {
        let place = self.culprit(fault.device);
        let holder = place.and_then(|place| self.devices.get(place));
        let holder = holder.map(|attached| attached.client);
        let client = holder.and_then(|holder| self.clients.get_mut(usize::from(holder.0)));
        let count = match client {
            Some(client) => {
                client.faults.push(fault);
                &mut client.faulted
            }
            None => &mut self.unheld_faults,
        };
        *count = count.saturating_add(1);
        let count = *count;
        if count.is_power_of_two() {
            self.env.note(Note::Fault {
                fault,
                holder,
                count,
            });
        }
        match place {
            Some(place) => self.count_against(place, now_us),
            None => self.count_against_stranger(fault.device, now_us),
        }
        holder
    }

    /// Place of the attached device that a requester id stands for: the device itself, or one with the id
    /// as alias.
    fn culprit(&self, requester: Sbdf) -> Option<usize> {
        let of = |device: Sbdf| {
            let mut places = self.devices.iter();
            places.position(|attached| attached.device == device)
        };
        of(requester).or_else(|| {
            let aliases = self.aliases.iter();
            let mut devices = aliases.filter(|(_, alias)| *alias == requester);
            devices.find_map(|(device, _)| of(*device))
        })
    }

    fn count_against(&mut self, place: usize, now_us: u64) {
        let bound = self.fault_bound;
        let Some(attached) = self.devices.get_mut(place) else {
            return;
        };
        let first = attached.untold_faults == 0;
        attached.untold_faults = attached.untold_faults.saturating_add(1);
        let device = attached.device;
        let count = attached.storm.count(now_us);
        let over = count > bound && attached.standing == Standing::Good;
        if first && !over {
            self.signal_shard_of(device);
        }
        if !over {
            return;
        }
        self.silence_device(device);
        self.tell_trouble(device, Trouble::FaultStorm, count);
    }

    /// Silences every requester id of an attached device.
    pub(super) fn silence_device(&mut self, device: Sbdf) {
        for id in &self.requesters_of(device) {
            let found = self.requesters.iter_mut().find(|found| found.id == *id);
            let Some(found) = found else { continue };
            let context = super::contexts::find_context(
                self.clients,
                self.private,
                found.client,
                found.context,
            );
            let domain = context.ok().and_then(|context| context.domain);
            if domain.is_some() && self.backend.silence(*id, domain).is_err() {
                // It is blocked in the tables; a detach will say that it was not confirmed.
                found.certainty = crate::buffers::Certainty::Unconfirmed;
            }
        }
        if let Some(attached) = self.attached_mut(device) {
            attached.standing = Standing::Silenced;
        }
    }

    fn count_against_stranger(&mut self, device: Sbdf, now_us: u64) {
        let place = self.strangers.iter().position(|one| one.device == device);
        let place = match place {
            Some(place) => place,
            None => {
                if self.strangers.is_full() {
                    // The one that has been quiet for longest makes room.
                    let latest = |place: &usize| {
                        let stranger = self.strangers.get(*place);
                        stranger.map_or(0, |stranger| stranger.storm.latest_us())
                    };
                    if let Some(quiet) = (0..self.strangers.len()).min_by_key(latest) {
                        self.strangers.swap_remove(quiet);
                    }
                }
                let _ = self.strangers.push(Stranger {
                    device,
                    storm: Storm::new(),
                    standing: Standing::Good,
                    trouble: None,
                });
                self.strangers.len().saturating_sub(1)
            }
        };
        let bound = self.fault_bound;
        let Some(stranger) = self.strangers.get_mut(place) else {
            return;
        };
        let count = stranger.storm.count(now_us);
        if count <= bound || stranger.standing == Standing::Silenced {
            return;
        }
        stranger.standing = Standing::Silenced;
        // Where the unit has no table for its bus left it is recorded still, at the pace of the gate.
        let _ = self.backend.silence(device, None);
        self.tell_trouble(device, Trouble::FaultStorm, count);
    }

    /// A device that is attached anew is nobody's no more.
    pub(super) fn forget_stranger(&mut self, device: Sbdf) {
        self.strangers.retain(|stranger| stranger.device != device);
    }

    /// Hears from the back end which devices did not answer.
    pub(super) fn hear_silent(&mut self) {
        while let Some(device) = self.backend.next_silent() {
            if let Some(attached) = self.attached_mut(device) {
                attached.standing = Standing::Silenced;
                self.tell_trouble(device, Trouble::DeviceTlbTimeout, 1);
            }
        }
    }

    fn attached_mut(&mut self, device: Sbdf) -> Option<&mut Attached> {
        let mut devices = self.devices.iter_mut();
        devices.find(|attached| attached.device == device)
    }

    /// Notes trouble with a device and signals the pci-server shard that has its bus.
    pub(super) fn tell_trouble(&mut self, device: Sbdf, trouble: Trouble, count: u32) {
        let stranger = self.strangers.iter_mut().find(|one| one.device == device);
        if let Some(stranger) = stranger {
            stranger.trouble = Some((trouble, count));
        }
        if let Some(attached) = self.attached_mut(device) {
            attached.trouble = Some((trouble, count));
        }
        self.env.note(Note::Trouble {
            device,
            trouble,
            count,
        });
        self.signal_shard_of(device);
    }

    /// Signals the pci-server shard that has the device's bus.
    fn signal_shard_of(&mut self, device: Sbdf) {
        let shard = (0..self.buses.len() as u16).find(|shard| self.has_bus(*shard, device));
        if let Some(shard) = shard {
            self.env.signal_shard(shard);
        }
    }

    /// The next device of a pci-server shard that gives trouble. Faults of a holder's device are told before what
    /// was done about them, all that came since the last time in one.
    pub(super) fn next_trouble(&mut self, shard: u16) -> Result<(Sbdf, Trouble, u32), Refusal> {
        for place in 0..self.devices.len() {
            let Some(attached) = self.devices.get(place) else {
                break;
            };
            let untold = attached.untold_faults != 0 || attached.trouble.is_some();
            if untold && self.has_bus(shard, attached.device) {
                let device = attached.device;
                let Some(attached) = self.devices.get_mut(place) else {
                    break;
                };
                match core::mem::take(&mut attached.untold_faults) {
                    0 => {}
                    count => return Ok((device, Trouble::Fault, count)),
                }
                if let Some((trouble, count)) = attached.trouble.take() {
                    return Ok((device, trouble, count));
                }
            }
        }
        for place in 0..self.strangers.len() {
            let Some(stranger) = self.strangers.get(place) else {
                break;
            };
            if stranger.trouble.is_some() && self.has_bus(shard, stranger.device) {
                let device = stranger.device;
                let stranger = self.strangers.get_mut(place);
                if let Some((trouble, count)) = stranger.and_then(|one| one.trouble.take()) {
                    return Ok((device, trouble, count));
                }
            }
        }
        Err(Rule::EndOfList.into())
    }
}
