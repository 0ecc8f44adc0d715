//! Messages that are on their way when their vector is taken back: raised for another core, which has not taken them when the
//! vector is free again, or another device's. Whoever had it does not wait for them any more, and whoever has it next never
//! sees one: the msi-server absorbs and counts them.
//!
//! Needs two teaching devices, two vectors, the right to look, and more than one core. Each message is raised alone, so every
//! one is counted: it arrives at the device's holder before the message is disabled, or is absorbed.

use client::{Error, Mechanism, Platform, Switch, report};
use edu_driver::{DEVICE, Edu, VENDOR};
use system::layout::event;

use crate::Probe;
use crate::standing::Observer;

/// Messages on their way, for each kind of end.
const ROUNDS: u32 = 300;
/// How long a message may be on its way.
const ARRIVES_MICROS: u64 = 1_000;
/// Looks for it, at most.
const LOOKS: u32 = 50;
/// Flags of the device whose vector is taken back, and of the next that has it.
const FIRST: u64 = event::OWN;
const NEXT: u64 = event::OWN << 1;

/// Where messages that were raised went.
#[derive(Debug, Default)]
struct Tally {
    raised: u64,
    /// To the device's holder, before it was disabled or while it was.
    arrived: u64,
    absorbed: u64,
    /// To the next device's holder, who had raised nothing.
    astray: u64,
    /// Rounds in which the next had the same vector.
    same: u64,
    /// The next one's own messages, and those that came.
    own: (u64, u64),
}

/// Raises messages and takes their vectors back.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let observer = Observer::new(client)?;
    let ids = u32::from(DEVICE) << 16 | u32::from(VENDOR);
    let mut found = client.devices().filter_map(Result::ok);
    let mut next = || found.find(|found| found.ids == ids).ok_or(Error::NotFound);
    let (first, second) = (
        client.assign(next()?.device)?,
        client.assign(next()?.device)?,
    );
    probe
        .platform
        .log(format_args!("@assigned {}", first.address()));
    let mut edu = Edu(first.map_bar_pages(0, 0, 1)?);
    let mut other = Edu(second.map_bar_pages(0, 0, 1)?);
    first.bus_master(Switch::On)?;
    second.bus_master(Switch::On)?;
    let before = observer.standing()?;
    let mut tally = Tally::default();
    for round in 0..ROUNDS {
        let core = 1 + (round % u32::from(probe.cores - 1)) as u8;
        let start = observer.absorbed()?;
        let interrupts = first.enable_interrupts(Mechanism::Msi, 0, 1, FIRST)?;
        interrupts.move_to(0, 1, core)?;
        let vector = observer.vector(first.address())?;
        edu.raise(1);
        tally.raised += 1;
        interrupts.disable()?;
        let interrupts = second.enable_interrupts(Mechanism::Msi, 0, 1, NEXT)?;
        tally.same += u64::from(vector.is_some() && observer.vector(second.address())? == vector);
        let mut came = 0;
        let mut absorbed = 0;
        for _ in 0..LOOKS {
            came |= client.poll(FIRST | NEXT);
            absorbed = observer.absorbed()? - start;
            if came != 0 || absorbed != 0 {
                break;
            }
            came |= client.wait_for(FIRST | NEXT, ARRIVES_MICROS)?;
        }
        tally.arrived += u64::from(came & FIRST != 0);
        tally.astray += u64::from(came & NEXT != 0);
        tally.absorbed += absorbed;
        edu.acknowledge(1);
        other.raise(1);
        tally.own.0 += 1;
        tally.own.1 += u64::from(client.wait_for(NEXT, 1_000_000)? == NEXT);
        other.acknowledge(1);
        interrupts.disable()?;
    }
    let rounds = u64::from(ROUNDS);
    probe.check(
        "each_is_accounted_for",
        tally.raised == rounds && tally.arrived + tally.absorbed == rounds,
        format_args!(
            "{} raised: {} arrived before their end, {} absorbed",
            tally.raised, tally.arrived, tally.absorbed
        ),
    );
    probe.check(
        "none_reaches_the_next",
        tally.astray == 0 && tally.same == rounds && tally.own == (rounds, rounds),
        format_args!(
            "the next had the same vector {} times, {} messages of others, {} of its own {}",
            tally.same, tally.astray, tally.own.1, tally.own.0
        ),
    );
    report::metric(probe.platform, "absorbed", tally.absorbed);
    let after = observer.standing()?;
    probe.check(
        "as_at_the_start",
        after.is_as(&before, probe.platform),
        format_args!("{:?}", after.figures),
    );
    Ok(())
}
