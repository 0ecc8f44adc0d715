//! Assignment: one transaction. Policy, state, IOMMU, device capability,
//! decoding; whatever fails, all before it is undone in the order of a revocation.

use hw::header::{Command, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{
    Badge, BadgeKind, ClientId, ContextChoice, DeviceState, EventKind, Exhausted, Properties,
    Refusal, Rule, Switch, Word,
};
use system::info::MAX_RESERVED;

use super::{Shard, from_below};
use crate::assignment::{Assignment, Hold};
use crate::device::Presence;
use crate::env::{Env, Prospect};
use crate::notes::{self, Intent, State, broken};
use crate::reset::{Kept, set_control};
use crate::{Device, Index, groups};

/// A device that can be assigned, and the slot it would be held through.
struct Candidate {
    index: Index,
    assignment: u16,
}

impl<E: Env> Shard<'_, E> {
    /// Gives the device to the client, or leaves everything as it was.
    pub(super) fn assign_device(
        &mut self,
        client: ClientId,
        at: Sbdf,
        slot: u16,
        context: ContextChoice,
    ) -> Result<(Properties, u16), Refusal> {
        self.see_groups();
        let Candidate { index, assignment } =
            self.may_assign(client, at, slot).inspect_err(|refusal| {
                if refusal.rule == Rule::TooManyAssignments {
                    self.tell(client, EventKind::Quota, at, refusal.about);
                }
            })?;
        let device = self.devices.get_mut(index).ok_or(Rule::NoSuchDevice)?;
        if let Some((state, rule)) = missing(&self.env, device) {
            device.state = state;
            return Err(device.refusal(rule));
        }
        let vectors = self.reserved_vectors(client, index)?;
        let device = self.devices.get_mut(index).ok_or(Rule::NoSuchDevice)?;
        device.state = DeviceState::Assigning;
        let reset = device.reset;
        // The generation is used up, whatever becomes of this.
        let generation =
            (self.assignments.get(usize::from(assignment))).map_or(0, Assignment::next_generation);
        notes::facts::note(&mut self.env, assignment, device, client);
        let state = notes::Word::State.of(assignment);
        self.env.store(state, State::assigning(generation, client));
        let attached = if self.info.iommu_present {
            self.attach(index, client, context)
        } else {
            Ok((Properties::default(), 0))
        };
        let placed = attached.and_then(|(properties, number)| {
            let properties = Properties {
                reset,
                vectors,
                ..properties
            };
            self.open(index, assignment, client, slot, properties)
                .map(|properties| (properties, number))
                .map_err(|refusal| self.undo_attach(index, refusal))
        });
        let hold = self
            .assignments
            .get(usize::from(assignment))
            .map(|assignment| (assignment.generation, assignment.hold.as_ref()));
        match hold {
            Some((_, Some(hold))) => hold.note(&mut self.env, assignment),
            Some((generation, None)) => self.env.store(state, State::free(generation)),
            None => {}
        }
        if let Some(device) = self.devices.get_mut(index) {
            match placed {
                Ok(_) => {
                    device.state = DeviceState::Assigned;
                    device.assignment = Some(assignment);
                    let physical = device.physical;
                    self.count_held_virtual(physical, 1);
                }
                // Unless undoing has found that it is broken or gone.
                Err(_) if device.state == DeviceState::Assigning => {
                    device.state = DeviceState::Quarantined;
                }
                Err(_) => {}
            }
        }
        placed
    }

    /// Would an assignment succeed now? What it would promise.
    pub(super) fn test_assignment(
        &mut self,
        client: ClientId,
        at: Sbdf,
    ) -> Result<Properties, Refusal> {
        self.see_groups();
        // Any slot of the window does: which are free the client knows.
        let Candidate { index, .. } = self.may_assign(client, at, 0)?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        if let Some((_, rule)) = missing(&self.env, device) {
            return Err(device.refusal(rule));
        }
        self.reserved_vectors(client, index)?;
        let promise = self.promise(client, index)?;
        if self.info.iommu_present {
            self.check_reserved(at)?;
        }
        Ok(promise)
    }

    /// Vectors of those kept for the client that the device's messages may have. Only a client for which the description
    /// keeps some is promised any.
    ///
    /// # Errors
    /// `VectorQuota`, `VectorsExhausted`: it could not get a single one, since its other devices have them.
    pub(super) fn reserved_vectors(
        &mut self,
        client: ClientId,
        index: Index,
    ) -> Result<u16, Refusal> {
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        let sends = device.msi.is_some() || device.msix.is_some();
        let entry = self.clients.get(usize::from(client.0));
        let Some(entry) = entry.filter(|entry| entry.reserved_vectors != 0 && sends) else {
            return Ok(0);
        };
        let Prospect { kept, common, left } = self.env.vectors_for(client).map_err(from_below)?;
        if left == 0 {
            return Err(Refusal::new(Rule::VectorQuota, entry.vectors.into()));
        }
        if kept == 0 && common == 0 {
            let about = Exhausted {
                free: 0,
                holder: client,
                held: entry.vectors.saturating_sub(left),
            };
            return Err(Refusal::new(Rule::VectorsExhausted, about.to_word()));
        }
        Ok(kept.min(left))
    }

    /// Everything that an assignment needs and that the shard itself knows.
    fn may_assign(&self, client: ClientId, at: Sbdf, slot: u16) -> Result<Candidate, Refusal> {
        let index = self.granted(client, at)?;
        self.check_state(client, index)?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        // Without an IOMMU nothing keeps devices apart anyway.
        if !device.node.is_alone() && self.info.iommu_present {
            self.check_group(client, index)?;
        }
        self.check_window(client, slot, 1)?;
        let assignment = self.free_assignment()?;
        if !self.info.iommu_present && !self.info.unprotected && device.can_master {
            return Err(device.refusal(Rule::NoIommu));
        }
        Ok(Candidate { index, assignment })
    }

    /// Refuses a device of a group that is not the client's whole: one client holds all that is held of a
    /// group, and may have all that can be given out of it.
    fn check_group(&self, client: ClientId, index: Index) -> Result<(), Refusal> {
        let others = || {
            groups::ring(&self.devices, index.number())
                .skip(1)
                .filter_map(|place| self.devices.get(Index::new(place)))
        };
        let foreign = |member: &&Device| match (member.state, member.withheld) {
            (DeviceState::Absent, _) => false,
            (DeviceState::Withheld, Some(why)) => why.bars_group(),
            _ => !member.is_granted(client.0),
        };
        if let Some(member) = others().find(foreign) {
            return Err(member.refusal(Rule::GroupNotGranted));
        }
        let held = |member: &&Device| self.holder(member).is_some_and(|holder| holder != client);
        others()
            .find(held)
            .map_or(Ok(()), |member| Err(member.refusal(Rule::GroupHeld)))
    }

    /// Refuses a device for whose DMA firmware reserved memory that the description does not allow.
    fn check_reserved(&mut self, at: Sbdf) -> Result<(), Refusal> {
        for index in 0..MAX_RESERVED as u16 {
            match self.env.reserved_at(at, index) {
                Ok(region) if region.allowed == Switch::On => {}
                Ok(_) => {
                    return Err(Refusal::new(Rule::ReservedRegion, at.to_bits().into()));
                }
                Err(refusal) if refusal.rule == Rule::EndOfList => break,
                Err(refusal) => return Err(from_below(refusal)),
            }
        }
        Ok(())
    }

    /// Attaches the device with every requester id that its requests may carry.
    fn attach(
        &mut self,
        index: Index,
        client: ClientId,
        context: ContextChoice,
    ) -> Result<(Properties, u16), Refusal> {
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        for alias in groups::aliases(&self.devices, index.number()) {
            self.env.alias(device.at, alias).map_err(from_below)?;
        }
        let queue = device.translation.map_or(0, |cache| cache.queue);
        let attached = self.env.attach(device.at, client, context, queue);
        let (properties, number) = attached.map_err(|refusal| {
            if refusal.rule == Rule::Restarted {
                // It may have been attached.
                self.undo_attach(index, from_below(refusal))
            } else {
                from_below(refusal)
            }
        })?;
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        if properties.translation_cached
            && let Some(cache) = device.translation
        {
            cache.switch(&mut self.env, device.at, Switch::On);
        }
        Ok((properties, number))
    }

    /// The client that holds a device.
    fn holder(&self, device: &Device) -> Option<ClientId> {
        let assignment = self.assignments.get(usize::from(device.assignment?))?;
        Some(assignment.hold.as_ref()?.client)
    }

    fn check_state(&self, client: ClientId, index: Index) -> Result<(), Refusal> {
        let device = self.devices.get(index).ok_or(Rule::NoSuchDevice)?;
        let holder = self.holder(device);
        let rule = match device.state {
            DeviceState::Quarantined if device.leaving => Rule::DeviceBusy,
            DeviceState::Quarantined => return Ok(()),
            DeviceState::Withheld => {
                return Err(device
                    .withheld
                    .map_or(device.refusal(Rule::Withheld), |why| why.refusal(device.at)));
            }
            DeviceState::Absent => Rule::NoSuchDevice,
            DeviceState::Broken => Rule::DeviceBroken,
            DeviceState::Assigned | DeviceState::Resetting if holder == Some(client) => {
                Rule::AlreadyHeld
            }
            // Nobody's, and its bus is being reset.
            DeviceState::Resetting if holder.is_none() => Rule::DeviceBusy,
            DeviceState::Assigned | DeviceState::Resetting => Rule::HeldByAnother,
            DeviceState::Assigning | DeviceState::Draining => Rule::DeviceBusy,
        };
        Err(device.refusal(rule))
    }

    fn free_assignment(&self) -> Result<u16, Refusal> {
        (0..)
            .zip(self.assignments.iter())
            .find(|(_, assignment)| assignment.hold.is_none() && !assignment.stuck)
            .map(|(at, _)| at)
            .ok_or(Refusal::new(
                Rule::TooManyAssignments,
                self.assignments.len() as u64,
            ))
    }

    /// Device capability and decoding.
    fn open(
        &mut self,
        index: Index,
        at: u16,
        client: ClientId,
        slot: u16,
        properties: Properties,
    ) -> Result<Properties, Refusal> {
        let device = self.devices.get_mut(index).ok_or(Rule::NoSuchDevice)?;
        let assignment = self
            .assignments
            .get_mut(usize::from(at))
            .ok_or(Rule::TooManyAssignments)?;
        let generation = assignment.next_generation();
        let badge = Badge::new(BadgeKind::Device, generation, at);
        self.env.place_device(at, badge, client, slot)?;
        if let Err(refusal) = decode(&mut self.env, device) {
            // The client cannot have used it: its requests wait behind this one.
            if self.env.revoke_device(at).is_err() {
                device.leaks = true;
                broken::note(&mut self.env, device.at, true);
                // What is left of it never matches another life of the slot.
                assignment.generation = generation;
                assignment.stuck = true;
                self.env.log(format_args!(
                    "{} its capability cannot be revoked",
                    device.at
                ));
            }
            return Err(refusal);
        }
        assignment.generation = generation;
        let attached = self.info.iommu_present;
        assignment.hold = Some(Hold {
            fixed: State::held(generation, client, properties, attached),
            device: index,
            client,
            properties,
            attached,
            interrupts: None,
            line: false,
            vectors: false,
            silenced: false,
            remapped: false,
            frames: 0,
            regions: 0,
            views: 0,
            agreed: false,
            in_bus_reset: false,
            stuck: false,
            intent: Intent::None,
            job: None,
        });
        Ok(properties)
    }

    /// Moves a device back that was attached for nothing.
    fn undo_attach(&mut self, index: Index, refusal: Refusal) -> Refusal {
        let Some(device) = self.devices.get_mut(index) else {
            return refusal;
        };
        if device.presence(&self.env) == Presence::Gone {
            device.state = DeviceState::Absent;
        }
        if let Some(cache) = device.translation {
            cache.switch(&mut self.env, device.at, Switch::Off);
        }
        if self.info.iommu_present
            && let Err(fault) = self.env.detach(device.at)
        {
            // Still in the client's context: nobody else may have it.
            device.state = DeviceState::Broken;
            device.leaks = true;
            broken::note(&mut self.env, device.at, true);
            self.env
                .log(format_args!("{} cannot be detached: {fault}", device.at));
        }
        refusal
    }
}

/// Is it another device than the one that was examined, or none? What it is then, and the rule.
fn missing<C: ConfigSpace>(cfg: &C, device: &Device) -> Option<(DeviceState, Rule)> {
    match device.presence(cfg) {
        Presence::Same => None,
        Presence::Gone => Some((DeviceState::Absent, Rule::NoSuchDevice)),
        Presence::Other => Some((DeviceState::Broken, Rule::MalformedDevice)),
    }
}

/// Turns memory decoding on where there is memory; bus mastering stays off.
fn decode<C: ConfigSpace>(cfg: &mut C, device: &Device) -> Result<(), Refusal> {
    if !device.bars.iter().any(|region| region.is_memory()) {
        return Ok(());
    }
    let baseline = Kept::baseline(device);
    let command = Command::from_bits_retain(baseline.command) | Command::MEMORY_SPACE;
    let kept = Kept {
        command: command.bits(),
        ..baseline
    };
    set_control(cfg, device, kept).map_err(|_| {
        // What it does not take on, it does not keep either.
        cfg.write16(device.at, register::COMMAND, baseline.command);
        device.refusal(Rule::MalformedDevice)
    })
}
