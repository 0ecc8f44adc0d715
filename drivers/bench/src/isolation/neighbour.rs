//! The client whose device is in trouble, in one habit after the other.

use client::report::{check, metric};
use client::{Client, DeviceState, Error, Platform, Sbdf, Width};
use sel4_client::turnstile::Turnstile;
use sel4_client::{SeL4Platform, ticks};
use system::info::ClientInfo;

use super::victim::{slot, until};
use super::{CHANNEL, Habit, OurClient, PATIENCE_MICROS, PHASES, end, place};

/// A driver works that long before it is killed, and at random that much longer.
const LIFE_MICROS: u64 = 200;
const LIFE_SPREAD_MICROS: u64 = 10_000;
/// The reset of a device whose driver died takes at least that long: no look is worth it before.
const RESET_MICROS: u64 = 100_000;
/// Between two looks at whose the device is: seldom, since the timer's interrupt is an interruption itself.
const LOOK_MICROS: u64 = 5_000;
/// Such looks: the device is reset meanwhile.
const LOOKS: u32 = 200;
/// What was in the way, at least.
const RESETS: u32 = 4;
const REQUESTS: u32 = 1_000;
const DEATHS: u32 = 12;

/// The drivers that are killed one after the other.
struct Victims<'a> {
    client: &'a OurClient,
    device: Sbdf,
    /// The flag that ends a phase, and whether it has come.
    flag: u64,
    over: bool,
}

impl Victims<'_> {
    fn pause(&mut self, micros: u64) -> Result<(), Error> {
        self.over |= self.client.wait_for(self.flag, micros)? != 0;
        Ok(())
    }

    /// Waits until the device is in this state.
    fn until(&mut self, state: DeviceState) -> Result<(), Error> {
        let port = self.client.pci(self.client.shard_of(self.device)?);
        for _ in 0..LOOKS {
            if port.query(self.device)?.state == state {
                return Ok(());
            }
            self.pause(LOOK_MICROS)?;
        }
        Err(Error::NotFound)
    }

    /// Kills driver `number`, whose PD is `pd`, when it works with the device, and has the device taken back. Where there
    /// is one lock, whoever takes it back holds the lock as long as that takes.
    fn kill(&mut self, number: u64, pd: u16, turnstile: Option<Turnstile>) -> Result<(), Error> {
        let now = self.client.timer().now()?.micros;
        if let Some(left) = slot(number).checked_sub(now) {
            self.pause(left)?;
        }
        self.until(DeviceState::Assigned)?;
        self.pause(LIFE_MICROS + ticks() % LIFE_SPREAD_MICROS)?;
        let supervisor = self.client.supervisor();
        let mut end = || {
            supervisor.kill(pd)?;
            self.pause(RESET_MICROS)?;
            self.until(DeviceState::Quarantined)
        };
        match turnstile {
            Some(turnstile) => turnstile.through(end),
            None => end(),
        }
    }
}

/// What the neighbour has done.
#[derive(Default)]
struct Done {
    resets: u32,
    requests: u32,
    deaths: u32,
}

/// The neighbour.
///
/// # Errors
/// A refusal; or the one that is timed does not speak.
pub fn run(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let channel = client.channel(CHANNEL).ok_or(Error::NotFound)?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let mut victims = Victims {
        client: &client,
        device: found.device,
        flag: channel.flag(),
        over: false,
    };
    let run = client.window().take(1).ok_or(Error::WindowFull(1))?;
    let mut turnstile = None;
    let mut done = Done::default();
    if client.wait_for(channel.flag(), PATIENCE_MICROS)? == 0 {
        return Err(Error::NotFound);
    }
    for phase in PHASES {
        let turnstile = match turnstile {
            Some(turnstile) => turnstile,
            None => {
                let end = end(info)?;
                platform.fetch(end.mailbox.into(), place(1 - end.side), run.first)?;
                *turnstile.insert(Turnstile::received(run.first))
            }
        };
        let turnstile = phase.locked.then_some(turnstile);
        if let Habit::Kill { first, count } = phase.habit {
            until(&client, slot(first))?;
            channel.signal();
            victims.over = false;
            // All of them: whoever is left would work on in the next phase.
            for number in first..first + count {
                victims.kill(number, pd_of(info, number)?, turnstile)?;
                done.deaths += 1;
            }
            while !victims.over {
                victims.pause(PATIENCE_MICROS)?;
            }
            continue;
        }
        let device = client.assign(found.device)?;
        channel.signal();
        // Until the next phase begins.
        loop {
            let mut work = || match phase.habit {
                Habit::Reset => {
                    done.resets += 1;
                    device.reset().map(drop)
                }
                _ => {
                    done.requests += 1;
                    device.config_read(0, Width::Dword).map(drop)
                }
            };
            match (phase.habit, turnstile) {
                (Habit::Rest, _) => {
                    let _ = client.wait();
                    break;
                }
                (_, Some(turnstile)) => turnstile.through(work)?,
                (_, None) => work()?,
            }
            if client.poll(channel.flag()) != 0 {
                break;
            }
        }
        device.release()?;
    }
    let Done {
        resets,
        requests,
        deaths,
    } = done;
    metric(platform, "deaths", deaths.into());
    check(
        platform,
        "was_in_the_way",
        resets > RESETS && requests > REQUESTS && deaths > DEATHS,
        format_args!("{resets} resets, {requests} requests in a row, {deaths} drivers killed"),
    );
    Ok(())
}

/// The PD of driver `number`: `victim-<number>`.
fn pd_of(info: &'static ClientInfo, number: u64) -> Result<u16, Error> {
    let is_it = |name: &str| {
        let digits = name.strip_prefix("victim-");
        digits.and_then(|digits| digits.parse().ok()) == Some(number)
    };
    let found = info.pds.iter().find(|(name, _)| is_it(name));
    found.map(|(_, pd)| *pd).ok_or(Error::NotFound)
}
