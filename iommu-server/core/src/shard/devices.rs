//! Devices: attached to their holders' contexts and blocked again, and the
//! faults they cause.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{ClientId, Properties, Refusal, Rule};

use super::mapping::domain_of;
use super::{Attached, Shard, backend_refusal};
use crate::backend::{Backend, BackendError, Fault};
use crate::buffers::Certainty;
use crate::env::{Env, Note};
use crate::faults::{FAULT_BURST, Waiting};

impl<E: Env, B: Backend> Shard<'_, E, B> {
    pub(super) fn attach_device(
        &mut self,
        device: Sbdf,
        client: ClientId,
    ) -> Result<Properties, Refusal> {
        let about = u64::from(device.to_bits());
        let properties = self
            .backend
            .properties(device)
            .ok_or(Refusal::new(Rule::NoIommu, about))?;
        match self.attached(device).map(|attached| attached.certainty) {
            Some(Certainty::Mapped) => {
                return Err(Refusal::new(Rule::AlreadyAttached, about));
            }
            Some(Certainty::Unconfirmed) => {
                return Err(Refusal::new(Rule::InvalidationTimeout, about));
            }
            None if self.devices.is_full() => {
                return Err(Rule::TooManyAssignments.into());
            }
            None => {}
        }
        let entry = self
            .clients
            .get_mut(usize::from(client.0))
            .ok_or(Refusal::new(Rule::UnknownBadge, client.0.into()))?;
        let outcome = match domain_of(&mut entry.context, &mut self.backend) {
            Ok(domain) => self.backend.attach(device, domain),
            Err(error) => Err(error),
        };
        let certainty = match outcome {
            Ok(()) => Certainty::Mapped,
            Err(BackendError::Unconfirmed) => Certainty::Unconfirmed,
            Err(error) => {
                self.end_idle_context(client);
                return Err(backend_refusal(error));
            }
        };
        // There is room: it was checked.
        let _ = self.devices.push(Attached {
            device,
            client,
            certainty,
        });
        let context = &mut self.client(client)?.context;
        context.devices = context.devices.saturating_add(1);
        outcome.map(|()| properties).map_err(backend_refusal)
    }

    pub(super) fn detach_device(&mut self, device: Sbdf) -> Result<(), Refusal> {
        let about = u64::from(device.to_bits());
        let place = self
            .devices
            .iter()
            .position(|attached| attached.device == device)
            .ok_or(Refusal::new(Rule::NotAttached, about))?;
        let Some(attached) = self.devices.get(place).copied() else {
            return Err(Refusal::new(Rule::NotAttached, about));
        };
        if attached.certainty == Certainty::Unconfirmed {
            return Err(Refusal::new(Rule::InvalidationTimeout, about));
        }
        if let Some(unit) = self.backend.unit_of(device) {
            // What it did until now is its present holder's to hear.
            self.drain(unit);
        }
        let context = &self.client(attached.client)?.context;
        let domain = context.domain.ok_or(Rule::NoContext)?;
        if let Err(error) = self.backend.detach(device, domain) {
            if let Some(attached) = self.devices.get_mut(place) {
                attached.certainty = Certainty::Unconfirmed;
            }
            return Err(backend_refusal(error));
        }
        self.devices.swap_remove(place);
        let context = &mut self.client(attached.client)?.context;
        context.devices = context.devices.saturating_sub(1);
        self.end_idle_context(attached.client);
        Ok(())
    }

    pub(super) fn attached(&self, device: Sbdf) -> Option<&Attached> {
        self.devices
            .iter()
            .find(|attached| attached.device == device)
    }

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
    fn drain(&mut self, unit: usize) {
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
        for fault in faults {
            self.faults += 1;
            if let Some(client) = self.record(fault) {
                heard |= 1u32.checked_shl(client.0.into()).unwrap_or(0);
            }
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
    fn record(&mut self, fault: Fault) -> Option<ClientId> {
        let holder = self.attached(fault.device).map(|attached| attached.client);
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
        holder
    }
}
