//! Downstream ports: [`Port`], with the state machine of its hot-plug slot, and
//! the table of a shard's [`Ports`].
//!
//! A port never waits and knows no device behind it: it is told what happens
//! ([`Port::notice`] for its interrupt, [`Port::tick`] for its moment, [`Port::withdrawn`] when
//! nobody has anything behind it any more) and says with a [`Task`] what the shard is to
//! do. Registers of the slot in [`slot`], errors in [`errors`], its own interrupt in [`message`].
//!
//! Sequences: PCIe 5.0, 6.7 (hot-plug), 6.6.1 (first access after a reset).

pub mod all;
pub mod errors;
pub mod message;
pub mod slot;

use hw::capability::{Express, SlotStatus};
use hw::header::{HeaderError, register};
use hw::{BusRange, ConfigSpace, Sbdf};
use thiserror::Error;

pub use all::Ports;
use errors::ErrorSource;
use slot::{Indicator, Slot};

/// Most ports of a shard that are looked after; the cards of further ones are what they were at boot.
pub const MAX_PORTS: usize = 64;

/// Between two looks at a link or a function that comes up.
const LOOK_US: u64 = 20_000;
/// Looks at a link that comes up: 1 s.
const LOOKS: u8 = 50;
/// From the link's coming up to the first access (PCIe 5.0, 6.6.1).
const FIRST_ACCESS_US: u64 = 100_000;
/// What a port takes that cannot say whether its link is up.
const BLIND_US: u64 = 1_000_000;
/// How long holders have, and how long a second press of the button takes the first back (PCIe 5.0, 6.7.1.5).
pub const GRACE_US: u64 = 5_000_000;
/// From switching the power off to switching it on (PCIe 5.0, 6.7.1.8).
const OFF_US: u64 = 1_000_000;

/// Why a slot does not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PortFault {
    /// The power failed.
    #[error("power fault")]
    Power,
    /// The link did not come up within a second.
    #[error("the link does not come up")]
    NoLink,
    /// The link is up, and no function answers within a second.
    #[error("no function answers")]
    NoAnswer,
    /// The port itself reads all ones.
    #[error("the port does not answer")]
    PortGone,
    /// An error was contained: the port keeps the link off (DPC).
    #[error("an error was contained; the link stays off")]
    Contained,
}

/// Where a slot is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// No card, or one without power.
    Empty,
    /// Power is on; the link is looked at this many more times.
    PoweringOn(u8),
    /// The link is up; the first function is looked at this many more times.
    Settling(u8),
    /// A card works.
    Occupied,
    /// Somebody wants to pull the card out: taken from its holders at [`Port::due`].
    RemovalPending,
    /// It is being taken from its holders.
    Withdrawing(Then),
    /// Power was switched off; it stays so until [`Port::due`].
    PoweringOff,
    /// Nothing works until the card is changed.
    Failed(PortFault),
}

/// What follows when nobody has anything behind the port any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Power goes off.
    PowerOff,
    /// Power goes off, and on again if there is a card.
    Replace,
    /// Power goes off for good.
    Fail(PortFault),
}

/// What the shard is to do for a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Nothing.
    Nothing,
    /// Take in what is behind the port: [`Port::entered`] when done.
    Enumerate,
    /// Tell the holders that the card is to be removed; nobody gets anything behind it.
    Announce,
    /// The removal was called off.
    Keep,
    /// Take everything behind the port back: [`Port::withdrawn`] when done.
    TakeBack,
    /// Everything behind the port is gone already: the same without touching it.
    Vanished,
    /// The slot failed; for the log.
    Failed(PortFault),
}

/// A downstream port that the shard looks after: one with a hot-plug slot, or one that reports errors.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its address.
    pub at: Sbdf,
    /// The buses behind it.
    pub buses: BusRange,
    /// Its slot.
    pub slot: Option<Slot>,
    /// Errors that it reports.
    pub errors: Option<ErrorSource>,
    /// Where the slot is in its life.
    pub state: State,
    /// When the state moves on by itself, in microseconds of the shard's clock; `u64::MAX`: never.
    moment: u64,
    /// The bus behind it is being reset: what the slot says meanwhile is about that.
    pub in_reset: bool,
}

impl Port {
    /// A port as the shard finds it at boot; nothing is written.
    #[must_use]
    pub const fn new(
        at: Sbdf,
        buses: BusRange,
        slot: Option<Slot>,
        errors: Option<ErrorSource>,
    ) -> Self {
        Self {
            at,
            buses,
            slot,
            errors,
            state: State::Empty,
            moment: u64::MAX,
            in_reset: false,
        }
    }

    /// The hot-plug slot of a port, if it has one that software works.
    pub fn slot_of<C: ConfigSpace>(cfg: &C, at: Sbdf, express: &Express) -> Option<Slot> {
        express
            .slot
            .filter(|slot| slot.hot_plug)
            .and_then(|_| Slot::new(cfg, at, express))
    }

    /// Starts looking after the slot: events of before are forgotten, new ones interrupt.
    /// `occupied`: functions behind it are in the table.
    pub fn begin<C: ConfigSpace>(
        &mut self,
        cfg: &mut C,
        now: u64,
        occupied: bool,
        interrupts: bool,
    ) {
        let Some(slot) = &mut self.slot else {
            if occupied {
                self.state = State::Occupied;
            }
            return;
        };
        let Some(status) = slot.take_events(cfg, self.at, now) else {
            self.fail(PortFault::PortGone);
            return;
        };
        slot.interrupts = interrupts;
        if occupied {
            self.state = State::Occupied;
            slot.order(cfg, self.at, now, Indicator::On, slot::Power::On);
        } else if status.contains(SlotStatus::PRESENT) {
            self.power_on(cfg, now);
        } else {
            self.state = State::Empty;
            slot.order(cfg, self.at, now, Indicator::Off, slot::Power::Off);
        }
    }

    /// The port's interrupt, or a look without one: what happened at the slot since the last time. `held`:
    /// somebody holds a function behind it.
    pub fn notice<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, held: bool) -> Task {
        let Some(slot) = &mut self.slot else {
            return Task::Nothing;
        };
        let Some(status) = slot.take_events(cfg, self.at, now) else {
            return self.vanish(Then::Fail(PortFault::PortGone));
        };
        if status.contains(SlotStatus::COMMAND_COMPLETED) {
            slot.completed(cfg, self.at, now);
        }
        let present = status.contains(SlotStatus::PRESENT);
        let active = slot.link_active(cfg, self.at);
        if self.in_reset {
            // The link goes down and comes up again; whether the card is still there is seen at the end.
            return Task::Nothing;
        }
        if status.contains(SlotStatus::POWER_FAULT) {
            return self.vanish(Then::Fail(PortFault::Power));
        }
        let change = Change {
            present,
            another: status.contains(SlotStatus::PRESENCE_CHANGED),
            flapped: status.contains(SlotStatus::LINK_CHANGED),
            active,
            pressed: status.contains(SlotStatus::ATTENTION_BUTTON),
        };
        self.changed(cfg, now, held, change)
    }

    fn changed<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, held: bool, at: Change) -> Task {
        let Change {
            present,
            another,
            flapped,
            active,
            pressed,
        } = at;
        match self.state {
            // What is behind it is known, and broken, until the card goes.
            State::Failed(PortFault::Contained) if !present || another => {
                self.vanish(Then::Replace)
            }
            State::Failed(PortFault::Contained) => Task::Nothing,
            State::Empty | State::Failed(_) if present && (another || pressed) => {
                self.power_on(cfg, now)
            }
            State::Empty => Task::Nothing,
            State::Failed(_) => {
                if !present {
                    self.state = State::Empty;
                    self.indicate(cfg, now, Indicator::Off);
                }
                Task::Nothing
            }
            State::PoweringOn(_) | State::Settling(_) if !present => {
                self.power_off(cfg, now, None);
                Task::Nothing
            }
            // The link comes up; what the button says is done already.
            State::PoweringOn(_) | State::Settling(_) => Task::Nothing,
            // Also a link that went down and came up again: whatever answers now knows nothing of before.
            State::Occupied | State::RemovalPending
                if !present || another || flapped || active == Some(false) =>
            {
                self.vanish(Then::Replace)
            }
            State::Occupied if pressed => self.ask(cfg, now, held),
            State::RemovalPending if pressed => {
                self.state = State::Occupied;
                self.moment = u64::MAX;
                self.indicate(cfg, now, Indicator::On);
                Task::Keep
            }
            State::Occupied | State::RemovalPending => Task::Nothing,
            State::Withdrawing(_) if !present || active == Some(false) => {
                self.vanish(Then::Replace)
            }
            State::Withdrawing(_) => Task::Nothing,
            State::PoweringOff => {
                if let Some(slot) = self.slot.as_mut().filter(|_| another) {
                    // Another card, or the same anew.
                    slot.replaced = present;
                }
                Task::Nothing
            }
        }
    }

    /// Asks holders to let go, for the button or an administrator.
    pub fn ask<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, held: bool) -> Task {
        if !held {
            return self.withdraw(cfg, now);
        }
        self.state = State::RemovalPending;
        self.moment = now.saturating_add(GRACE_US);
        self.indicate(cfg, now, Indicator::Blink);
        Task::Announce
    }

    /// Takes everything behind the port back, then the power away.
    pub fn withdraw<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64) -> Task {
        self.state = State::Withdrawing(Then::PowerOff);
        self.moment = u64::MAX;
        self.indicate(cfg, now, Indicator::Blink);
        Task::TakeBack
    }

    fn vanish(&mut self, then: Then) -> Task {
        self.moment = u64::MAX;
        match (self.state, then) {
            (
                State::Occupied
                | State::RemovalPending
                | State::Withdrawing(_)
                | State::Failed(PortFault::Contained),
                _,
            ) => {
                self.state = State::Withdrawing(then);
                Task::Vanished
            }
            (_, Then::Fail(fault)) => {
                self.fail(fault);
                Task::Failed(fault)
            }
            (_, Then::PowerOff | Then::Replace) => Task::Nothing,
        }
    }

    /// Containment was reported (DPC), or the port answers no more: everything behind it is lost.
    pub fn lose(&mut self, fault: PortFault) -> Task {
        self.vanish(Then::Fail(fault))
    }

    /// Nobody has anything behind the port any more.
    pub fn withdrawn<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64) {
        let State::Withdrawing(then) = self.state else {
            return;
        };
        match then {
            Then::PowerOff => self.power_off(cfg, now, None),
            Then::Replace => {
                self.power_off(cfg, now, None);
                let at = self.at;
                if let Some(slot) = &mut self.slot {
                    slot.replaced = slot.present(cfg, at);
                }
            }
            Then::Fail(fault) => self.power_off(cfg, now, Some(fault)),
        }
    }

    /// What is behind the port has been taken in: this many functions.
    pub fn entered<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, functions: usize) -> Task {
        self.moment = u64::MAX;
        if functions == 0 {
            return self.give_up(cfg, now, PortFault::NoAnswer);
        }
        self.state = State::Occupied;
        self.indicate(cfg, now, Indicator::On);
        Task::Nothing
    }

    /// Power for a card that has none: after a rescan.
    pub fn power_on<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64) -> Task {
        let Some(slot) = &mut self.slot else {
            return Task::Nothing;
        };
        slot.order(cfg, self.at, now, Indicator::Blink, slot::Power::On);
        let first = if slot.tells_active() {
            LOOK_US
        } else {
            BLIND_US
        };
        self.state = State::PoweringOn(LOOKS);
        self.moment = now.saturating_add(first);
        Task::Nothing
    }

    fn power_off<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, fault: Option<PortFault>) {
        let Some(slot) = &mut self.slot else {
            self.state = fault.map_or(State::Empty, State::Failed);
            return;
        };
        let indicator = if fault.is_some() {
            Indicator::Attention
        } else {
            Indicator::Off
        };
        slot.replaced = false;
        slot.order(cfg, self.at, now, indicator, slot::Power::Off);
        (self.state, self.moment) = match fault {
            Some(fault) => (State::Failed(fault), u64::MAX),
            None => (State::PoweringOff, now.saturating_add(OFF_US)),
        };
    }

    fn indicate<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, indicator: Indicator) {
        if let Some(slot) = &mut self.slot {
            slot.order(cfg, self.at, now, indicator, slot::Power::Keep);
        }
    }

    fn fail(&mut self, fault: PortFault) {
        self.state = State::Failed(fault);
        self.moment = u64::MAX;
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn due(&self) -> u64 {
        let slot = self.slot.as_ref().map_or(u64::MAX, Slot::due);
        slot.min(self.moment)
    }

    /// [`Self::due`] has come. `held`: somebody holds a function behind the port.
    pub fn tick<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, held: bool) -> Task {
        let Some(slot) = &mut self.slot else {
            self.moment = u64::MAX;
            return Task::Nothing;
        };
        if slot.poll(cfg, self.at, now) {
            return self.notice(cfg, now, held);
        }
        if self.moment > now {
            return Task::Nothing;
        }
        self.moment = u64::MAX;
        self.step(cfg, now)
    }

    fn step<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64) -> Task {
        let again = |this: &mut Self, state, after| {
            this.state = state;
            this.moment = now.saturating_add(after);
            Task::Nothing
        };
        match self.state {
            State::PoweringOn(left) => {
                let at = self.at;
                let active = self
                    .slot
                    .as_ref()
                    .and_then(|slot| slot.link_active(cfg, at));
                match (active, left.checked_sub(1)) {
                    (Some(true), _) => again(self, State::Settling(LOOKS), FIRST_ACCESS_US),
                    (None, _) => again(self, State::Settling(LOOKS), 0),
                    (Some(false), Some(left)) => again(self, State::PoweringOn(left), LOOK_US),
                    (Some(false), None) => self.give_up(cfg, now, PortFault::NoLink),
                }
            }
            State::Settling(left) => match (self.answers(cfg), left.checked_sub(1)) {
                (true, _) => Task::Enumerate,
                (false, Some(left)) => again(self, State::Settling(left), LOOK_US),
                (false, None) => self.give_up(cfg, now, PortFault::NoAnswer),
            },
            State::RemovalPending => self.withdraw(cfg, now),
            State::PoweringOff => {
                self.state = State::Empty;
                let replaced = self
                    .slot
                    .as_mut()
                    .is_some_and(|slot| core::mem::take(&mut slot.replaced));
                if replaced {
                    self.power_on(cfg, now)
                } else {
                    Task::Nothing
                }
            }
            State::Empty | State::Occupied | State::Withdrawing(_) | State::Failed(_) => {
                Task::Nothing
            }
        }
    }

    fn give_up<C: ConfigSpace>(&mut self, cfg: &mut C, now: u64, fault: PortFault) -> Task {
        self.power_off(cfg, now, Some(fault));
        Task::Failed(fault)
    }

    /// Does the first function behind the port answer? One that is not ready yet does not (PCIe 5.0, 2.3.2).
    fn answers<C: ConfigSpace>(&self, cfg: &C) -> bool {
        let Ok(first) = Sbdf::from_parts(self.at.segment(), self.buses.first(), 0, 0) else {
            return false;
        };
        match hw::header::Header::read(cfg, first) {
            Ok(_) => true,
            Err(HeaderError::Absent | HeaderError::NotReady | HeaderError::Vanished) => false,
            // Something answers: enumeration will say what is wrong with it.
            Err(_) => cfg.read32(first, register::VENDOR_ID) != u32::MAX,
        }
    }
}

/// What a slot says at one moment.
struct Change {
    present: bool,
    /// A card came or went; its own power does not matter.
    another: bool,
    /// The link's state changed, which it also does with the power.
    flapped: bool,
    /// `None` where the port cannot say.
    active: Option<bool>,
    pressed: bool,
}
