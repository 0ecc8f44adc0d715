//! Virtual functions: enabled for the holder of a physical function, or at boot for the platform. Each is a
//! device of its own then; all of them go before the physical one does.

use hw::Sbdf;
use ipc_proto::pci::VirtualFunctionsReply;
use ipc_proto::{Badge, Refusal, Reply, Rule};
use system::model::MAX_CLIENTS;

use super::Shard;
use super::revoke::Manner;
use super::waiting::{Waiting, at_most};
use crate::device::Presence;
use crate::env::Env;
use crate::reset::{RETURN_POLL_US, RETURN_POLLS};
use crate::virtual_functions::{self, ENABLE_US, Plan};
use crate::{Index, Withheld};

/// Most physical functions of one client whose virtual functions are coming up at a time.
const MAX_ENABLING_OF_CLIENT: usize = 1;
/// The same at boot.
const MAX_ENABLING_AT_BOOT: usize = 4;
/// Most physical functions whose virtual functions are coming up at a time.
pub(super) const MAX_ENABLING: usize = MAX_ENABLING_AT_BOOT + MAX_ENABLING_OF_CLIENT * MAX_CLIENTS;

/// Virtual functions that are coming up.
#[derive(Debug)]
pub struct Enabling<T> {
    physical: Index,
    plan: Plan,
    /// Looks at whether all answer, so many more times.
    left: u8,
    /// When, in microseconds of the shard's clock.
    pub(super) due: u64,
    /// Who waits; nobody at boot.
    pub(super) waiting: Option<Waiting<T>>,
}

impl<E: Env> Shard<'_, E> {
    /// The holder of a physical function wants `count` virtual ones.
    pub(super) fn set_virtual(
        &mut self,
        badge: Badge,
        count: u16,
    ) -> Result<Reply<VirtualFunctionsReply>, Refusal> {
        let (hold, device) = self.held(badge)?;
        let (index, client) = (hold.device, hold.client);
        if device.virtualization == 0 {
            return Err(device.refusal(Rule::NoVirtualFunctions));
        }
        if self
            .later
            .enabling
            .iter()
            .any(|other| other.physical == index)
        {
            return Err(device.refusal(Rule::DeviceBusy));
        }
        if device.virtual_held > 0 {
            return Err(device.refusal(Rule::VirtualFunctionHeld));
        }
        if count == 0 {
            let first = device.at;
            self.drop_virtual(index);
            return Ok(Reply::Now(VirtualFunctionsReply {
                first,
                stride: 0,
                count: 0,
            }));
        }
        let of_client = self.later.enabling.iter().filter(|other| {
            (other.waiting.as_ref()).is_some_and(|waiting| waiting.client == client)
        });
        at_most(MAX_ENABLING_OF_CLIENT, of_client.count())?;
        self.drop_virtual(index);
        let plan = self.plan_virtual(index, count)?;
        match self.park(client) {
            Ok(waiting) => self.start_virtual(index, plan, Some(waiting)),
            Err(refusal) => {
                self.drop_virtual(index);
                return Err(refusal);
            }
        }
        Ok(Reply::Later)
    }

    /// Virtual functions that the description wants at boot.
    pub(super) fn begin_virtual(&mut self) {
        // Most descriptions want none.
        let mut next = match self.info.virtual_functions.as_slice() {
            [] => None,
            _ => self.devices.after(None),
        };
        while let Some(index) = next {
            next = self.devices.next(index);
            let Some(device) = self.devices.get(index) else {
                return;
            };
            let at = device.at;
            let wanted = self
                .info
                .virtual_functions
                .iter()
                .find(|wanted| wanted.device.matches(at, device.ids, device.class));
            let Some(count) = wanted.map(|wanted| wanted.count) else {
                continue;
            };
            if device.virtualization == 0
                || device.virtual_count > 0
                || self.later.enabling.len() >= MAX_ENABLING_AT_BOOT
            {
                continue;
            }
            match self.plan_virtual(index, count) {
                Ok(plan) => {
                    self.start_virtual(index, plan, None);
                    if let Some(device) = self.devices.get_mut(index) {
                        device.withhold(Withheld::Platform);
                    }
                }
                Err(refusal) => self
                    .env
                    .log(format_args!("{at} has no virtual functions: {refusal}")),
            }
        }
        self.arm();
    }

    /// Everything that can be refused, and the memory.
    fn plan_virtual(&mut self, index: Index, count: u16) -> Result<Plan, Refusal> {
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        let last_bus = self.last_bus_beside(device.at);
        let mut plan = Plan::make(&mut self.env, device, count, last_bus)?;
        // An address that is taken: the device lies about its offsets.
        let taken = plan.addresses().find(|at| self.devices.find(*at).is_some());
        let placed = match taken {
            Some(at) => Err(Refusal::new(Rule::MalformedDevice, u64::from(at.to_bits()))),
            None => self.place_virtual(index, &mut plan),
        };
        if let Err(refusal) = placed {
            if let Some(device) = self.devices.get(index) {
                virtual_functions::disable(&mut self.env, device);
            }
            return Err(refusal);
        }
        Ok(plan)
    }

    fn start_virtual(&mut self, index: Index, plan: Plan, waiting: Option<Waiting<E::Ticket>>) {
        plan.place(&mut self.env);
        plan.enable(&mut self.env);
        if let Some(device) = self.devices.get_mut(index) {
            device.virtual_count = plan.registers.count;
        }
        let enabling = Enabling {
            physical: index,
            plan,
            left: RETURN_POLLS,
            due: self.env.now_us().saturating_add(ENABLE_US),
            waiting,
        };
        // There is room, as was looked before.
        let _ = self.later.enabling.push(enabling);
        self.arm();
    }

    /// The virtual functions may be asked.
    pub(super) fn enabling_step(&mut self, place: usize, now: u64) {
        let Some(enabling) = self.later.enabling.get_mut(place) else {
            return;
        };
        let Some(physical) = self.devices.get(enabling.physical) else {
            // Not reached: they go with their physical function.
            enabling.due = u64::MAX;
            return;
        };
        let all = (0..enabling.plan.registers.count).all(|number| {
            enabling
                .plan
                .device(physical, number)
                .is_some_and(|device| device.presence(&self.env) == Presence::Same)
        });
        if let (false, Some(left)) = (all, enabling.left.checked_sub(1)) {
            enabling.left = left;
            enabling.due = now.saturating_add(RETURN_POLL_US);
            return;
        }
        let enabling = self.later.enabling.swap_remove(place);
        let Enabling {
            physical,
            plan,
            waiting,
            ..
        } = enabling;
        let entered = if all {
            self.enter_virtual(physical, &plan)
        } else {
            Err(Rule::ResetTimeout.into())
        };
        if let Err(refusal) = entered {
            self.env.log(format_args!(
                "{} virtual functions do not work: {refusal}",
                plan.physical
            ));
            self.drop_virtual(physical);
        }
        if let Some(Waiting { ticket, .. }) = waiting {
            let message = match entered {
                Ok(()) => VirtualFunctionsReply {
                    first: plan.addresses().next().unwrap_or(plan.physical),
                    stride: plan.registers.stride,
                    count: plan.registers.count,
                }
                .encode(),
                Err(refusal) => refusal.to_message(),
            };
            self.env.answer(ticket, &message);
        }
        // Its physical function may be waiting to be taken back.
        self.arm();
    }

    /// Enters each as a device of its own.
    fn enter_virtual(&mut self, physical: Index, plan: &Plan) -> Result<(), Refusal> {
        for number in 0..plan.registers.count {
            let device = self
                .devices
                .get(physical)
                .and_then(|physical| plan.device(physical, number))
                .ok_or(Rule::NoSuchDevice)?;
            self.take_in_virtual(device)?;
        }
        Ok(())
    }

    /// Switches the virtual functions of a physical one off, none of which is held, and forgets them.
    pub(super) fn drop_virtual(&mut self, physical: Index) {
        let Some(device) = self.devices.get_mut(physical) else {
            return;
        };
        if device.virtual_count == 0 || device.virtual_held > 0 {
            return;
        }
        device.virtual_count = 0;
        let at = device.at;
        virtual_functions::disable(&mut self.env, device);
        while let Some(index) = self.next_virtual(at, None) {
            self.forget(index);
        }
        self.give_virtual_memory(at);
        if let Some(place) = self
            .later
            .enabling
            .iter()
            .position(|enabling| enabling.physical == physical)
        {
            let enabling = self.later.enabling.swap_remove(place);
            if let Some(Waiting { ticket, .. }) = enabling.waiting {
                let about = u64::from(at.to_bits());
                let refusal = Refusal::new(Rule::NoSuchDevice, about);
                self.env.answer(ticket, &refusal.to_message());
            }
        }
    }

    /// Are virtual functions of this one coming up?
    pub(super) fn enables(&self, physical: Index) -> bool {
        self.later
            .enabling
            .iter()
            .any(|enabling| enabling.physical == physical)
    }

    /// Takes every virtual function of a physical one from its holder.
    pub(super) fn take_virtual_back(&mut self, physical: Index, at: Sbdf, manner: Manner) {
        let count = self
            .devices
            .get(physical)
            .map_or(0, |device| device.virtual_count);
        if count == 0 {
            return;
        }
        let mut last = None;
        while let Some(index) = self.next_virtual(at, last) {
            let Some(device) = self.devices.get_mut(index) else {
                return;
            };
            device.leaving = true;
            last = Some(device.at);
            self.take_from_holder(index, manner);
        }
    }

    /// A virtual function of `physical` got a holder, or lost it.
    pub(super) fn count_held_virtual(&mut self, physical: Option<Sbdf>, by: i16) {
        let physical = physical.and_then(|at| self.devices.find(at));
        if let Some(device) = physical.and_then(|index| self.devices.get_mut(index)) {
            device.virtual_held = device.virtual_held.saturating_add_signed(by);
        }
    }
}
