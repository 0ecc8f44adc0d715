//! Does one device's trouble delay another's work? Two clients of the same
//! servers: `measured` times its operations at random moments, while
//! `neighbour` rests, has its device reset again and again (100 ms each), or
//! asks without end. Then the same again with one lock around all requests of
//! both, as other systems have it: what this project's shape is good for.
//!
//! An operation is timed from the call to the reply. On one core a request may
//! besides find its server in the middle of a turn: the servers count their
//! longest (`Turns`).

use client::report::{check, metric};
use client::{ANY_IOVA, Access, Client, Device, Error, Mechanism, PagePreference, Platform, Width};
use sel4_client::turnstile::Turnstile;
use sel4_client::{SeL4Platform, ticks};
use system::info::{ChannelEnd, ClientInfo};
use system::layout::event;

/// The channel between the two.
const CHANNEL: &str = "beat";
/// Rounds of a phase.
const ROUNDS: usize = 200;
/// Between two operations: at least, and at random that much more.
const PAUSE_MICROS: u64 = 500;
const SPREAD_MICROS: u64 = 2_000;
/// The neighbour is given that long to change its habit.
const PATIENCE_MICROS: u64 = 2_000_000;
/// What is allowed of the idle figures, in percent.
const ALLOWED: u64 = 110;

type OurClient = Client<'static, SeL4Platform>;
type OurDevice<'c> = Device<'c, 'static, SeL4Platform>;

/// What the neighbour does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Rest,
    Reset,
    Flood,
}

/// The phases, in order, and whether all requests go through the turnstile.
const PHASES: [(&str, Habit, bool); 5] = [
    ("idle", Habit::Rest, false),
    ("reset", Habit::Reset, false),
    ("flood", Habit::Flood, false),
    ("turnstile_idle", Habit::Rest, true),
    ("turnstile_reset", Habit::Reset, true),
];

/// What is timed: one operation of each server, or a pair that leaves things as they were.
const OPERATIONS: [&str; 3] = ["config_read", "dma_map_unmap", "msi_enable_disable"];

/// Median, the value that 99 of 100 are not above, and the greatest, of each operation.
type Figures = [[u64; 3]; 3];

/// Where this PD's end of the channel keeps what is handed over.
fn end(info: &'static ClientInfo) -> Result<&'static ChannelEnd, Error> {
    let mut ends = info.channels.iter();
    ends.find(|end| end.name == CHANNEL).ok_or(Error::NotFound)
}

/// The client that is timed.
///
/// # Errors
/// A refusal; or the neighbour does not answer.
pub fn measured(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let channel = client.channel(CHANNEL).ok_or(Error::NotFound)?;
    let run = client.window().take(1).ok_or(Error::WindowFull(1))?;
    let turnstile = Turnstile::new(platform, run.first)?;
    platform.post(end(info)?.mailbox.into(), place(end(info)?.side), run.first)?;

    let found = client.devices().next().ok_or(Error::NotFound)??;
    let device = client.assign(found.device)?;
    platform.log(format_args!("@assigned {}", device.address()));
    let mut figures = [Figures::default(); PHASES.len()];
    for (figures, (name, _, locked)) in figures.iter_mut().zip(PHASES) {
        channel.signal();
        if client.wait_for(channel.flag(), PATIENCE_MICROS)? == 0 {
            return Err(Error::NotFound);
        }
        *figures = phase(&client, &device, locked.then_some(turnstile))?;
        for (operation, [median, most, greatest]) in OPERATIONS.into_iter().zip(*figures) {
            platform.log(format_args!("@metric {name}.{operation}.p50 {median}"));
            platform.log(format_args!("@metric {name}.{operation}.p99 {most}"));
            platform.log(format_args!("@metric {name}.{operation}.max {greatest}"));
        }
    }
    // The last phase is over, too.
    channel.signal();
    let [idle, reset, flood, locked_idle, locked_reset] = figures;
    for (name, phase) in [
        ("reset_delays_nobody", reset),
        ("flood_delays_nobody", flood),
    ] {
        let percent = worst(&phase, &idle);
        check(
            platform,
            name,
            percent <= ALLOWED,
            format_args!("p50 and p99 of {OPERATIONS:?} at most {percent} % of the idle ones"),
        );
    }
    let percent = worst(&locked_reset, &locked_idle);
    metric(platform, "turnstile_reset_percent", percent);
    check(
        platform,
        "a_turnstile_would_delay",
        percent >= 10 * ALLOWED,
        format_args!("with one lock around all requests up to {percent} % of the idle ones"),
    );
    device.release()
}

/// The greatest ratio of medians or of 99th percentiles, in percent.
fn worst(phase: &Figures, idle: &Figures) -> u64 {
    let pairs = phase.iter().flatten().zip(idle.iter().flatten());
    // The greatest of each operation is chance: the third of three.
    let pairs = pairs.enumerate().filter(|(at, _)| at % 3 != 2);
    let percents = pairs.map(|(_, (now, then))| (now * 100).div_ceil((*then).max(1)));
    percents.max().unwrap_or(u64::MAX)
}

fn place(side: u8) -> u16 {
    u16::from(side) * client::POSTED_MAX
}

/// One phase: the operations in turn, at random moments.
fn phase(
    client: &OurClient,
    device: &OurDevice<'_>,
    turnstile: Option<Turnstile>,
) -> Result<Figures, Error> {
    let buffer = client.buffer(4096, PagePreference::Small)?;
    let mut spent = [[0; ROUNDS]; 3];
    for round in 0..ROUNDS {
        for (operation, spent) in spent.iter_mut().enumerate() {
            client.wait_for(0, PAUSE_MICROS + ticks() % SPREAD_MICROS)?;
            let work = || match operation {
                0 => device.config_read(0, Width::Dword).map(drop),
                1 => buffer
                    .map(ANY_IOVA, Access::ReadWrite)
                    .and_then(|_| buffer.unmap()),
                _ => device
                    .enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)
                    .and_then(|interrupts| interrupts.disable()),
            };
            let start = ticks();
            match turnstile {
                Some(turnstile) => turnstile.through(work)?,
                None => work()?,
            }
            spent[round] = ticks() - start;
        }
    }
    Ok(spent.map(|mut spent| {
        spent.sort_unstable();
        [
            spent[ROUNDS / 2],
            spent[ROUNDS * 99 / 100],
            spent[ROUNDS - 1],
        ]
    }))
}

/// The client whose device is in trouble.
///
/// # Errors
/// A refusal; or the one that is timed does not speak.
pub fn neighbour(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let channel = client.channel(CHANNEL).ok_or(Error::NotFound)?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let device = client.assign(found.device)?;
    let run = client.window().take(1).ok_or(Error::WindowFull(1))?;
    let mut turnstile = None;
    let mut done = [0u32; 2];
    if client.wait_for(channel.flag(), PATIENCE_MICROS)? == 0 {
        return Err(Error::NotFound);
    }
    for (_, habit, locked) in PHASES {
        if turnstile.is_none() {
            let end = end(info)?;
            platform.fetch(end.mailbox.into(), place(1 - end.side), run.first)?;
            turnstile = Some(Turnstile::received(run.first));
        }
        channel.signal();
        // Until the next phase begins.
        loop {
            let work = || match habit {
                Habit::Rest => Ok(()),
                Habit::Reset => device.reset().map(drop),
                Habit::Flood => device.config_read(0, Width::Dword).map(drop),
            };
            match (habit, turnstile.filter(|_| locked)) {
                (Habit::Rest, _) => {
                    let _ = client.wait();
                    break;
                }
                (_, Some(turnstile)) => turnstile.through(work)?,
                (_, None) => work()?,
            }
            done[usize::from(habit == Habit::Flood)] += 1;
            if platform.poll() & channel.flag() != 0 {
                break;
            }
        }
    }
    let [resets, reads] = done;
    check(
        platform,
        "was_in_the_way",
        resets > 4 && reads > 1_000,
        format_args!("{resets} resets, {reads} requests in a row"),
    );
    device.release()
}
