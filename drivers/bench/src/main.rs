//! What each operation costs, as a client sees it, in ticks of the time-stamp
//! counter. Under instruction counting one tick is one guest instruction;
//! without it the figures mean nothing and are marked so by the run's report.
//!
//! Needs an edu device with large frames, the right to look, and nothing else
//! to do meanwhile. With the arguments `measured`, `neighbour` and `victim`: see [`isolation`]; with `scale`: see [`scale`].
//!
//! Each row tells the median of [`row::ROUNDS`] rounds
//! (`<row>`), the least (`<row>.min`) and their number (`<row>.n`). The names
//! are those of `images/figures/rows.toml`, which has the goals.

#![no_std]
#![no_main]

mod demand;
mod device;
mod footprint;
mod isolation;
mod memory;
mod row;
mod scale;

use client::report::{check, metric};
use client::{Client, Error, Inspector, Turns};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

use row::ALL;

sel4_client::program!(main);

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let arguments = info.args.as_str();
    let outcome = match arguments.split_once(' ').unwrap_or((arguments, "")) {
        ("measured", _) => isolation::measured(platform, info),
        ("neighbour", _) => isolation::neighbour::run(platform, info),
        ("scale", _) => scale::run(platform, info),
        ("victim", number) => isolation::victim::run(platform, info, number),
        _ => run(platform, info),
    };
    let detail = outcome.as_ref().err();
    check(
        platform,
        "bench",
        outcome.is_ok(),
        format_args!("{} rounds a row, {detail:?}", row::ROUNDS),
    );
    u32::from(outcome.is_err())
}

fn run(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let inspector = Inspector::new(platform, info).ok_or(Error::NotFound)?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    footprint::first_use(&client, &inspector, found.device)?;

    let overhead = row::overhead();
    metric(platform, "timer_overhead", overhead);
    device::assignment(&client, found.device, overhead)?;
    device::usable(&client, found.device, overhead)?;
    demand::all(&client, &inspector, found.device)?;
    let held = client.assign(found.device)?;
    device::configuration(platform, &held, overhead)?;
    device::bar(platform, &held, overhead)?;
    memory::mapping(&client, overhead)?;
    memory::allocation(&client, overhead)?;
    device::interrupts(&client, &held, overhead)?;
    counters(&client, &inspector)?;
    // After the counters: no row has turns as long as these.
    demand::large_buffers(&client, &inspector)
}

/// What each shard has counted meanwhile: every operation of the rows is in it.
fn counters(
    client: &Client<'static, SeL4Platform>,
    inspector: &Inspector<'static, SeL4Platform>,
) -> Result<(), Error> {
    let platform = client.platform();
    let tell = |shard: &str, operations: u64, turns: Turns| {
        metric(platform, shard, operations);
        let Turns {
            ticks,
            longest,
            kernel_calls,
            kernel_ticks,
            requests,
        } = turns;
        let mean = ticks.checked_div(operations).unwrap_or(0);
        // The kernel was called for some of the turns, and in them.
        let in_kernel = kernel_calls > ALL as u64 && (1..ticks).contains(&kernel_ticks);
        let ok = operations > ALL as u64 && mean > 0 && longest >= mean && longest < ticks;
        check(
            platform,
            "counters",
            ok && in_kernel,
            format_args!(
                "{shard} {operations}, {mean} ticks each, the longest turn {longest}; {kernel_ticks} of {ticks} in {kernel_calls} kernel calls; {requests} requests below"
            ),
        );
    };
    // The three interfaces say the same of turns.
    macro_rules! turns {
        ($port:expr) => {{
            let turns = $port.turns()?;
            Turns {
                ticks: turns.ticks,
                longest: turns.longest,
                kernel_calls: turns.kernel_calls,
                kernel_ticks: turns.kernel_ticks,
                requests: turns.requests,
            }
        }};
    }
    for &(shard, ..) in &client.info().pci {
        let port = inspector.pci(shard);
        tell("pci_operations", port.figures()?.operations, turns!(port));
    }
    let port = inspector.iommu(client.info().iommu.ok_or(Error::NoIommuShard)?);
    tell("iommu_operations", port.figures()?.operations, turns!(port));
    let port = inspector.msi(0);
    tell("msi_operations", port.figures()?.operations, turns!(port));
    Ok(())
}
