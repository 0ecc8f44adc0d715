//! Does one device's trouble delay another's work? Two clients of the same
//! servers: `measured` times its operations at random moments, while
//! [`neighbour`] rests, has its device reset again and again (100 ms each),
//! asks without end, or has the device's drivers killed one after the other
//! ([`victim`]). Then the same again with one lock around all requests of
//! both, as other systems have it: what this project's shape is good for.
//!
//! An operation is timed from the call to the reply. On one core it may
//! besides begin late, because a server is in the middle of a turn, or the
//! supervisor takes a client down: that is the row `late`, which is told
//! and not judged.

pub mod neighbour;
pub mod victim;

use client::report::{check, metric};
use client::{ANY_IOVA, Access, Client, Device, Error, Mechanism, PagePreference, Platform, Width};
use sel4_client::turnstile::Turnstile;
use sel4_client::{SeL4Platform, ticks};
use system::info::{ChannelEnd, ClientInfo};
use system::layout::event;

/// The channel between the two.
const CHANNEL: &str = "beat";
/// Rounds of a phase, at most. A timer's interrupt falls into one operation in some hundreds, whoever asked for it: so
/// many rounds that a few of these do not decide the 99th percentile.
const ROUNDS: usize = 800;
/// With one lock operations outlast a neighbour's reset, so that these say enough.
const LOCKED_ROUNDS: usize = 200;
/// They outlast a driver's death as well: fewer still, or more drivers would be needed.
const LOCKED_KILL_ROUNDS: usize = 20;
/// Between two operations: at least, and at random that much more; divided by the phase's haste.
const PAUSE_MICROS: u64 = 500;
const SPREAD_MICROS: u64 = 2_000;
/// The neighbour is given that long to change its habit.
const PATIENCE_MICROS: u64 = 20_000_000;
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
    /// Drivers of these numbers are killed.
    Kill {
        first: u64,
        count: u64,
    },
}

/// A stretch of the run.
#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    habit: Habit,
    /// Do all requests go through the turnstile?
    locked: bool,
    rounds: usize,
    /// Pauses are divided by that: by more where the neighbour never rests, since every instruction of it is emulated.
    haste: u64,
}

impl Phase {
    const fn new(name: &'static str, habit: Habit) -> Self {
        Self {
            name,
            habit,
            locked: false,
            rounds: ROUNDS,
            haste: if matches!(habit, Habit::Flood) { 16 } else { 4 },
        }
    }

    const fn locked(self, rounds: usize) -> Self {
        Self {
            locked: true,
            rounds,
            haste: self.haste / 4,
            ..self
        }
    }
}

/// The phases, in order.
const PHASES: [Phase; 8] = [
    Phase::new("idle", Habit::Rest),
    Phase::new("reset", Habit::Reset),
    Phase::new("flood", Habit::Flood),
    Phase::new("kill", KILL),
    Phase::new("turnstile_idle", Habit::Rest).locked(LOCKED_ROUNDS),
    Phase::new("turnstile_flood", Habit::Flood).locked(LOCKED_ROUNDS),
    Phase::new("turnstile_kill", LOCKED_KILL).locked(LOCKED_KILL_ROUNDS),
    Phase::new("turnstile_reset", Habit::Reset).locked(LOCKED_ROUNDS),
];

const KILL: Habit = Habit::Kill {
    first: 0,
    count: 10,
};
/// Long enough after the other.
const LOCKED_KILL: Habit = Habit::Kill {
    first: 40,
    count: 16,
};

/// What is timed: one operation of each server, or a pair that leaves things as they were.
const OPERATIONS: [&str; 3] = ["config_read", "dma_map_unmap", "msi_enable_disable"];
/// How much later than asked for each of them begins, in the figures beside them.
const LATE: &str = "late";

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
    for (figures, step) in figures.iter_mut().zip(PHASES) {
        channel.signal();
        if client.wait_for(channel.flag(), PATIENCE_MICROS)? == 0 {
            return Err(Error::NotFound);
        }
        let name = step.name;
        let turnstile = step.locked.then_some(turnstile);
        let (spent, late) = phase(&client, &device, turnstile, &step)?;
        *figures = spent;
        let rows = OPERATIONS.into_iter().zip(spent);
        for (row, [median, most, greatest]) in rows.chain([(LATE, late)]) {
            platform.log(format_args!("@metric {name}.{row}.p50 {median}"));
            platform.log(format_args!("@metric {name}.{row}.p99 {most}"));
            platform.log(format_args!("@metric {name}.{row}.max {greatest}"));
        }
    }
    // The last phase is over, too.
    channel.signal();
    let [
        idle,
        reset,
        flood,
        kill,
        locked_idle,
        _,
        locked_kill,
        locked_reset,
    ] = figures;
    for (name, phase) in [
        ("reset_delays_nobody", reset),
        ("flood_delays_nobody", flood),
        ("deaths_delay_nobody", kill),
    ] {
        let percent = worst(&phase, &idle);
        check(
            platform,
            name,
            percent <= ALLOWED,
            format_args!("p50 and p99 of {OPERATIONS:?} at most {percent} % of the idle ones"),
        );
    }
    for (name, key, phase) in [
        (
            "a_turnstile_would_delay",
            "turnstile_reset_percent",
            locked_reset,
        ),
        (
            "a_turnstile_would_delay_by_deaths",
            "turnstile_kill_percent",
            locked_kill,
        ),
    ] {
        let percent = worst(&phase, &locked_idle);
        metric(platform, key, percent);
        check(
            platform,
            name,
            percent >= 10 * ALLOWED,
            format_args!("with one lock around all requests up to {percent} % of the idle ones"),
        );
    }
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

/// One phase: the operations in turn, at random moments. How long they took, and how late they began.
fn phase(
    client: &OurClient,
    device: &OurDevice<'_>,
    turnstile: Option<Turnstile>,
    step: &Phase,
) -> Result<(Figures, [u64; 3]), Error> {
    let buffer = client.buffer(4096, PagePreference::Small)?;
    let mut spent = [[0; ROUNDS]; OPERATIONS.len()];
    let mut late = [0; OPERATIONS.len() * ROUNDS];
    let rounds = step.rounds.min(ROUNDS);
    for round in 0..rounds {
        for (operation, spent) in spent.iter_mut().enumerate() {
            let pause = (PAUSE_MICROS + ticks() % SPREAD_MICROS) / step.haste;
            let began = ticks();
            client.wait_for(0, pause)?;
            // Under instruction counting a tick is a nanosecond.
            late[OPERATIONS.len() * round + operation] =
                (ticks() - began).saturating_sub(1_000 * pause);
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
    let spent = spent.map(|mut spent| three(&mut spent[..rounds]));
    Ok((spent, three(&mut late[..OPERATIONS.len() * rounds])))
}

/// Median, 99th percentile, greatest.
fn three(values: &mut [u64]) -> [u64; 3] {
    values.sort_unstable();
    let count = values.len();
    let at = |index: usize| values.get(index).copied().unwrap_or(u64::MAX);
    [
        at(count / 2),
        at(count * 99 / 100),
        at(count.wrapping_sub(1)),
    ]
}
