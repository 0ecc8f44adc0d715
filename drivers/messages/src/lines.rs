//! Interrupt lines: the teaching device raises its pin where it sends no messages.
//!
//! `work`: every interrupt arrives; `witness`: raises nothing, and is told of what others on the line raise. `silent`: never acknowledges, and is taken off it.
//! `storm`: raises it as fast as it can, and is taken off it.

use client::{Error, EventKind, Line, Mechanism, Mmio, Platform, Rule};
use edu_driver::{DEVICE, Edu, VENDOR};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::Probe;
use crate::sources::Card;

/// Interrupts that one who works raises.
const ROUNDS: u32 = 2_000;
/// Interrupts of others that a witness waits for.
const SEEN: u32 = 500;
/// Most that one who storms raises.
const STORM: u32 = 200_000;
/// An interrupt that has not come by then is lost: more than a silent neighbour can hold it up.
const PATIENCE_MICROS: u64 = 2_000_000;
const QUIET_MICROS: u64 = 20_000;

type Pin<'d, 'c> = Line<'d, 'c, 'static, SeL4Platform>;

/// What the arguments ask for.
pub fn run(probe: &Probe, what: &str) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar(0)?);
    probe
        .platform
        .log(format_args!("@assigned {}", device.address()));
    match what {
        "work" => work(probe, &device, &mut edu),
        "witness" => witness(probe, &device, &edu),
        "silent" => silent(probe, &device, &mut edu),
        "storm" => storm(probe, &device, &mut edu),
        _ => Err(Error::NotFound),
    }
}

/// Looks at the device each time the line comes, until it is what was raised; how often that was another's.
fn arrival<M: Mmio>(
    probe: &Probe,
    line: &Pin<'_, '_>,
    edu: &mut Edu<M>,
) -> Result<(bool, u32), Error> {
    let mut others = 0;
    loop {
        if probe.client.wait_for(event::LINE, PATIENCE_MICROS)? == 0 {
            return Ok((false, others));
        }
        let raised = edu.raised();
        edu.acknowledge(raised);
        line.acknowledge()?;
        if raised != 0 {
            return Ok((true, others));
        }
        others += 1;
    }
}

fn work<M: Mmio>(probe: &Probe, device: &Card<'_>, edu: &mut Edu<M>) -> Result<(), Error> {
    let line = device.enable_line()?;
    let number = line.number();
    let messages = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN);
    let refused = messages.err().and_then(|error| error.rule());
    let (mut arrived, mut others) = (0, 0);
    for _ in 0..ROUNDS {
        edu.raise(1);
        let (came, of_others) = arrival(probe, &line, edu)?;
        arrived += u32::from(came);
        others += of_others;
        if !came {
            break;
        }
    }
    probe.check(
        "each_interrupt_arrives",
        arrived == ROUNDS,
        format_args!("{arrived} of {ROUNDS} on line {number}, {others} of others"),
    );
    probe.check(
        "not_with_messages",
        refused == Some(Rule::InterruptsEnabled),
        format_args!("{refused:?}"),
    );
    line.disable()?;
    edu.raise(1);
    // What the others raise may still come.
    let mut came = probe.client.wait_for(event::LINE, QUIET_MICROS)?;
    // Enabled again, the pin is raised at once: it is a level.
    let line = device.enable_line()?;
    let (again, _) = arrival(probe, &line, edu)?;
    line.disable()?;
    // Messages instead.
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(client::Switch::On)?;
    edu.raise(1);
    came |= probe
        .client
        .wait_for(event::OWN | event::LINE, PATIENCE_MICROS)?;
    edu.acknowledge(1);
    interrupts.disable()?;
    probe.check(
        "off_and_on",
        came & !event::LINE == event::OWN && again,
        format_args!("off {came:#x}, on again {again}"),
    );
    Ok(())
}

fn witness<M: Mmio>(probe: &Probe, device: &Card<'_>, edu: &Edu<M>) -> Result<(), Error> {
    let line = device.enable_line()?;
    let (mut seen, mut own) = (0, 0);
    while seen < SEEN && probe.client.wait_for(event::LINE, PATIENCE_MICROS)? != 0 {
        own += u32::from(edu.raised() != 0);
        seen += 1;
        line.acknowledge()?;
    }
    probe.check(
        "told_of_others",
        seen == SEEN && own == 0,
        format_args!("{seen} interrupts of others, {own} of its own"),
    );
    line.disable()
}

/// The event that the line was taken away, when it has come.
fn taken_off(probe: &Probe) -> Result<Option<u64>, Error> {
    while let Some(event) = probe.client.next_event()? {
        if event.kind == EventKind::LineOff {
            return Ok(Some(event.detail));
        }
    }
    Ok(None)
}

fn silent<M: Mmio>(probe: &Probe, device: &Card<'_>, edu: &mut Edu<M>) -> Result<(), Error> {
    let line = device.enable_line()?;
    edu.raise(1);
    let told = probe.client.wait_for(event::DEVICE, PATIENCE_MICROS)?;
    let detail = taken_off(probe)?;
    let late = line.acknowledge().err().and_then(|error| error.rule());
    probe.check(
        "taken_off",
        told != 0 && detail == Some(0) && late == Some(Rule::NotOnLine),
        format_args!("told {detail:?}, acknowledging it now is refused: {late:?}"),
    );
    Ok(())
}

fn storm<M: Mmio>(probe: &Probe, device: &Card<'_>, edu: &mut Edu<M>) -> Result<(), Error> {
    let line = device.enable_line()?;
    let mut raised = 0;
    let mut detail = None;
    // It stays raised: it comes again as soon as it is acknowledged.
    edu.raise(1);
    while raised < STORM && detail.is_none() {
        let came = probe.client.wait();
        raised += u32::from(came & event::LINE != 0);
        if came & event::DEVICE != 0 {
            detail = taken_off(probe)?;
        }
        // Refused when it was taken off meanwhile.
        let _ = line.acknowledge();
    }
    let after = probe.client.wait_for(event::LINE, QUIET_MICROS)?;
    probe.check(
        "storm_ended",
        detail.is_some_and(|times| times > 0) && after == 0,
        format_args!("after {raised} interrupts in a row: {detail:?}, {after:#x} after that"),
    );
    Ok(())
}
