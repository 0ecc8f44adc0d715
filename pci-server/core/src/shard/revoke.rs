//! Revocation and reset: jobs of a device, in steps.
//!
//! The order of a revocation is fixed: device capability -> MSI and MSI-X off
//! -> bus mastering off -> reset, or wait for pending transactions -> IOMMU
//! detached -> vectors given back -> BAR frames taken -> quarantined. Release,
//! client death and a reset that fails all run it.
//!
//! A step never waits: it names the moment of the next one, and the timer starts
//! that. One step is done for each signal of the timer, so that requests for other
//! devices come in between.

use hw::Sbdf;
use hw::capability::PowerState;
use ipc_proto::pci::ReleaseReply;
use ipc_proto::{
    Badge, ClientId, DeviceState, EventKind, Properties, Refusal, Reply, ResetKind, Rule, Switch,
};
use system::info::PciInfo;

use super::lines::leave_line;
use super::messages::give_back;
use super::views::{Need, revoke_all, slot_of};
use super::waiting::Done;
use super::{Parts, Shard, from_below};
use crate::assignment::{Asked, Hold, Job, Purpose};
use crate::boot::recall::recall;
use crate::device::Recall;
use crate::env::Env;
use crate::interrupts;
use crate::notes::{self, State, broken, setup};
use crate::reset::{self, Failure, Kept, Progress, Step};

/// How a device is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// It is brought to rest.
    Orderly,
    /// It is out of the machine already.
    Removed,
}

impl<E: Env> Shard<'_, E> {
    /// A client gives its device back.
    pub(super) fn release_device(&mut self, badge: Badge) -> Result<Reply<ReleaseReply>, Refusal> {
        let (hold, device) = self.held_for(badge, Need::Control)?;
        let client = hold.client;
        // Whether it may take time is known beforehand: where the request cannot be parked,
        // nothing has begun.
        let takes_time = device.reset.is_some()
            || device.tells_pending()
            || device.virtual_held > 0
            || Step::first(&self.env, device) != Step::FIRST;
        let ticket = if takes_time {
            Some(self.park(client)?.ticket)
        } else {
            None
        };
        self.begin(slot_of(badge), Purpose::Revoke, Asked::Release, ticket);
        match (takes_time, self.step(slot_of(badge))) {
            (true, _) => Ok(Reply::Later),
            (false, Some(result)) => result.map(|()| Reply::Now(ReleaseReply {})),
            // Not reached: without a reset or pending bit the first step is the last.
            (false, None) => Err(Rule::DeviceBusy.into()),
        }
    }

    /// A client wants its device reset. The one who asked is answered when the device is back.
    pub(super) fn reset_device(&mut self, badge: Badge, asked: Asked) -> Result<(), Refusal> {
        let (_, device) = self.held_for(badge, Need::Control)?;
        if device.reset.is_none() {
            return Err(device.refusal(Rule::NoReset));
        }
        self.disrupt(badge, Purpose::Reset, asked, None)
    }

    /// A client wants its device in another power state, D0 or D3hot. What the device forgets on its
    /// way to D0 is restored.
    pub(super) fn change_power(&mut self, badge: Badge, state: PowerState) -> Result<(), Refusal> {
        let (purpose, step) = match state {
            PowerState::D0 => (Purpose::Reset, Step::PowerUp),
            _ => (Purpose::Sleep, Step::Sleep),
        };
        self.disrupt(badge, purpose, Asked::Power, Some(step))
    }

    /// Begins what takes a device from its holder's hands for a while, with its virtual functions.
    fn disrupt(
        &mut self,
        badge: Badge,
        purpose: Purpose,
        asked: Asked,
        first: Option<Step>,
    ) -> Result<(), Refusal> {
        let (hold, device) = self.held_for(badge, Need::Control)?;
        if device.virtual_held > 0 {
            return Err(device.refusal(Rule::VirtualFunctionHeld));
        }
        let (index, client) = (hold.device, hold.client);
        if self.enables(index) {
            return Err(device.refusal(Rule::DeviceBusy));
        }
        let ticket = self.park(client)?.ticket;
        self.drop_virtual(index);
        let at = slot_of(badge);
        self.begin(at, purpose, asked, Some(ticket));
        if let Some(job) = self.parts(at).and_then(|parts| parts.hold.job.as_mut()) {
            job.step = first;
        }
        self.step(at);
        Ok(())
    }

    /// Gives a held device a job, whose first step comes next.
    fn begin(&mut self, at: u16, purpose: Purpose, asked: Asked, ticket: Option<E::Ticket>) {
        let Some(Parts {
            env, hold, device, ..
        }) = self.parts(at)
        else {
            return;
        };
        let (state, kept) = match purpose {
            Purpose::Reset | Purpose::Sleep => (DeviceState::Resetting, Kept::read(env, device)),
            Purpose::Revoke => (DeviceState::Draining, Kept::baseline(device)),
        };
        device.state = state;
        setup::note_kept(env, at, kept);
        hold.job = Some(Job::new(purpose, asked, kept, ticket));
        hold.note(env, at);
        let (index, address, bridge) = (hold.device, device.at, device.reset_bridge);
        self.jobs |= 1 << at;
        if purpose == Purpose::Revoke {
            self.take_virtual_back(index, address, Manner::Orderly);
        }
        if let Some(bridge) = bridge {
            self.port_in_reset(bridge, true);
        }
    }

    /// Takes every device of a client back; gives their number. Nothing has happened to them when
    /// this returns: the timer starts each step.
    pub(super) fn take_back_all(&mut self, client: ClientId) -> u16 {
        self.gone |= 1u32.checked_shl(u32::from(client.0)).unwrap_or(0);
        self.env.store(notes::GONE_AT, self.gone.into());
        self.events.forget(client);
        let mut count = 0;
        for at in 0..self.assignments.len() as u16 {
            if self
                .parts(at)
                .is_none_or(|parts| parts.hold.client != client)
            {
                continue;
            }
            let Some(job) = self.take_back(at, Manner::Orderly) else {
                continue;
            };
            let newly_owed = !core::mem::replace(&mut job.owed, true);
            self.owed += u16::from(newly_owed);
            self.note(at);
            count += 1;
        }
        if self.owed == 0 {
            self.env.tell_supervisor();
        }
        self.arm();
        count
    }

    /// Notes where the hold in assignment slot `at` is.
    pub(super) fn note(&mut self, at: u16) {
        if let Some(Parts { env, hold, .. }) = self.parts(at) {
            hold.note(env, at);
        }
    }

    /// Begins to take a device from its holder, whatever is under way: the timer starts each step.
    pub(super) fn take_back(&mut self, at: u16, manner: Manner) -> Option<&mut Job<E::Ticket>> {
        let Parts { hold, device, .. } = self.parts(at)?;
        let (index, address) = (hold.device, device.at);
        self.take_virtual_back(index, address, manner);
        self.jobs |= 1u64.checked_shl(u32::from(at)).unwrap_or(0);
        let Parts {
            env, hold, device, ..
        } = self.parts(at)?;
        device.state = DeviceState::Draining;
        let kept = Kept::baseline(device);
        let job = hold
            .job
            .get_or_insert_with(|| Job::new(Purpose::Revoke, Asked::Release, kept, None));
        // A reset that is under way goes on, and ends as a revocation. A change of the power state
        // is no reset: when it is over, everything begins.
        if job.purpose != Purpose::Revoke && matches!(job.asked, Asked::Write | Asked::Power) {
            job.step = None;
        }
        job.purpose = Purpose::Revoke;
        job.kept = kept;
        if manner == Manner::Removed {
            job.removed = true;
            job.due = 0;
        }
        hold.note(env, at);
        hold.job.as_mut()
    }

    /// Does the next step of a job. When it was the last, answers whoever waits and gives the
    /// result; `None` when the job goes on.
    pub(super) fn step(&mut self, at: u16) -> Option<Result<(), Refusal>> {
        let Some(Parts { hold, device, .. }) = self.parts(at) else {
            self.jobs &= !(1u64.checked_shl(u32::from(at)).unwrap_or(0));
            return None;
        };
        let (index, address, bridge) = (hold.device, device.at, device.reset_bridge);
        let revoked = hold
            .job
            .as_ref()
            .is_some_and(|job| job.purpose == Purpose::Revoke);
        if revoked {
            if device.virtual_held > 0 {
                // It goes on when the last of them has been taken back.
                self.arm();
                return None;
            }
            self.drop_virtual(index);
        }
        let info = self.info;
        let was = self.devices.get(index).map(|device| device.recall);
        let over = self.parts(at).and_then(|parts| advance(parts, info, at));
        let Some((job, outcome)) = over else {
            self.arm();
            return None;
        };
        self.jobs &= !(1 << at);
        if was == Some(Recall::Unread) {
            self.known_at_last(address);
        }
        let Job {
            purpose,
            asked,
            ticket,
            owed,
            ..
        } = job;
        let (answer, result) = match (purpose, outcome) {
            (Purpose::Reset | Purpose::Sleep, Ok(kind)) => {
                if let Some(parts) = self.parts(at) {
                    parts.device.state = DeviceState::Assigned;
                    parts.hold.note(parts.env, at);
                }
                let done = match asked {
                    Asked::Write | Asked::Power => Done::Written,
                    Asked::Reset | Asked::Release => Done::Reset(kind),
                };
                (Ok(done), Ok(()))
            }
            (Purpose::Reset | Purpose::Sleep, Err(failure)) => {
                // It did not come back: it is taken from its holder, who is told.
                let refusal = self.reset_failed(at, failure);
                (Err(refusal), Err(refusal))
            }
            (Purpose::Revoke, outcome) => match (self.end(at, outcome.err()), asked) {
                (Ok(()), Asked::Release) => (Ok(Done::Released), Ok(())),
                // It was taken away in the middle of its reset.
                (Ok(()), Asked::Reset | Asked::Write | Asked::Power) => {
                    let about = u64::from(address.to_bits());
                    let refusal = Refusal::new(Rule::NoSuchDevice, about);
                    (Err(refusal), Ok(()))
                }
                (Err(refusal), _) => (Err(refusal), Err(refusal)),
            },
        };
        if let Some(ticket) = ticket {
            self.answer_waiting(ticket, answer);
        }
        if owed {
            self.owed = self.owed.saturating_sub(1);
            if self.owed == 0 {
                self.env.tell_supervisor();
            }
        }
        if let Some(bridge) = bridge {
            self.port_in_reset(bridge, false);
            if let Some(port) = self.ports.iter().position(|port| port.at == bridge) {
                self.look_at_slot(port);
            }
        }
        self.after_end(address);
        // Others may have become due meanwhile.
        self.arm();
        Some(result)
    }

    /// Takes a device away that its holder has reset in vain; gives the refusal of the reset.
    pub(super) fn reset_failed(&mut self, at: u16, failure: Failure) -> Refusal {
        let Some(Parts {
            env, hold, device, ..
        }) = self.parts(at)
        else {
            return Rule::ResetTimeout.into();
        };
        let rule = match failure {
            Failure::Vanished => Rule::NoSuchDevice,
            _ => Rule::ResetTimeout,
        };
        let refusal = device.refusal(rule);
        let (client, address) = (hold.client, device.at);
        hold.stuck |= revoke_all(env, device, at, hold.views).is_some();
        // Why it is broken says more than what else fails on the way.
        let _ = self.end(at, Some(failure));
        self.tell(client, EventKind::Broken, address, rule as u64);
        refusal
    }

    /// The end of a revocation: the device is at rest, or never will be.
    ///
    /// # Errors
    /// A way to the device may be left. It is broken then, and nobody gets it.
    fn end(&mut self, at: u16, failure: Option<Failure>) -> Result<(), Refusal> {
        let Some(Parts {
            env, hold, device, ..
        }) = self.parts(at)
        else {
            return Ok(());
        };
        let stuck = hold.stuck;
        let mut result = match failure {
            Some(Failure::ControlStuck | Failure::NotRevoked) => {
                Err(device.refusal(Rule::DeviceBroken))
            }
            _ if stuck => Err(device.refusal(Rule::DeviceBroken)),
            _ => Ok(()),
        };
        let mut detached = true;
        if let Some(cache) = device.translation {
            cache.switch(env, device.at, Switch::Off);
        }
        if hold.attached
            && let Err(refusal) = detach(env, device.at)
        {
            detached = false;
            result = Err(from_below(refusal));
        }
        // Vectors of a device that may still write messages are not given to another.
        if hold.vectors && detached && failure != Some(Failure::ControlStuck) {
            result = result.and(give_back(env, hold, device.at).map_err(from_below));
        }
        // The pin of a device that does not obey may hold its line for good.
        if hold.line && failure != Some(Failure::ControlStuck) {
            result = result.and(leave_line(env, device.at).map_err(from_below));
            hold.line = false;
        }
        for (bar, region) in device.bars.iter().enumerate() {
            let Some(memory) = region.memory().filter(|_| hold.regions >> bar & 1 != 0) else {
                continue;
            };
            result = result.and(env.revoke_frames(memory, at));
        }
        device.state = match (result, failure) {
            (Ok(()), None) => DeviceState::Quarantined,
            (Ok(()), Some(Failure::Vanished | Failure::Removed)) => DeviceState::Absent,
            _ => DeviceState::Broken,
        };
        device.assignment = None;
        device.hidden &= !crate::config::SIZING;
        let (physical, address) = (device.physical, device.at);
        if device.state == DeviceState::Broken {
            broken::note(env, address, result.is_err());
        }
        if let Some(failure) = failure {
            env.log(format_args!("{} {failure}: {:?}", device.at, device.state));
        }
        if let Err(refusal) = result {
            device.leaks = true;
            env.log(format_args!(
                "{} cannot be taken back: {refusal}",
                device.at
            ));
        }
        // Of a slot that has no other life the numbers of its narrowed capabilities are not used again, either.
        if !stuck {
            let views = hold.views;
            self.views.forget(&mut self.env, views);
        }
        if let Some(assignment) = self.assignments.get_mut(usize::from(at)) {
            assignment.hold = None;
            assignment.stuck |= stuck;
            let free = State::free(assignment.generation);
            self.env.store(notes::Word::State.of(at), free);
        }
        self.count_held_virtual(physical, -1);
        result
    }
}

/// Detaches a device. One that is not attached any more, since the shard was restarted in the middle, is detached.
pub(super) fn detach<E: Env>(env: &mut E, at: Sbdf) -> Result<(), Refusal> {
    match env.detach(at) {
        Err(refusal) if refusal.rule == Rule::NotAttached => Ok(()),
        detached => detached,
    }
}

/// Does the next step of a job; gives the job and how the device came out of it when it was the last.
#[expect(clippy::type_complexity, reason = "used once")]
fn advance<E: Env>(
    parts: Parts<'_, E>,
    info: &PciInfo,
    at: u16,
) -> Option<(Job<E::Ticket>, Result<ResetKind, Failure>)> {
    let Parts {
        env,
        hold,
        device,
        masks,
    } = parts;
    let views = hold.views;
    let job = hold.job.as_mut()?;
    if job.purpose == Purpose::Revoke && !core::mem::replace(&mut job.revoked, true) {
        let failure = revoke_all(env, device, at, views);
        hold.stuck |= failure.is_some();
        job.trouble = failure.or(job.trouble);
    }
    if job.removed {
        let job = hold.job.take()?;
        let failure = job.trouble.unwrap_or(Failure::Removed);
        return Some((job, Err(failure)));
    }
    let step = match job.step {
        Some(step) => step,
        None => {
            interrupts::silence(env, device.at, device.msi, device.msix);
            // Decoding goes off with bus mastering: nothing that the holder still has mapped
            // reaches the device between its reset and the end.
            job.at_rest = reset::set_control(env, device, Kept::baseline(device));
            no_cache(env, hold.properties, device);
            Step::first(env, device)
        }
    };
    let rested = match reset::advance(env, device, step) {
        Progress::Wait(micros, next) => {
            job.step = Some(next);
            job.due = env.now_us().saturating_add(micros);
            return None;
        }
        Progress::Failed(failure) => Err(failure),
        Progress::Done if device.recall == Recall::Unread => {
            // It was in this reset when the shard was restarted.
            recall(env, info, device);
            match device.recall {
                Recall::Done => reset::restore(env, device, job.kept),
                Recall::Unread | Recall::Wrong => Err(Failure::NotRestored),
            }
        }
        Progress::Done if job.purpose == Purpose::Sleep => Ok(()),
        Progress::Done if device.reset.is_some() => reset::restore(env, device, job.kept),
        Progress::Done => job.at_rest,
    };
    let job = hold.job.take()?;
    let awake = job.purpose == Purpose::Sleep && reset::power_state(env, device) == PowerState::D0;
    if job.purpose == Purpose::Reset || awake {
        cache_again(env, hold, device);
    }
    let restored = rested.and_then(|()| match job.purpose {
        Purpose::Reset => match &hold.interrupts {
            Some(setup) => {
                interrupts::restore(env, device, at, setup, masks).map_err(|_| Failure::NotRestored)
            }
            None => Ok(()),
        },
        Purpose::Sleep => Ok(()),
        Purpose::Revoke => job.trouble.map_or(Ok(()), Err),
    });
    let outcome = restored.map(|()| device.reset.unwrap_or(ResetKind::None));
    Some((job, outcome))
}

/// Before a reset, and before it sleeps: the device forgets the translations it keeps while it can still say so, and its
/// IOMMU waits for no answer of it meanwhile. One that does not answer is reported as trouble.
pub(super) fn no_cache<E: Env>(env: &mut E, promised: Properties, device: &crate::Device) {
    if promised.translation_cached
        && let Some(cache) = device.translation
    {
        let _ = env.keep(device.at, 0);
        cache.switch(env, device.at, Switch::Off);
    }
}

/// A reset has switched the device's cache of translations off.
pub(super) fn cache_again<E: Env>(env: &mut E, hold: &Hold<E::Ticket>, device: &crate::Device) {
    if hold.properties.translation_cached
        && let Some(cache) = device.translation
        && env.keep(device.at, cache.queue) == Ok(Switch::On)
    {
        cache.switch(env, device.at, Switch::On);
    }
}
