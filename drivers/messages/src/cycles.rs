//! A device that is taken, made to send one message, and given back, over and over: nothing is used up, no message is lost,
//! and the last time costs what the first did.
//!
//! Nothing is written to the log in between. Each second time the message is disabled before the device is released; else
//! the release has to do it.

use client::{Error, Mechanism, Platform, Run, Sbdf, Switch, report};
use edu_driver::{DEVICE, Edu, VENDOR};
use system::layout::event;

use crate::Probe;
use crate::standing::Observer;

/// Cycles at either end whose cost is compared.
const SAMPLE: u32 = 100;
/// What the cost of a cycle may grow by, in thousandths.
const GROWTH: u64 = 5;
/// A message that has not come by then is lost.
const PATIENCE_MICROS: u64 = 2_000_000;
/// How long nothing has to come after all.
const QUIET_MICROS: u64 = 2_000;
/// After so many nothing more is raised: each one is waited for.
const MOST_LOST: u32 = 3;
/// The one message's flag.
const FLAG: u64 = event::OWN;

/// How a cycle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// The message is disabled, then the device released.
    Disable,
    /// The device is released with its message enabled.
    Release,
}

/// Flags that came in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Before the message was raised: none should.
    pub early: u64,
    /// Then.
    pub came: u64,
}

impl Turn {
    /// One message, when it was raised.
    pub const GOOD: Self = Self {
        early: 0,
        came: FLAG,
    };
}

/// Goes through the cycle with one device.
pub struct Cycle<'a> {
    probe: &'a Probe,
    device: Sbdf,
    /// Window slot of the interrupt handler.
    handler: Run,
}

impl<'a> Cycle<'a> {
    /// For the teaching device that the description grants.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WindowFull`].
    pub fn new(probe: &'a Probe) -> Result<Self, Error> {
        let ids = u32::from(DEVICE) << 16 | u32::from(VENDOR);
        let mut found = probe.client.devices().filter_map(Result::ok);
        let found = found.find(|found| found.ids == ids);
        Self::of(probe, found.ok_or(Error::NotFound)?.device)
    }

    /// For a teaching device.
    ///
    /// # Errors
    /// [`Error::WindowFull`].
    pub fn of(probe: &'a Probe, device: Sbdf) -> Result<Self, Error> {
        let handler = probe.client.window().take(1).ok_or(Error::WindowFull(1))?;
        Ok(Self {
            probe,
            device,
            handler,
        })
    }

    /// The device.
    pub fn device(&self) -> Sbdf {
        self.device
    }

    /// Takes the device, has it send its message once, gives it back.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn turn(&self, last: Last) -> Result<Turn, Error> {
        let (client, platform) = (&self.probe.client, self.probe.platform);
        let device = client.assign(self.device)?;
        let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
        let slot = self.handler.first;
        device.port().msi_enable(Mechanism::Msi, 0, 1, slot)?;
        platform.bind_interrupt(slot, FLAG)?;
        device.bus_master(Switch::On)?;
        let early = client.poll(u64::MAX);
        edu.raise(1);
        let came = match client.poll(u64::MAX) {
            0 => client.wait_for(FLAG, PATIENCE_MICROS)?,
            came => came,
        };
        edu.acknowledge(1);
        drop(edu);
        if last == Last::Disable {
            device.port().msi_disable()?;
        }
        device.release()?;
        Ok(Turn { early, came })
    }
}

impl Drop for Cycle<'_> {
    fn drop(&mut self) {
        self.probe.client.window().give_back(self.handler);
    }
}

/// What `times` cycles came to.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    raised: u32,
    arrived: u32,
    elsewhere: u32,
    lost: u32,
    /// Ticks of the first cycles, and of the last.
    first: u64,
    last: u64,
    longest: u64,
}

/// Goes through `times` cycles.
pub fn run(probe: &Probe, times: u32) -> Result<(), Error> {
    let observer = Observer::new(&probe.client)?;
    let cycle = Cycle::new(probe)?;
    probe
        .platform
        .log(format_args!("@assigned {}", cycle.device()));
    let before = observer.standing()?;
    let absorbed = observer.absorbed()?;
    let mut tally = Tally::default();
    for number in 0..times {
        let last = match number % 2 {
            0 => Last::Disable,
            _ => Last::Release,
        };
        let start = sel4_client::ticks();
        let came = cycle.turn(last)?;
        let ticks = sel4_client::ticks().saturating_sub(start);
        tally.raised += 1;
        match came {
            Turn::GOOD => tally.arrived += 1,
            Turn { came: 0, .. } => tally.lost += 1,
            _ => tally.elsewhere += 1,
        }
        if number < SAMPLE {
            tally.first += ticks;
        }
        if number >= times.saturating_sub(SAMPLE) {
            tally.last += ticks;
        }
        tally.longest = tally.longest.max(ticks);
        if tally.lost == MOST_LOST {
            break;
        }
    }
    let more = probe.client.wait_for(FLAG, QUIET_MICROS)?;
    let absorbed = observer.absorbed()? - absorbed;
    probe.check(
        "each_message_arrives",
        tally.raised == times && tally.arrived == times && more == 0 && absorbed == 0,
        format_args!(
            "{} raised, {} arrived, {} lost, {} elsewhere, {absorbed} absorbed, {more:#x} after all",
            tally.raised, tally.arrived, tally.lost, tally.elsewhere
        ),
    );
    let after = observer.standing()?;
    probe.check(
        "as_at_the_start",
        after.is_as(&before, probe.platform),
        format_args!(
            "{} rows of vectors, {} free; slots of handlers {}, others {}; {} bytes of devices cut; {} domains, {} tables",
            after.table.len(),
            after.figures.free,
            after.figures.handlers,
            after.figures.slots,
            after.figures.untyped,
            after.figures.domains,
            after.figures.tables
        ),
    );
    let sample = u64::from(SAMPLE.min(times).max(1));
    let (first, last) = (tally.first / sample, tally.last / sample);
    probe.check(
        "no_growth",
        last * 1_000 <= first * (1_000 + GROWTH),
        format_args!(
            "a cycle is {first} ticks at the beginning and {last} at the end, {} at most",
            tally.longest
        ),
    );
    for (key, value) in [
        ("cycles", tally.arrived.into()),
        ("cycle_first", first),
        ("cycle_last", last),
        ("cycle_longest", tally.longest),
    ] {
        report::metric(probe.platform, key, value);
    }
    Ok(())
}
