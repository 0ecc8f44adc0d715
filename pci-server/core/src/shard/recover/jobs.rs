//! A held device after a restart: what was being done to it is undone, or goes on as a job.

use hw::header::{BridgeControl, register};
use ipc_proto::{DeviceState, Rule};

use super::super::lines::{leave_line, silence};
use super::super::messages::{check_messages, give_back};
use super::super::revoke::Manner;
use super::super::{Parts, Shard};
use crate::assignment::{Asked, Hold, Job, Purpose};
use crate::boot::recall::is_placed;
use crate::device::Recall;
use crate::env::Env;
use crate::interrupts::{self, moving};
use crate::notes::{self, Intent, State, Work, setup};
use crate::reset::{BUS_US, RETURN_POLLS, Step, let_go_of_bus};
use crate::{Device, config};

impl<E: Env> Shard<'_, E> {
    /// Takes a hold up where it was.
    pub(super) fn resume_hold(&mut self, at: u16) {
        let word = self.env.load(notes::Word::State.of(at));
        let Some(state) = State::from_word(word) else {
            return;
        };
        let going = self.gone;
        let Some(Parts {
            env,
            hold,
            device,
            masks,
        }) = self.parts(at)
        else {
            return;
        };
        device.hidden |= env.load(notes::Word::Sizing.of(at)) & config::SIZING;
        doubt(hold, state.intent);
        let mut wrong = device.recall == Recall::Wrong;
        if state.setup {
            hold.interrupts = setup::read(env, at);
            match &hold.interrupts {
                Some(known) => {
                    setup::read_masks(env, at, known, masks);
                    let (first, count) = (known.first, known.messages());
                    // Of one that does not answer it is seen when it does.
                    wrong |= device.recall == Recall::Done
                        && check_messages(device, known.mechanism, first, count).is_err();
                }
                None => wrong = true,
            }
        }
        let unread = device.recall == Recall::Unread;
        let index = hold.device;
        let first = unread.then(|| first_unread(env, device));
        let client = hold.client.0;
        let gone = client < 32 && going >> client & 1 != 0;
        match state.work {
            Work::Revoke => {
                let manner = match state.removed {
                    true => Manner::Removed,
                    false => Manner::Orderly,
                };
                self.resume_revocation(at, &state, manner, first);
            }
            // It was on its way to it.
            _ if gone => {
                let state = State {
                    owed: true,
                    ..state
                };
                self.resume_revocation(at, &state, Manner::Orderly, first);
            }
            _ if wrong => self.resume_revocation(at, &state, Manner::Orderly, None),
            Work::None if unread => self.gone(index),
            Work::None if !is_placed(env, device) => {
                self.resume_revocation(at, &state, Manner::Orderly, None);
            }
            Work::None => {
                let settled = settle(self.parts(at), at, state.intent);
                if settled.is_none() {
                    self.resume_revocation(at, &state, Manner::Orderly, None);
                }
            }
            Work::Reset | Work::Wake | Work::Sleep => self.resume_reset(at, state.work, first),
            Work::BusReset => self.resume_bus_reset(at, &state),
        }
    }

    /// A device is taken back, from the beginning.
    fn resume_revocation(&mut self, at: u16, state: &State, manner: Manner, first: Option<Step>) {
        let Some(job) = self.take_back(at, manner) else {
            return;
        };
        job.owed = state.owed;
        if state.trouble {
            job.trouble = Some(Self::trouble_before());
        }
        job.step = first;
        self.owed += u16::from(state.owed);
        self.note(at);
    }

    /// A reset, or a change of the power state, from the beginning.
    fn resume_reset(&mut self, at: u16, work: Work, first: Option<Step>) {
        let Some(Parts {
            env, hold, device, ..
        }) = self.parts(at)
        else {
            return;
        };
        let (purpose, asked, step) = match work {
            Work::Sleep => (Purpose::Sleep, Asked::Power, Some(Step::Sleep)),
            Work::Wake => (Purpose::Reset, Asked::Power, Some(Step::PowerUp)),
            _ => (Purpose::Reset, Asked::Reset, None),
        };
        let kept = setup::read_kept(env, at);
        device.state = DeviceState::Resetting;
        let mut job = Job::new(purpose, asked, kept, None);
        job.step = first.or(step);
        hold.job = Some(job);
        let bridge = device.reset_bridge;
        self.jobs |= 1 << at;
        if let Some(bridge) = bridge {
            self.port_in_reset(bridge, true);
        }
    }
}

impl<E: Env> Shard<'_, E> {
    /// The reset of its bus was under way: it is let go of, and the device brought back as after one of its own.
    fn resume_bus_reset(&mut self, at: u16, state: &State) {
        let bridge = self
            .parts(at)
            .map(|parts| parts.device.physical.unwrap_or(parts.device.at))
            .and_then(|on| self.devices.bridge_to(on.segment(), on.bus()));
        let Some(bridge) = bridge else {
            return self.resume_revocation(at, state, Manner::Removed, None);
        };
        let_go_of_bus(&mut self.env, bridge);
        let now = self.env.now_us();
        if let Some(parts) = self.parts(at) {
            parts.hold.in_bus_reset = false;
            parts.hold.agreed = false;
            // Whatever it says now is read again when it is back, and everything restored.
            parts.device.recall = Recall::Unread;
            parts.device.reset_bridge = Some(bridge);
        }
        self.resume_reset(at, Work::Reset, Some(Step::Return(RETURN_POLLS)));
        if let Some(job) = self.parts(at).and_then(|parts| parts.hold.job.as_mut()) {
            job.due = now.saturating_add(BUS_US);
        }
    }
}

/// The first step for a device that does not answer: it is in a reset that was begun.
fn first_unread<E: Env>(env: &E, device: &Device) -> Step {
    let held = device.reset_bridge.is_some_and(|bridge| {
        let control = env.read16(bridge, register::BRIDGE_CONTROL);
        control != u16::MAX
            && BridgeControl::from_bits_retain(control).contains(BridgeControl::SECONDARY_BUS_RESET)
    });
    if held {
        Step::LetGo
    } else {
        Step::Return(RETURN_POLLS)
    }
}

/// How far what was being done came is not known: whoever takes the device back takes all of it back.
fn doubt<T>(hold: &mut Hold<T>, intent: Intent) {
    match intent {
        Intent::Enabling | Intent::Disabling => {
            hold.remapped = hold.properties.interrupts_isolated;
            hold.vectors = true;
        }
        Intent::Joining | Intent::Leaving => hold.line = true,
        Intent::None | Intent::Moving => {}
    }
}

/// Undoes what had begun, or finishes what was being taken back. `None`: it does not obey.
fn settle<E: Env>(parts: Option<Parts<'_, E>>, at: u16, intent: Intent) -> Option<()> {
    let Parts {
        env,
        hold,
        device,
        masks,
    } = parts?;
    match intent {
        Intent::None => return Some(()),
        Intent::Enabling | Intent::Disabling => {
            interrupts::silence(env, device.at, device.msi, device.msix);
            hold.interrupts = None;
            give_back(env, hold, device.at).ok()?;
            // Who wanted to disable them asks again.
            hold.vectors = intent == Intent::Disabling;
        }
        Intent::Joining | Intent::Leaving => {
            silence(env, device).ok()?;
            match leave_line(env, device.at) {
                Err(refusal) if refusal.rule != Rule::NotOnLine => return None,
                _ => {}
            }
            hold.line = intent == Intent::Leaving;
        }
        Intent::Moving => {
            let setup = hold.interrupts.as_ref()?;
            moving::again(env, device, at, setup, masks).ok()?;
        }
    }
    hold.intend(env, at, Intent::None);
    Some(())
}
