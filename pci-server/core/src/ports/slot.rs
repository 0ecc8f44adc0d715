//! Registers of a hot-plug slot: [`Slot`] takes its events, gives it commands one
//! at a time, and says whether there is a card and a link (PCIe 5.0, 6.7.1 to 6.7.3).
//!
//! A port completes a command when it likes, at most a second later, and must get no other one
//! before: a second command waits here until the first is completed.

use hw::capability::{
    Express, LinkCapabilities, LinkStatus, SlotCapabilities, SlotControl, SlotStatus,
};
use hw::{ConfigSpace, Sbdf};

/// Rounds of taking events: what happens between two reads must not stay unseen, since a message is sent for the
/// first event only.
const ROUNDS: u8 = 8;
/// Between two looks at a command that somebody waits for.
const LOOK_US: u64 = 20_000;
/// Looks: 1 s (PCIe 5.0, 6.7.3.2).
const LOOKS: u8 = 50;

/// What the slot shows people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Indicator {
    /// No power: the card may be pulled out.
    Off,
    /// Power: it must not.
    On,
    /// In transition.
    Blink,
    /// No power, and something is wrong.
    Attention,
}

/// What happens to the slot's power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Nothing.
    Keep,
    /// On.
    On,
    /// Off.
    Off,
}

/// A command that is not known to be completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pending {
    look_at: u64,
    left: u8,
}

/// A hot-plug slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Number on the chassis.
    pub number: u16,
    /// Its events interrupt.
    pub interrupts: bool,
    /// While the power goes off: there is a card that is to get power again.
    pub replaced: bool,
    capabilities: SlotCapabilities,
    control_register: u16,
    status_register: u16,
    /// Link Status, where it says whether the link is active.
    link_register: Option<u16>,
    wanted: SlotControl,
    written: SlotControl,
    pending: Option<Pending>,
    /// More events than [`ROUNDS`] take: look again.
    flooded: Option<u64>,
}

impl Slot {
    /// The slot of a port; nothing is written. `None` where the port does not answer.
    pub fn new<C: ConfigSpace>(cfg: &C, at: Sbdf, express: &Express) -> Option<Self> {
        let registers = express.slot_registers(cfg, at)?;
        if registers.control.bits() == u16::MAX && registers.status.bits() == u16::MAX {
            return None;
        }
        let link = express.link(cfg, at).ok().flatten();
        let tells = link.is_some_and(|link| {
            link.capabilities
                .contains(LinkCapabilities::ACTIVE_REPORTING)
        });
        Some(Self {
            number: registers.capabilities.number(),
            interrupts: false,
            replaced: false,
            capabilities: registers.capabilities,
            control_register: express.slot_control_register(),
            status_register: express.slot_status_register(),
            link_register: tells.then_some(express.link_status_register()),
            wanted: registers.control,
            written: registers.control,
            pending: None,
            flooded: None,
        })
    }

    /// Can the port say whether its link is up?
    #[must_use]
    pub const fn tells_active(&self) -> bool {
        self.link_register.is_some()
    }

    /// Is the link up? `None` where the port cannot say.
    pub fn link_active<C: ConfigSpace>(&self, cfg: &C, at: Sbdf) -> Option<bool> {
        let status = LinkStatus::from_bits_retain(cfg.read16(at, self.link_register?));
        Some(status.contains(LinkStatus::ACTIVE) && status.bits() != u16::MAX)
    }

    /// Is there a card?
    pub fn present<C: ConfigSpace>(&self, cfg: &C, at: Sbdf) -> bool {
        let status = cfg.read16(at, self.status_register);
        status != u16::MAX && SlotStatus::from_bits_retain(status).contains(SlotStatus::PRESENT)
    }

    /// Events since the last time, with the present state; exactly what was read as set is written
    /// back. `None`: the port reads all ones.
    pub fn take_events<C: ConfigSpace>(
        &mut self,
        cfg: &mut C,
        at: Sbdf,
        now: u64,
    ) -> Option<SlotStatus> {
        let mut events = SlotStatus::empty();
        self.flooded = None;
        for _ in 0..ROUNDS {
            let status = cfg.read16(at, self.status_register);
            if status == u16::MAX {
                return None;
            }
            let status = SlotStatus::from_bits_retain(status);
            let new = status & SlotStatus::EVENTS;
            if new.is_empty() {
                return Some(status | events);
            }
            cfg.write16(at, self.status_register, new.bits());
            events |= new;
        }
        // Events come faster than they are taken: a port that cannot stop does not stop the shard.
        self.flooded = Some(now.saturating_add(LOOK_US));
        let status = SlotStatus::from_bits_retain(cfg.read16(at, self.status_register));
        Some((status - SlotStatus::EVENTS) | events)
    }

    /// Sets indicators and power, now or when the command before is completed.
    pub fn order<C: ConfigSpace>(
        &mut self,
        cfg: &mut C,
        at: Sbdf,
        now: u64,
        indicator: Indicator,
        power: Power,
    ) {
        let (lamp, attention) = match indicator {
            Indicator::Off => (SlotControl::INDICATOR_OFF, SlotControl::INDICATOR_OFF),
            Indicator::On => (SlotControl::INDICATOR_ON, SlotControl::INDICATOR_OFF),
            Indicator::Blink => (SlotControl::INDICATOR_BLINK, SlotControl::INDICATOR_OFF),
            Indicator::Attention => (SlotControl::INDICATOR_OFF, SlotControl::INDICATOR_ON),
        };
        let mut control = self
            .wanted
            .with_power_indicator(lamp)
            .with_attention_indicator(attention);
        if self
            .capabilities
            .contains(SlotCapabilities::POWER_CONTROLLER)
        {
            match power {
                Power::Keep => {}
                Power::On => control.remove(SlotControl::POWER_OFF),
                Power::Off => control.insert(SlotControl::POWER_OFF),
            }
        }
        let events = SlotControl::ATTENTION_BUTTON
            | SlotControl::POWER_FAULT
            | SlotControl::PRESENCE_CHANGED
            | SlotControl::COMMAND_COMPLETED
            | SlotControl::LINK_CHANGED
            | SlotControl::INTERRUPT;
        control.set(events, self.interrupts);
        control.remove(SlotControl::LATCH_CHANGED | SlotControl::INTERLOCK);
        self.wanted = control;
        self.flush(cfg, at, now);
    }

    fn flush<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf, now: u64) {
        if self.pending.is_some() || self.wanted == self.written {
            return;
        }
        cfg.write16(at, self.control_register, self.wanted.bits());
        self.written = self.wanted;
        if !self
            .capabilities
            .contains(SlotCapabilities::NO_COMMAND_COMPLETED)
        {
            self.pending = Some(Pending {
                look_at: now.saturating_add(LOOK_US),
                left: LOOKS,
            });
        }
    }

    /// The command that was given is completed.
    pub fn completed<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf, now: u64) {
        self.pending = None;
        self.flush(cfg, at, now);
    }

    /// When [`Self::poll`] is due: only if something waits.
    #[must_use]
    pub fn due(&self) -> u64 {
        let command = match self.pending {
            Some(pending) if self.wanted != self.written => pending.look_at,
            _ => u64::MAX,
        };
        command.min(self.flooded.unwrap_or(u64::MAX))
    }

    /// Looks whether the command before is completed; true: the slot's events are to be looked at.
    pub fn poll<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf, now: u64) -> bool {
        if let Some(pending) = self.pending.filter(|pending| pending.look_at <= now) {
            let status = SlotStatus::from_bits_retain(cfg.read16(at, self.status_register));
            let done = status.contains(SlotStatus::COMMAND_COMPLETED);
            if done {
                let bit = SlotStatus::COMMAND_COMPLETED.bits();
                cfg.write16(at, self.status_register, bit);
            }
            match pending.left.checked_sub(1) {
                Some(left) if !done => {
                    self.pending = Some(Pending {
                        look_at: now.saturating_add(LOOK_US),
                        left,
                    });
                }
                // A port that never says so gets the next command all the same.
                _ => self.completed(cfg, at, now),
            }
        }
        let look = self.flooded.is_some_and(|look_at| look_at <= now);
        if look {
            self.flooded = None;
        }
        look
    }
}
