//! Clients on several cores that contend for devices, and are killed one after another at random moments of their cycles, as
//! the servers find them: whoever has a device next finds it as it should be, and in the end nothing is left.

use client::{Error, Rule, Sbdf, report};
use system::layout::event;

use crate::Probe;
use crate::cycles::{Cycle, Last, Turn};
use crate::standing::Observer;

/// Between two looks whether a device is free.
const AGAIN_MICROS: u64 = 100;
/// How long a device may take to be free after its holder's death.
const PATIENCE_MICROS: u64 = 10_000_000;
/// Longest life of a victim after the one before, in microseconds.
const LIFE_MICROS: u64 = 4_000;
/// Victims are named so, and a number.
const VICTIM: &str = "victim-";
/// The one message's flag.
const FLAG: u64 = event::OWN;

/// Is it that somebody else has the device, or that it is on its way from one to the other?
fn is_contended(error: &Error) -> bool {
    matches!(error.rule(), Some(Rule::HeldByAnother | Rule::DeviceBusy))
}

/// Goes through cycles with a device until it is killed.
pub fn victim(probe: &Probe) -> Result<(), Error> {
    let cycle = Cycle::new(probe)?;
    for number in 0u64.. {
        let last = match number % 2 {
            0 => Last::Disable,
            _ => Last::Release,
        };
        match cycle.turn(last) {
            Ok(Turn::GOOD) if number == 0 => {
                probe.check("works", true, format_args!("the first time"));
            }
            Ok(Turn::GOOD) => {}
            Ok(turn) => probe.check("own_messages_only", false, format_args!("{turn:x?}")),
            Err(error) if is_contended(&error) => {
                let came = probe.client.wait_for(FLAG, AGAIN_MICROS)?;
                if came != 0 {
                    probe.check("own_messages_only", false, format_args!("{came:#x} came"));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A number that is hard to foresee, of a known sequence.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// Kills all victims, each at a random moment, and takes the device that it had or wanted.
pub fn run(probe: &Probe, victims: u64) -> Result<(), Error> {
    let client = &probe.client;
    let observer = Observer::new(client)?;
    let supervisor = client.supervisor();
    let mut dice = Dice(2026);
    let devices = || {
        client
            .devices()
            .filter_map(Result::ok)
            .map(|found| found.device)
    };
    let count = devices().count() as u64;
    // Everybody has had a turn.
    client.wait_for(0, 20 * LIFE_MICROS)?;
    let (mut killed, mut held, mut good) = (0, 0, 0);
    let pds = client.info().pds.iter();
    for (name, pd) in pds.filter(|(name, _)| name.starts_with(VICTIM)) {
        client.wait_for(0, 1 + dice.below(LIFE_MICROS))?;
        let all = || devices().filter_map(|device| observer.holding(device).ok().flatten());
        held += u64::from(all().any(|(holder, _)| holder == name.as_str()));
        supervisor.kill(*pd)?;
        killed += 1;
        let device = devices().nth(dice.below(count) as usize);
        let device = device.ok_or(Error::NotFound)?;
        good += u64::from(turn(probe, device)?);
    }
    // All are dead: none contends any more.
    for device in devices() {
        good += u64::from(turn(probe, device)?);
    }
    probe.check(
        "next_holder",
        killed == victims && good == victims + count,
        format_args!(
            "{killed} of {victims} killed, {held} of them seen with a device just before; {good} good cycles after"
        ),
    );
    let standing = observer.standing()?;
    let figures = standing.figures;
    probe.check(
        "nothing_left",
        standing.is_without_messages() && figures.devices == [0, 0] && figures.parked == 0,
        format_args!("{figures:?}"),
    );
    report::metric(probe.platform, "killed", killed);
    Ok(())
}

/// A cycle with a device that others may have for a while.
fn turn(probe: &Probe, device: Sbdf) -> Result<bool, Error> {
    let cycle = Cycle::of(probe, device)?;
    let timer = probe.client.timer();
    let deadline = timer.now()?.micros + PATIENCE_MICROS;
    loop {
        match cycle.turn(Last::Disable) {
            Ok(turn) => return Ok(turn == Turn::GOOD),
            Err(error) if is_contended(&error) && timer.now()?.micros < deadline => {
                probe.client.wait_for(0, AGAIN_MICROS)?;
            }
            Err(error) => return Err(error),
        }
    }
}
