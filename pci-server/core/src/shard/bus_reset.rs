//! The reset of a bus: everything behind a bridge, which is why every holder of something there has to
//! agree (PCIe 5.0, 6.6.1, 7.5.1.3.13).
//!
//! Interrupts and bus mastering off -> reset held, let go -> 100 ms, then until all answer, a second at most
//! -> bridges, then functions as they were before. While it lasts nobody touches what is behind the
//! bridge: jobs of its devices wait ([`super::work`]), events of its slot are not about cards.

use heapless::Vec;
use hw::header::{Layout, register};
use hw::{BusRange, ConfigSpace, Sbdf};
use ipc_proto::pci::{AgreeBusResetReply, BusResetReply};
use ipc_proto::{Badge, DeviceState, EventKind, Refusal, Reply, Rule};
use system::model::MAX_CLIENTS;

use super::ports::before;
use super::revoke::{cache_again, no_cache};
use super::waiting::{Waiting, at_most};
use super::{Parts, Shard};
use crate::device::Presence;
use crate::env::Env;
use crate::notes::setup;
use crate::reset::{
    BUS_US, Failure, HOLD_US, Kept, RETURN_POLL_US, RETURN_POLLS, hold_bus, let_go_of_bus, restore,
    set_control,
};
use crate::{Device, Index, Withheld, interrupts};

/// Most buses that one client has in reset at a time.
const MAX_BUS_RESETS_OF_CLIENT: usize = 1;
/// Most buses in reset at a time.
pub(super) const MAX_BUS_RESETS: usize = MAX_BUS_RESETS_OF_CLIENT * MAX_CLIENTS;
/// Most functions behind a bridge whose bus is reset.
const MAX_MEMBERS: usize = 64;
/// Registers of a bridge that a reset changes: from the bus numbers to the upper halves of the windows.
const WINDOWS: core::ops::Range<u16> = 0x18..0x34;

/// What is done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    LetGo,
    /// Looks at whether all are back, so many more times.
    Return(u8),
}

/// A function behind the bridge, and what it is brought back to.
#[derive(Clone, Copy, Debug)]
struct Member {
    device: Index,
    kept: Kept,
    /// Of a bridge: its windows.
    windows: [u32; 7],
    /// Its Bridge Control.
    control: u16,
}

/// A bus that is being reset.
#[derive(Debug)]
pub struct BusReset<T> {
    bridge: Sbdf,
    members: Vec<Member, MAX_MEMBERS>,
    step: Step,
    /// When, in microseconds of the shard's clock.
    pub(super) due: u64,
    /// The device through which it was asked for; it hears by the answer.
    by: Index,
    pub(super) waiting: Waiting<T>,
}

impl<E: Env> Shard<'_, E> {
    /// The bridge above a device, and the buses behind it.
    fn bus_above(&self, device: &Device) -> Result<(Sbdf, BusRange), Refusal> {
        let none = device.refusal(Rule::NoBusReset);
        let at = device.at;
        // A virtual function is on the bus of its physical one, whatever its number says.
        let on = device.physical.unwrap_or(at);
        let bridge = self
            .devices
            .bridge_to(on.segment(), on.bus())
            .and_then(|bridge| self.devices.at(bridge))
            .filter(|bridge| {
                bridge
                    .header
                    .is_some_and(|header| header.layout == Layout::Bridge)
            })
            .ok_or(none)?;
        let buses = hw::header::BusNumbers::read(&self.env, bridge.at)
            .behind()
            .ok_or(none)?;
        // The bridge may be a card's, and say anything.
        let mut next = self.next_on(at.segment(), buses, before(at.segment(), buses));
        while let Some(index) = next {
            let found = self.devices.get(index);
            if found.is_some_and(|found| !self.is_behind(found, bridge.at)) {
                return Err(none);
            }
            next = self.following(at.segment(), buses, index);
        }
        Ok((bridge.at, buses))
    }

    /// Was a device found behind this bridge?
    fn is_behind(&self, device: &Device, bridge: Sbdf) -> bool {
        let mut at = device.physical.unwrap_or(device.at);
        // Each is on a lower bus.
        while let Some(above) = self.devices.bridge_to(at.segment(), at.bus()) {
            if above == bridge {
                return true;
            }
            if above.bus() >= at.bus() {
                return false;
            }
            at = above;
        }
        false
    }

    /// A holder agrees that the bus of its device is reset.
    pub(super) fn agree(&mut self, badge: Badge) -> Result<AgreeBusResetReply, Refusal> {
        let (_, device) = self.held(badge)?;
        let (port, buses) = self.bus_above(device)?;
        if let Some(parts) = self.parts(badge.index) {
            parts.hold.agreed = true;
        }
        let mut missing = 0u16;
        let mut last = before(port.segment(), buses);
        while let Some(index) = self.next_on(port.segment(), buses, last) {
            let Some(device) = self.devices.get(index) else {
                break;
            };
            last = Some(device.at);
            missing = missing.saturating_add(u16::from(self.objects(device).is_some()));
        }
        Ok(AgreeBusResetReply { port, missing })
    }

    /// Why the function stands against a reset of its bus.
    fn objects(&self, device: &Device) -> Option<Rule> {
        let agreed = device
            .assignment
            .and_then(|at| self.assignments.get(usize::from(at)))
            .and_then(|assignment| assignment.hold.as_ref())
            .is_some_and(|hold| hold.agreed);
        match device.state {
            DeviceState::Assigned if agreed => None,
            DeviceState::Assigned => Some(Rule::NotAgreed),
            DeviceState::Resetting | DeviceState::Draining | DeviceState::Assigning => {
                Some(Rule::DeviceBusy)
            }
            DeviceState::Quarantined if device.leaving => Some(Rule::DeviceBusy),
            DeviceState::Withheld => match device.withheld {
                // A bridge gets its windows back; what makes no sense has nobody.
                Some(Withheld::Bridge | Withheld::Malformed(_)) => None,
                _ => Some(Rule::NotAgreed),
            },
            DeviceState::Quarantined | DeviceState::Absent | DeviceState::Broken => None,
        }
    }

    /// Resets the bus of a held device.
    pub(super) fn reset_bus(&mut self, badge: Badge) -> Result<Reply<BusResetReply>, Refusal> {
        let (hold, device) = self.held(badge)?;
        let (by, client) = (hold.device, hold.client);
        let (bridge, buses) = self.bus_above(device)?;
        let members = self.members(bridge, buses)?;
        let of_client = |reset: &&BusReset<_>| reset.waiting.client == client;
        let have = self.later.bus_resets.iter().filter(of_client).count();
        at_most(MAX_BUS_RESETS_OF_CLIENT, have)?;
        let waiting = self.park(client)?;
        // Virtual functions are gone with the reset of their physical one; nobody holds one.
        for member in &members {
            self.drop_virtual(member.device);
        }
        let mut reset = BusReset {
            bridge,
            members: Vec::new(),
            step: Step::LetGo,
            due: self.env.now_us().saturating_add(HOLD_US),
            by,
            waiting,
        };
        for member in members {
            if self.freeze(member.device, member.kept) {
                // As many as there were.
                let _ = reset.members.push(member);
            }
        }
        self.port_in_reset(bridge, true);
        hold_bus(&mut self.env, bridge);
        // There is room.
        let _ = self.later.bus_resets.push(reset);
        self.arm();
        Ok(Reply::Later)
    }

    /// Everything behind the bridge with what it has now, if nothing there objects.
    fn members(&self, bridge: Sbdf, buses: BusRange) -> Result<Vec<Member, MAX_MEMBERS>, Refusal> {
        let mut members = Vec::new();
        let mut last = before(bridge.segment(), buses);
        while let Some(index) = self.next_on(bridge.segment(), buses, last) {
            let Some(device) = self.devices.get(index) else {
                break;
            };
            last = Some(device.at);
            if device.virtual_held > 0 {
                return Err(device.refusal(Rule::VirtualFunctionHeld));
            }
            if let Some(rule) = self.objects(device) {
                return Err(device.refusal(rule));
            }
            let kept = match device.state {
                DeviceState::Assigned => Kept::read(&self.env, device),
                DeviceState::Quarantined => Kept::baseline(device),
                DeviceState::Withheld if is_bridge(device) => Kept::read(&self.env, device),
                _ => continue,
            };
            if device.physical.is_some() {
                continue;
            }
            let mut windows = [0; 7];
            for (offset, word) in WINDOWS.step_by(4).zip(&mut windows) {
                *word = self.env.read32(device.at, offset);
            }
            let member = Member {
                device: index,
                kept,
                windows,
                control: self.env.read16(device.at, register::BRIDGE_CONTROL),
            };
            members
                .push(member)
                .map_err(|_| Refusal::new(Rule::NoBusReset, u64::from(bridge.to_bits())))?;
        }
        Ok(members)
    }

    /// Brings a function to rest before its reset.
    fn freeze(&mut self, index: Index, kept: Kept) -> bool {
        let Some(device) = self.devices.get_mut(index) else {
            return false;
        };
        device.in_bus_reset = true;
        if let Some(at) = device.assignment
            && let Some(parts) = self.parts(at)
        {
            setup::note_kept(parts.env, at, kept);
            parts.hold.in_bus_reset = true;
            parts.hold.note(parts.env, at);
        }
        let Some(device) = self.devices.get_mut(index) else {
            return false;
        };
        if device.state != DeviceState::Withheld {
            device.state = DeviceState::Resetting;
            interrupts::silence(&mut self.env, device.at, device.msi, device.msix);
            // Whether it obeys is seen after the reset.
            let _ = set_control(&mut self.env, device, Kept::baseline(device));
            if let Some(at) = device.assignment
                && let Some(Parts {
                    env, hold, device, ..
                }) = self.parts(at)
            {
                no_cache(env, hold.properties, device);
            }
        }
        true
    }

    /// Ports behind the bridge have lost their interrupts and what their slots were told.
    fn reprogram_ports(&mut self, members: &[Member]) {
        for member in members {
            let Some(at) = self.devices.get(member.device).map(|device| device.at) else {
                continue;
            };
            let known = self.ports.len();
            self.ports.retain(|port| port.at != at);
            if self.ports.len() < known {
                self.adopt_port(at);
            }
        }
    }

    /// What the slot of a port says from now on is about the reset of its bus, or about cards again.
    pub(super) fn port_in_reset(&mut self, bridge: Sbdf, is: bool) {
        if let Some(port) = self.ports.iter_mut().find(|port| port.at == bridge) {
            port.in_reset = is;
        }
    }

    /// The next step is due.
    pub(super) fn bus_reset_step(&mut self, place: usize, now: u64) {
        let Some(reset) = self.later.bus_resets.get_mut(place) else {
            return;
        };
        let left = match reset.step {
            Step::LetGo => {
                let_go_of_bus(&mut self.env, reset.bridge);
                reset.step = Step::Return(RETURN_POLLS);
                reset.due = now.saturating_add(BUS_US);
                return;
            }
            Step::Return(left) => left,
        };
        let mut all = true;
        for member in &reset.members {
            let Some(device) = self.devices.get(member.device) else {
                continue;
            };
            let back = device.presence(&self.env) == Presence::Same;
            all &= back;
            // What is behind it answers only then.
            if back && is_bridge(device) {
                open_bridge(&mut self.env, device.at, member);
                if let Some(access) = device.access_control {
                    access.restore(&mut self.env, device.at);
                }
            }
        }
        match left.checked_sub(1) {
            Some(left) if !all => {
                reset.step = Step::Return(left);
                reset.due = now.saturating_add(RETURN_POLL_US);
            }
            _ => {
                let reset = self.later.bus_resets.swap_remove(place);
                self.end_bus_reset(reset);
            }
        }
    }

    fn end_bus_reset(&mut self, reset: BusReset<E::Ticket>) {
        let BusReset {
            bridge,
            members,
            by,
            waiting,
            ..
        } = reset;
        let mut outcome = Ok(0u16);
        for member in &members {
            match self.thaw(member, by) {
                Ok(()) => outcome = outcome.map(|count| count + 1),
                Err(refusal) if member.device == by => outcome = Err(refusal),
                Err(_) => {}
            }
        }
        let message = match outcome {
            Ok(functions) => BusResetReply { functions }.encode(),
            Err(refusal) => refusal.to_message(),
        };
        self.env.answer(waiting.ticket, &message);
        self.port_in_reset(bridge, false);
        self.reprogram_ports(&members);
        // A card that was pulled meanwhile.
        if let Some(port) = self.ports.iter().position(|port| port.at == bridge) {
            self.look_at_slot(port);
        }
    }

    /// Puts a function back as it was.
    ///
    /// # Errors
    /// It did not come back: nobody has it any more.
    fn thaw(&mut self, member: &Member, by: Index) -> Result<(), Refusal> {
        let Some(device) = self.devices.get_mut(member.device) else {
            return Ok(());
        };
        device.in_bus_reset = false;
        let address = device.at;
        if is_bridge(device) {
            if let Some(access) = device.access_control {
                access.restore(&mut self.env, address);
            }
            return Ok(());
        }
        let back = match device.presence(&self.env) {
            Presence::Same => restore(&mut self.env, device, member.kept),
            Presence::Gone | Presence::Other => Err(Failure::Timeout),
        };
        let Some(at) = device.assignment else {
            device.state = match back {
                Ok(()) => DeviceState::Quarantined,
                Err(_) => DeviceState::Broken,
            };
            return match back {
                Ok(()) => Ok(()),
                Err(failure) => {
                    self.env.log(format_args!("{address} {failure}: Broken"));
                    Err(Refusal::new(
                        Rule::ResetTimeout,
                        u64::from(address.to_bits()),
                    ))
                }
            };
        };
        let Some(Parts {
            env,
            hold,
            device,
            masks,
        }) = self.parts(at)
        else {
            return Ok(());
        };
        hold.agreed = false;
        hold.in_bus_reset = false;
        if hold.job.is_some() {
            // Its holder is gone meanwhile: the job goes on from here.
            device.state = DeviceState::Draining;
            return Ok(());
        }
        cache_again(env, hold, device);
        let back = back.and_then(|()| match &hold.interrupts {
            Some(setup) => {
                interrupts::restore(env, device, at, setup, masks).map_err(|_| Failure::NotRestored)
            }
            None => Ok(()),
        });
        match back {
            Ok(()) => {
                device.state = DeviceState::Assigned;
                hold.note(env, at);
                let client = hold.client;
                if member.device != by {
                    self.tell(client, EventKind::Reset, address, 0);
                }
                Ok(())
            }
            Err(failure) => Err(self.reset_failed(at, failure)),
        }
    }
}

fn is_bridge(device: &Device) -> bool {
    device
        .header
        .is_some_and(|header| header.layout == Layout::Bridge)
}

/// Bus numbers and windows of a bridge, then its Command; nothing if it has them already.
fn open_bridge<C: ConfigSpace>(cfg: &mut C, at: Sbdf, member: &Member) {
    for (offset, word) in WINDOWS.step_by(4).zip(member.windows) {
        // The upper half of this one is Secondary Status, cleared by writing ones.
        if offset == register::IO_BASE {
            cfg.write16(at, offset, word as u16);
        } else if cfg.read32(at, offset) != word {
            cfg.write32(at, offset, word);
        }
    }
    // Memory and bus numbers are routed again; errors pass it.
    cfg.write16(at, register::BRIDGE_CONTROL, member.control);
    cfg.write16(at, register::COMMAND, member.kept.command);
}
