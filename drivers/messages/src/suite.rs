//! What every device's messages go through: each arrives once for each time it is raised, where its holder wants
//! it; none arrives that is masked, switched off or not enabled.

use client::{CapabilityListKind, Error, Interrupts, Mechanism, Platform, Rule, Switch, Width};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::Probe;
use crate::sources::{Card, Source};

/// Rounds over all messages.
const ROUNDS: u64 = 64;
/// Flags that a PD has for itself: messages beyond share them.
const FLAGS: u16 = 8;
/// A message that has not come by then is lost.
const PATIENCE_MICROS: u64 = 2_000_000;
/// After so many nothing more is raised: each one is waited for.
const MOST_LOST: u32 = 3;
/// How often a bit that has to be pending is looked for, [`QUIET_MICROS`] apart.
const LOOKS: u32 = 100;
/// How long nothing has to come.
const QUIET_MICROS: u64 = 2_000;
/// Capability ids (PCI Code and ID Assignment 1.11, 2).
const MSI: u16 = 0x05;
const MSIX: u16 = 0x11;
/// Message control: enable of MSI; enable and function mask of MSI-X.
const MSI_ENABLE: u32 = 1;
const MSIX_ENABLE: u32 = 1 << 15;
const MSIX_MASK: u32 = 1 << 14;

type Enabled<'d, 'c> = Interrupts<'d, 'c, 'static, SeL4Platform>;

/// A device under test.
struct Suite<'a, 'c, S> {
    probe: &'a Probe,
    device: &'a Card<'c>,
    mechanism: Mechanism,
    count: u16,
    source: &'a mut S,
}

const fn flag(n: u16) -> u64 {
    event::OWN << (n % FLAGS)
}

/// Every flag of messages.
const ALL_FLAGS: u64 = event::OWN * ((1 << FLAGS) - 1);

/// Takes the messages of a device through all of it.
pub fn run<S: Source>(
    probe: &Probe,
    device: &Card<'_>,
    mechanism: Mechanism,
    count: u16,
    source: &mut S,
) -> Result<(), Error> {
    probe
        .platform
        .log(format_args!("@assigned {}", device.address()));
    let mut suite = Suite {
        probe,
        device,
        mechanism,
        count,
        source,
    };
    suite.each_arrives()?;
    suite.rebound()?;
    suite.switched()?;
    if mechanism == Mechanism::MsiX {
        suite.masked()?;
        suite.subset()?;
    }
    if probe.cores > 1 {
        suite.across_cores()?;
    }
    suite.over_and_over()
}

impl<'a, 'c, S: Source> Suite<'a, 'c, S> {
    fn enable(&mut self, first: u16, count: u16) -> Result<Enabled<'a, 'c>, Error> {
        let device = self.device;
        let interrupts = device.enable_interrupts_with(self.mechanism, first, count, flag)?;
        // Some devices believe that they have a message only when they see it enabled.
        (0..self.count).for_each(|message| self.source.settle(message));
        Ok(interrupts)
    }

    fn raise(&mut self, message: u16) {
        self.source.raise(message);
    }

    /// What comes until something of ours does, or patience ends.
    fn arrival(&mut self, message: u16) -> Result<u64, Error> {
        let came = self.probe.client.wait_for(ALL_FLAGS, PATIENCE_MICROS)?;
        Ok(came | self.settle(message)?)
    }

    /// Readies the device for the next one; what came meanwhile.
    fn settle(&mut self, message: u16) -> Result<u64, Error> {
        self.source.settle(message);
        match S::RECOVERY_MICROS {
            0 => Ok(0),
            micros => self.probe.client.wait_for(ALL_FLAGS, micros),
        }
    }

    /// What comes though nothing should.
    fn silence(&self) -> Result<u64, Error> {
        self.probe.client.wait_for(ALL_FLAGS, QUIET_MICROS)
    }

    fn each_arrives(&mut self) -> Result<(), Error> {
        let interrupts = self.enable(0, self.count)?;
        let (mut raised, mut arrived, mut astray, mut lost) = (0, 0, 0, 0);
        for _ in 0..ROUNDS {
            for message in 0..self.count {
                if lost == MOST_LOST {
                    break;
                }
                self.raise(message);
                raised += 1;
                match self.arrival(message)? {
                    came if came == flag(message) => arrived += 1,
                    0 => lost += 1,
                    _ => astray += 1,
                }
            }
        }
        let more = self.silence()?;
        self.probe.check(
            "each_message_arrives",
            raised == arrived && astray == 0 && more == 0,
            format_args!(
                "{raised} raised by {} messages, {arrived} arrived, {astray} elsewhere, {more:#x} after all",
                self.count
            ),
        );
        interrupts.disable()?;
        self.raise(0);
        let came = self.silence()? | self.settle(0)?;
        self.probe.check(
            "none_when_disabled",
            came == 0,
            format_args!("{came:#x} came"),
        );
        Ok(())
    }

    /// The holder moves each message to another flag while it is enabled.
    fn rebound(&mut self) -> Result<(), Error> {
        let interrupts = self.enable(0, self.count)?;
        let mut wrong = 0;
        for message in 0..self.count {
            let other = flag(message + 1);
            interrupts.bind(message, other)?;
            self.raise(message);
            wrong += u32::from(self.arrival(message)? != other);
            // One flag for all of them.
            interrupts.bind(message, flag(0))?;
            self.raise(message);
            wrong += u32::from(self.arrival(message)? != flag(0));
        }
        self.probe.check(
            "bound_anew",
            wrong == 0,
            format_args!("{wrong} of {} arrived elsewhere", 2 * self.count),
        );
        interrupts.disable()
    }

    /// Message control's place in configuration space.
    fn control_register(&self) -> Result<u16, Error> {
        let wanted = match self.mechanism {
            Mechanism::Msi => MSI,
            Mechanism::MsiX => MSIX,
        };
        for entry in self.probe.client.capabilities(self.device.address()) {
            let entry = entry?;
            if entry.list == CapabilityListKind::Standard && entry.id == wanted {
                return Ok(entry.offset + 2);
            }
        }
        Err(Error::NotFound)
    }

    /// The holder writes message control as it would without a server.
    fn switched(&mut self) -> Result<(), Error> {
        let register = self.control_register()?;
        let interrupts = self.enable(0, self.count)?;
        let control = self.device.config_read(register, Width::Word)?;
        let write = |value| self.device.config_write(register, Width::Word, value);
        let enable = match self.mechanism {
            Mechanism::Msi => MSI_ENABLE,
            Mechanism::MsiX => MSIX_ENABLE,
        };
        write(control & !enable)?;
        self.source.raise(0);
        let off = self.silence()? | self.settle(0)?;
        write(control | enable)?;
        let mut held = (0, 0, 0);
        if self.mechanism == Mechanism::MsiX {
            write(control | MSIX_MASK)?;
            self.source.raise(0);
            held = (self.silence()?, interrupts.pending(0, self.count)?, 0);
            write(control)?;
            held.2 = self.arrival(0)?;
        }
        let held_back = self.mechanism == Mechanism::Msi || held == (0, 1, flag(0));
        self.raise(0);
        let on = self.arrival(0)?;
        self.probe.check(
            "switched_by_its_register",
            off == 0 && on == flag(0) && held_back,
            format_args!("off {off:#x}, on {on:#x}, masked, pending, unmasked {held:x?}"),
        );
        interrupts.disable()
    }

    /// A message that is raised while it is masked, twice, arrives once when it is unmasked; the others do meanwhile.
    fn masked(&mut self) -> Result<(), Error> {
        let interrupts = self.enable(0, self.count)?;
        let (mut early, mut pending, mut once, mut twice, mut others) = (0, 0, 0, 0, 0);
        for message in 0..self.count {
            interrupts.mask(message, 1, Switch::On)?;
            self.raise(message);
            early += u32::from((self.silence()? | self.settle(message)?) != 0);
            self.raise(message);
            // Some devices take their time.
            for _ in 0..LOOKS {
                if interrupts.pending(0, self.count)? == 1 << message {
                    pending += 1;
                    break;
                }
                early += u32::from(self.silence()? != 0);
            }
            let other = (message + 1) % self.count;
            self.raise(other);
            others += u32::from(self.arrival(other)? == flag(other));
            interrupts.mask(message, 1, Switch::Off)?;
            once += u32::from(self.arrival(message)? == flag(message));
            twice += u32::from(self.silence()? != 0);
        }
        let all = u32::from(self.count);
        self.probe.check(
            "masked_arrives_once",
            (early, pending, others, once, twice) == (0, all, all, all, 0),
            format_args!(
                "of {all}: {early} while masked, {pending} pending, {others} of others meanwhile, {once} after, {twice} twice"
            ),
        );
        interrupts.disable()
    }

    /// Some entries in the middle of the table, not a power of two of them.
    fn subset(&mut self) -> Result<(), Error> {
        let (first, count) = (1, self.count - 2);
        let interrupts = self.enable(first, count)?;
        let mut wrong = 0;
        for message in 0..self.count {
            self.raise(message);
            let expected = match message.checked_sub(first) {
                Some(n) if n < count => flag(n),
                _ => 0,
            };
            let came = match expected {
                0 => self.silence()? | self.settle(message)?,
                _ => self.arrival(message)?,
            };
            wrong += u32::from(came != expected);
        }
        self.probe.check(
            "a_subset",
            wrong == 0,
            format_args!("entries {first}.. of {}, {wrong} wrong", self.count),
        );
        interrupts.disable()
    }

    /// Messages move to each core in turn, each right after it was raised, one at a time where the mechanism allows it.
    fn across_cores(&mut self) -> Result<(), Error> {
        const TURNS: u8 = 8;
        let interrupts = self.enable(0, self.count)?;
        let one = match self.mechanism {
            Mechanism::Msi => self.count,
            Mechanism::MsiX => 1,
        };
        let (mut raised, mut arrived, mut refused) = (0, 0, 0);
        for turn in 0..TURNS * self.probe.cores {
            for message in 0..self.count {
                self.raise(message);
                let (first, core) = (message / one * one, turn % self.probe.cores);
                refused += u32::from(interrupts.move_to(first, one, core).is_err());
                raised += 1;
                arrived += u32::from(self.arrival(message)? == flag(message));
            }
        }
        let nowhere = interrupts.move_to(0, self.count, 99).err();
        let nowhere = nowhere.and_then(|error| error.rule());
        self.probe.check(
            "across_cores",
            raised == arrived && refused == 0 && nowhere == Some(Rule::NoSuchCore),
            format_args!(
                "{raised} raised, {arrived} arrived on {} cores, {refused} refused, no core: {nowhere:?}",
                self.probe.cores
            ),
        );
        interrupts.disable()
    }

    /// Enabled over and over: vectors, handlers and slots do not run out.
    fn over_and_over(&mut self) -> Result<(), Error> {
        const TIMES: u32 = 200;
        let mut arrived = 0;
        for round in 0..TIMES {
            let message = (round % u32::from(self.count)) as u16;
            let interrupts = self.enable(0, self.count)?;
            self.raise(message);
            arrived += u32::from(self.arrival(message)? == flag(message));
            interrupts.disable()?;
        }
        let left = self.probe.client.poll(ALL_FLAGS);
        self.probe.check(
            "over_and_over",
            arrived == TIMES && left == 0,
            format_args!("{arrived} of {TIMES}, {left:#x} left"),
        );
        Ok(())
    }
}
