//! The next holder of what victims ([`crate::deaths`]) leave: after each death everything that the servers give out is as it
//! was, and the device does what a device does that nobody had before.

use client::{Error, Mechanism, Platform, Sbdf, Switch, report};
use system::layout::event;

use crate::cycles::{Cycle, Last, Turn};
use crate::deaths::{
    KILL_MICROS, LOOK_MICROS, RESUME_MICROS, STOP_MICROS, Way, absorbed, device, is_holder,
    messages, slot, until,
};
use crate::sources::Source;
use crate::standing::{Observer, Standing};
use crate::{Probe, usb};

/// Name of the server that is stopped.
const SERVER: &str = "pci-server-0";
/// How long nothing has to come.
const QUIET_MICROS: u64 = 100;
/// A message that has not come by then is lost.
const PATIENCE_MICROS: u64 = 1_000;

/// Who looks after the victims.
struct Heir<'a> {
    probe: &'a Probe,
    observer: Observer<'a>,
    cycle: Cycle<'a>,
    before: Standing,
    absorbed: u64,
    all_absorbed: u64,
}

/// Outlives `victims` victims.
pub fn run(probe: &Probe, victims: usize) -> Result<(), Error> {
    let observer = Observer::new(&probe.client)?;
    let cycle = Cycle::new(probe)?;
    // What it takes itself to have had DMA memory is its own until it ends.
    controller(probe)?;
    let mut heir = Heir {
        probe,
        before: observer.standing()?,
        absorbed: observer.absorbed()?,
        all_absorbed: 0,
        observer,
        cycle,
    };
    let mut good = 0;
    let mut seen = 0;
    let pds = probe.client.info().pds.iter();
    let named = pds.filter_map(|(name, pd)| {
        let (step, way) = name.rsplit_once('-')?;
        Some((name.as_str(), step, Way::named(way)?, *pd))
    });
    for (number, (name, step, way, pd)) in (0..).zip(named) {
        seen += 1;
        good += usize::from(heir.outlives(number, name, step, way, pd)?);
    }
    probe.check(
        "all_victims",
        seen == victims && good == victims,
        format_args!("{victims} expected, {seen} seen, {good} left nothing behind"),
    );
    report::metric(probe.platform, "deaths", good as u64);
    report::metric(probe.platform, "absorbed", heir.all_absorbed);
    Ok(())
}

impl Heir<'_> {
    /// The number of a PD by name.
    fn pd(&self, name: &str) -> Result<u16, Error> {
        let mut pds = self.probe.client.info().pds.iter();
        let found = pds.find(|(found, _)| found == name);
        found.map(|(_, pd)| *pd).ok_or(Error::NotFound)
    }

    /// Messages that reached nobody since the last look.
    fn absorbed(&mut self) -> Result<u64, Error> {
        let now = self.observer.absorbed()?;
        let more = now - self.absorbed;
        self.absorbed = now;
        self.all_absorbed += more;
        Ok(more)
    }

    /// One victim's end; whether all is well afterwards.
    fn outlives(
        &mut self,
        number: u64,
        name: &str,
        step: &str,
        way: Way,
        pd: u16,
    ) -> Result<bool, Error> {
        let supervisor = self.probe.client.supervisor();
        let address = device(self.probe, step)?;
        let start = slot(number);
        if way == Way::Ask {
            until(self.probe, start + STOP_MICROS)?;
            supervisor.suspend(self.pd(SERVER)?, Switch::Off)?;
        }
        let mut there = true;
        until(self.probe, start + KILL_MICROS)?;
        if way == Way::Kill {
            there = self.holds(name, step, address)?;
        }
        if way.is_killed() {
            supervisor.kill(pd)?;
        }
        if way == Way::Ask {
            until(self.probe, start + RESUME_MICROS)?;
            supervisor.suspend(self.pd(SERVER)?, Switch::On)?;
        }
        until(self.probe, start + LOOK_MICROS)?;
        let early = self.absorbed()?;
        let standing = self.observer.standing()?;
        let back = standing.is_as(&self.before, self.probe.platform);
        let works = match step {
            "masked" => controller(self.probe)?,
            _ => self.cycle.turn(Last::Disable)? == Turn::GOOD,
        };
        let late = self.absorbed()?;
        let again = self.observer.standing()?;
        let again = again.is_as(&self.before, self.probe.platform);
        let good = there && back && works && again && (early, late) == absorbed(step);
        self.probe.check(
            "nothing_left",
            good,
            format_args!(
                "{name}: there {there}, all back {back}, works for the next {works}, all back again {again}; absorbed {early}, then {late}"
            ),
        );
        Ok(good)
    }

    /// Does the victim have what its step says?
    fn holds(&self, name: &str, step: &str, address: Sbdf) -> Result<bool, Error> {
        let holding = self.observer.holding(address)?;
        let expected = is_holder(step).then(|| (name, messages(step)));
        if holding != expected {
            let platform = self.probe.platform;
            platform.log(format_args!("{holding:?} in place of {expected:?}"));
        }
        Ok(holding == expected)
    }
}

/// Each message of the controller arrives once, and what its last holder had raised does not.
fn controller(probe: &Probe) -> Result<bool, Error> {
    let client = &probe.client;
    let mut good = true;
    usb::with(probe, |device, controller| {
        let interrupts =
            device.enable_interrupts_with(Mechanism::MsiX, 0, usb::MESSAGES, |_| event::OWN)?;
        usb::ready(controller);
        let pending = interrupts.pending(0, usb::MESSAGES)?;
        good &= pending == 0 && client.wait_for(event::OWN, QUIET_MICROS)? == 0;
        for message in 0..usb::MESSAGES {
            controller.raise(message);
            good &= client.wait_for(event::OWN, PATIENCE_MICROS)? == event::OWN;
            controller.settle(message);
        }
        good &= client.wait_for(event::OWN, QUIET_MICROS)? == 0;
        interrupts.disable()
    })?;
    Ok(good)
}
