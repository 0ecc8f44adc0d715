//! A message that the msi-server counts and passes on: what that takes, what becomes of a storm, and how it comes again.

use core::fmt::Write;

use client::report::metric;
use client::{Delivery, Error, EventKind, Inspector, Mechanism, Platform, Switch};
use edu_driver::{DEVICE, Edu, VENDOR};
use sel4_client::ticks;
use system::layout::event;

use crate::Probe;
use crate::sources::Source;

/// Interrupts that are timed: fewer than may come at once.
const TIMED: usize = 33;
/// How often the message is raised in a storm, at most.
const STORM: u32 = 20_000;
/// No more than these pass at once where the description says 1,000 a second: a tenth of a second's, and the first.
const AT_ONCE: u32 = 101;
/// How long what should come is waited for, and what should not.
const PATIENCE_MICROS: u64 = 2_000_000;
const QUIET_MICROS: u64 = 200_000;

/// Runs on the teaching device.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar(0)?);
    // A message is a memory write of the device.
    device.bus_master(Switch::On)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    let mut times = [0; TIMED];
    for time in &mut times {
        let began = ticks();
        Source::raise(&mut edu, 0);
        while probe.client.wait() & event::OWN == 0 {}
        *time = ticks() - began;
        edu.settle(0);
    }
    times.sort_unstable();
    let middle = times.get(TIMED / 2).copied().unwrap_or(0);
    metric(probe.platform, "metered_latency", middle);
    probe.check(
        "metered",
        interrupts.delivery() == Delivery::Metered && middle > 0,
        format_args!("{middle} ticks from raising to its flag"),
    );

    // Until all that may come at once may come at once again.
    probe.client.wait_for(event::OWN, QUIET_MICROS)?;
    let (mut raised, mut arrived) = (0, 0);
    let mut told = None;
    while raised < STORM && told.is_none() {
        Source::raise(&mut edu, 0);
        edu.settle(0);
        raised += 1;
        let came = probe.client.poll(event::OWN | event::DEVICE);
        arrived += u32::from(came & event::OWN != 0);
        if came & event::DEVICE != 0 {
            told = switched_off(probe)?;
        }
    }
    let message = told.map(|detail| detail as u32);
    probe.check(
        "storm_ended",
        message == Some(0) && arrived <= AT_ONCE && arrived > 1,
        format_args!("raised {raised} times, {arrived} came, then {told:x?}"),
    );
    Source::raise(&mut edu, 0);
    edu.settle(0);
    let after = probe.client.wait_for(event::OWN, QUIET_MICROS)?;
    dump(probe)?;

    interrupts.mask(0, 1, Switch::Off)?;
    let once = probe.client.wait_for(event::OWN, PATIENCE_MICROS)?;
    let twice = probe.client.wait_for(event::OWN, QUIET_MICROS)?;
    Source::raise(&mut edu, 0);
    let again = probe.client.wait_for(event::OWN, PATIENCE_MICROS)?;
    edu.settle(0);
    probe.check(
        "comes_again",
        (after, once, twice, again) == (0, event::OWN, 0, event::OWN),
        format_args!(
            "{after:#x} while off, {once:#x} and {twice:#x} with the unmasking, {again:#x}"
        ),
    );
    interrupts.disable()
}

/// The event that a message was switched off, when it has come.
fn switched_off(probe: &Probe) -> Result<Option<u64>, Error> {
    while let Some(event) = probe.client.next_event()? {
        if event.kind == EventKind::MessageOff {
            return Ok(Some(event.detail));
        }
    }
    Ok(None)
}

/// Says all vectors, this one among them as it is now.
fn dump(probe: &Probe) -> Result<(), Error> {
    let info = probe.client.info();
    let inspector = Inspector::new(probe.platform, info).ok_or(Error::NotFound)?;
    let (mut programmed, mut off) = (false, false);
    let mut signals = heapless::String::<32>::new();
    // It fits.
    let _ = write!(signals, "signals {:#x},", event::OWN);
    let signals = signals.as_str();
    inspector.dump_interrupts(1, |line| {
        programmed |= line.contains("programmed:") && line.contains(", masked");
        off |= line.contains("switched off since") && line.contains(signals);
        probe.platform.log(format_args!("{line}"));
    })?;
    probe.check(
        "dumped",
        programmed && off,
        format_args!("its registers: {programmed}, its state: {off}"),
    );
    Ok(())
}
