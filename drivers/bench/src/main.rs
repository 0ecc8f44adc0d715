//! What each operation costs, as a client sees it, in ticks of the time-stamp
//! counter. Under instruction counting one tick is one guest instruction;
//! without it the figures mean nothing and are marked so by the run's report.
//!
//! Needs an edu device and nothing else to do meanwhile. Prints the median of
//! [`ROUNDS`] rounds (`<row>`) and the least (`<row>.min`).

#![no_std]
#![no_main]

use client::report::{check, metric};
use client::{ANY_IOVA, Access, Client, Error, Mechanism, PagePreference, Platform, Switch, Width};
use edu_driver::{DEVICE, Edu, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

sel4_client::program!(main);

/// Rounds that count; as many again, a tenth, warm up.
const ROUNDS: usize = 200;
const WARM_UP: usize = ROUNDS / 10;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = run(platform, info);
    let detail = outcome.as_ref().err();
    check(
        platform,
        "bench",
        outcome.is_ok(),
        format_args!("{ROUNDS} rounds a row, {detail:?}"),
    );
    u32::from(outcome.is_err())
}

/// Collected ticks of one row.
struct Row {
    ticks: [u64; ROUNDS],
    round: usize,
}

impl Row {
    const fn new() -> Self {
        Self {
            ticks: [0; ROUNDS],
            round: 0,
        }
    }

    /// Runs and times one round; warm-up rounds do not count.
    #[inline(always)]
    fn time<T>(&mut self, overhead: u64, work: impl FnOnce() -> T) -> T {
        let start = sel4_client::ticks();
        let result = work();
        let spent = sel4_client::ticks() - start;
        if let Some(cell) = self
            .round
            .checked_sub(WARM_UP)
            .and_then(|at| self.ticks.get_mut(at))
        {
            *cell = spent.saturating_sub(overhead);
        }
        self.round += 1;
        result
    }

    fn report(mut self, platform: &SeL4Platform, key: &str) {
        self.ticks.sort_unstable();
        let median = self.ticks[ROUNDS / 2];
        platform.log(format_args!("@metric {key} {median}"));
        platform.log(format_args!("@metric {key}.min {}", self.ticks[0]));
    }
}

const ALL: usize = ROUNDS + WARM_UP;

fn run(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let mut empty = Row::new();
    (0..ALL).for_each(|_| empty.time(0, || ()));
    let overhead = empty.ticks.into_iter().min().unwrap_or(0);
    metric(platform, "timer_overhead", overhead);

    let (mut assign, mut release) = (Row::new(), Row::new());
    for _ in 0..ALL {
        let device = assign.time(overhead, || client.assign(found.device))?;
        release.time(overhead, || device.release())?;
    }
    assign.report(platform, "assign");
    release.report(platform, "release");

    let device = client.assign_ids(VENDOR, DEVICE)?;
    platform.log(format_args!("@assigned {}", device.address()));
    let mut row = Row::new();
    for _ in 0..ALL {
        row.time(overhead, || device.config_read(0, Width::Dword))?;
    }
    row.report(platform, "config_read32");

    let buffer = client.buffer(4096, PagePreference::Small)?;
    let (mut map, mut unmap) = (Row::new(), Row::new());
    for _ in 0..ALL {
        map.time(overhead, || buffer.map(ANY_IOVA, Access::ReadWrite))?;
        unmap.time(overhead, || buffer.unmap())?;
    }
    map.report(platform, "dma_map_4k");
    unmap.report(platform, "dma_unmap_4k");

    let (mut enable, mut disable) = (Row::new(), Row::new());
    for _ in 0..ALL {
        let interrupts = enable.time(overhead, || {
            device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)
        })?;
        disable.time(overhead, || interrupts.disable())?;
    }
    enable.report(platform, "msi_enable");
    disable.report(platform, "msi_disable");

    let mut edu = Edu(device.map_bar(0)?);
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    let mut latency = Row::new();
    let mut came = 0;
    for _ in 0..ALL {
        let flags = latency.time(overhead, || {
            edu.raise(1);
            client.wait()
        });
        came += u32::from(flags & event::OWN != 0);
        edu.acknowledge(1);
    }
    latency.report(platform, "irq_latency");
    check(
        platform,
        "interrupts_came",
        came == ALL as u32,
        format_args!("{came} of {ALL}"),
    );
    interrupts.disable()
}
