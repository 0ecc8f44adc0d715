//! Interrupt pins of held devices: which line a pin is wired to, and switching it on and off. The line itself is the
//! msi-server's.

use hw::header::{Command, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{Badge, EventKind, Refusal, Rule};

use super::views::{Need, slot_of};
use super::{Parts, Shard, from_below};
use crate::env::{Env, Vectors};
use crate::groups::Kind;
use crate::notes::{Intent, setup};
use crate::{Device, Index};

/// Interrupt Pin: 1 to 4 stand for A to D (PCIe 5.0, 7.5.1.1.13).
const PIN: u16 = 0x3d;
/// Most bridges on the way to a root bus: one for each of its other buses.
const MAX_BRIDGES: usize = 255;
/// Reports that are looked at before other requests are served.
const REPORTS_A_TURN: usize = 16;

impl<E: Env> Shard<'_, E> {
    /// Lets a device raise its pin; gives its line.
    pub(super) fn enable_line(&mut self, badge: Badge) -> Result<u16, Refusal> {
        let (hold, device) = self.held_for(badge, Need::Messages(1))?;
        if hold.interrupts.is_some() || hold.vectors || hold.line {
            return Err(device.refusal(Rule::InterruptsEnabled));
        }
        let line = self.line_of(device)?;
        let Parts {
            env, hold, device, ..
        } = self.held_mut(badge, Need::Messages(1))?;
        // It was set when the device was found. One without the bit could not be silenced.
        if !command(env, device).contains(Command::INTERRUPT_DISABLE) {
            return Err(device.refusal(Rule::NoInterruptPin));
        }
        let at = slot_of(badge);
        hold.intend(env, at, Intent::Joining);
        if let Err(refusal) = env.join_line(device.at, hold.client, line) {
            if refusal.rule == Rule::Restarted {
                // It may be on it.
                let _ = leave_line(env, device.at);
            }
            hold.intend(env, at, Intent::None);
            return Err(from_below(refusal));
        }
        hold.line = true;
        let mut wanted = command(env, device);
        wanted.remove(Command::INTERRUPT_DISABLE);
        env.write16(device.at, register::COMMAND, wanted.bits());
        hold.intend(env, at, Intent::None);
        Ok(line)
    }

    /// Switches the pin off again.
    pub(super) fn disable_line(&mut self, badge: Badge) -> Result<(), Refusal> {
        let Parts {
            env, hold, device, ..
        } = self.held_mut(badge, Need::Messages(1))?;
        if !hold.line {
            return Err(device.refusal(Rule::InterruptsDisabled));
        }
        let at = slot_of(badge);
        hold.intend(env, at, Intent::Leaving);
        let left =
            silence(env, device).and_then(|()| leave_line(env, device.at).map_err(from_below));
        hold.line = left.is_err();
        hold.intend(env, at, Intent::None);
        left
    }

    /// The line that a device's pin is wired to. Each bridge on the way to the root bus turns the pins by the number of
    /// the device behind it (PCI-to-PCI Bridge 1.2, 9.1; PCIe 5.0, 2.2.8.1).
    fn line_of(&self, device: &Device) -> Result<u16, Refusal> {
        // Pins of a virtual function read as zero (SR-IOV 1.1, 3.4.1.18).
        let mut pin = match self.env.read8(device.at, PIN) {
            pin @ 1..=4 if device.physical.is_none() => pin - 1,
            _ => return Err(device.refusal(Rule::NoInterruptPin)),
        };
        let none = device.refusal(Rule::NoInterruptRoute);
        let mut at = device;
        for _ in 0..MAX_BRIDGES {
            let above = at.node.parent().map(Index::new);
            let Some(bridge) = above.and_then(|above| self.devices.get(above)) else {
                let mut routes = self.info.intx.iter();
                let line = routes.find_map(|route| route.line(at.at, pin));
                return line.map(u16::from).ok_or(none);
            };
            pin = (pin + number_behind(bridge, at)) % 4;
            at = bridge;
        }
        Err(none)
    }

    /// An msi-server has signalled: switches off the messages and pins that it names. What is left after a turn is taken
    /// in the next, which the timer starts.
    pub fn on_line_trouble(&mut self) {
        let storms = self.take_storms();
        self.line_trouble = true;
        for _ in 0..REPORTS_A_TURN {
            match self.env.line_trouble() {
                Ok((at, count)) => self.take_line(at, count),
                Err(refusal) => {
                    self.line_trouble = false;
                    if refusal.rule != Rule::EndOfList {
                        self.env.log(format_args!("no report of lines: {refusal}"));
                    }
                    break;
                }
            }
        }
        self.line_trouble |= storms;
        self.arm();
    }

    /// Takes a device off its line, and tells its holder.
    fn take_line(&mut self, address: Sbdf, count: u32) {
        let held = self
            .devices
            .find(address)
            .and_then(|index| self.devices.get(index)?.assignment);
        let mut client = None;
        if let Some((
            slot,
            Parts {
                env, hold, device, ..
            },
        )) = held.and_then(|at| Some((at, self.parts(at)?)))
        {
            // What a reset that is under way brings back stays off, too.
            if let Some(job) = &mut hold.job {
                job.kept.command |= Command::INTERRUPT_DISABLE.bits();
                setup::note_kept(env, slot, job.kept);
            }
            if silence(env, device).is_err() {
                // Its line stays closed.
                env.log(format_args!("{address} does not let go of its line"));
                return;
            }
            hold.line = false;
            client = Some(hold.client);
            hold.intend(env, slot, Intent::Leaving);
        }
        if let Err(refusal) = leave_line(&mut self.env, address) {
            self.env
                .log(format_args!("{address} stays on its line: {refusal}"));
        }
        if let Some(Parts { env, hold, .. }) = held.and_then(|at| self.parts(at)) {
            hold.intend(env, held.unwrap_or(0), Intent::None);
        }
        if let Some(client) = client {
            self.env
                .log(format_args!("{address} interrupt pin off: {count} times"));
            self.tell(client, EventKind::LineOff, address, count.into());
        }
    }
}

/// The number of a device on the bus behind a bridge. A link has one device, of number 0; with ARI what else is in its address
/// is its function's (PCIe 5.0, 6.13).
fn number_behind(bridge: &Device, device: &Device) -> u8 {
    match bridge.node.kind {
        Kind::DownstreamPort => 0,
        _ => device.at.device(),
    }
}

/// Takes a device off its line. One that is on none any more, since the shard or the msi-server was restarted in the
/// middle, is off it.
pub(super) fn leave_line<E: Vectors>(env: &mut E, at: Sbdf) -> Result<(), Refusal> {
    match env.leave_line(at) {
        Err(refusal) if refusal.rule == Rule::NotOnLine => Ok(()),
        left => left,
    }
}

fn command<C: ConfigSpace>(cfg: &C, device: &Device) -> Command {
    Command::from_bits_retain(cfg.read16(device.at, register::COMMAND))
}

/// Sees to it that the device does not raise its pin. One that is gone does not, either.
pub(super) fn silence<C: ConfigSpace>(cfg: &mut C, device: &Device) -> Result<(), Refusal> {
    let mut wanted = command(cfg, device);
    if wanted.bits() == u16::MAX {
        return Ok(());
    }
    wanted.insert(Command::INTERRUPT_DISABLE);
    cfg.write16(device.at, register::COMMAND, wanted.bits());
    match command(cfg, device).contains(Command::INTERRUPT_DISABLE) {
        true => Ok(()),
        false => Err(device.refusal(Rule::DeviceBroken)),
    }
}
