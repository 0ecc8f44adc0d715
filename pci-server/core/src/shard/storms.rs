//! Metered messages: what they signal, and switching off those of which the msi-server says that they come too often.
//!
//! The msi-server has stopped to pass such a message on before this shard hears of it; here it ends at its source, so that it
//! costs the kernel nothing either. Its holder is told, and lets it come again by unmasking it.

use hw::Sbdf;
use ipc_proto::{Badge, EventKind, Messages, Refusal, Rule, Switch};

use super::queries::readable;
use super::views::Need;
use super::{Parts, Shard, from_below};
use crate::env::Env;
use crate::interrupts::{self, silencing};
use crate::notes::setup;

/// Reports that are looked at before other requests are served.
const REPORTS_A_TURN: usize = 16;

impl<E: Env> Shard<'_, E> {
    /// What a metered message signals from now on.
    pub(super) fn bind_message(
        &mut self,
        badge: Badge,
        message: u16,
        flags: u64,
    ) -> Result<(), Refusal> {
        let Parts { env, device, .. } = self.held_mut(badge, Need::Messages(1))?;
        env.bind(device.at, message, flags).map_err(from_below)
    }

    /// Takes the reports of the shard's msi-server; are there more?
    pub(super) fn take_storms(&mut self) -> bool {
        for _ in 0..REPORTS_A_TURN {
            match self.env.message_trouble() {
                Ok((at, message, count)) => self.take_storm(at, message, count),
                Err(refusal) => {
                    if refusal.rule != Rule::EndOfList {
                        self.env
                            .log(format_args!("no report of messages: {refusal}"));
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Switches a message off, and tells its holder.
    fn take_storm(&mut self, address: Sbdf, message: u16, count: u32) {
        let held = self
            .devices
            .find(address)
            .and_then(|index| self.devices.get(index)?.assignment);
        let Some((at, parts)) = held.and_then(|at| Some((at, self.parts(at)?))) else {
            return;
        };
        let Parts {
            env,
            hold,
            device,
            masks,
        } = parts;
        // Given back since.
        let Some(setup) = hold.interrupts.as_mut() else {
            return;
        };
        hold.silenced = true;
        let off = if readable(device).is_ok() {
            silencing::switch_off(env, device, at, setup, masks, message)
        } else {
            // Its registers are a reset's now, which brings back what is noted.
            silencing::note(device, setup, masks, message);
            Ok(())
        };
        setup::note_masks(env, at, setup, masks);
        setup::note_bits(env, at, setup);
        if let Err(refusal) = off {
            // It is not passed on all the same.
            env.log(format_args!(
                "{address} message {message} stays on: {refusal}"
            ));
        }
        let client = hold.client;
        env.log(format_args!(
            "{address} message {message} off: {count} times"
        ));
        let detail = u64::from(count) << 32 | u64::from(message);
        self.tell(client, EventKind::MessageOff, address, detail);
    }
}

/// Has messages passed on again that came too often, before they are switched on at the device.
pub(super) fn resume<E: Env>(parts: &mut Parts<'_, E>, messages: Messages) -> Result<(), Refusal> {
    let left = parts.env.resume(parts.device.at, messages);
    parts.hold.silenced = left.map_err(from_below)? != 0;
    Ok(())
}

/// The same, of all messages.
pub(super) fn resume_all<E: Env>(parts: &mut Parts<'_, E>) -> Result<(), Refusal> {
    let all = Messages {
        first: 0,
        count: u16::MAX,
    };
    resume(parts, all)
}

/// Lets the messages of a device without masks be sent again, which a storm has switched off; false where there are masks, and
/// those are to be used, or nothing was switched off.
pub(super) fn switch_on<E: Env>(parts: &mut Parts<'_, E>, at: u16) -> Result<bool, Refusal> {
    let Parts {
        env, hold, device, ..
    } = parts;
    let Some(setup) = hold.interrupts.as_mut() else {
        return Ok(false);
    };
    let is_on = setup.bits.enable == Switch::On;
    if is_on || silencing::has_masks(device, setup.mechanism) {
        return Ok(false);
    }
    let bits = interrupts::Bits {
        enable: Switch::On,
        ..setup.bits
    };
    interrupts::switch(*env, device, setup.mechanism, bits)?;
    setup.bits = bits;
    setup::note_bits(*env, at, setup);
    Ok(true)
}
