//! A flood of interrupts: a client has its device send one message after another, while another client of the same priority
//! goes on with its work and counts what it gets done. First the messages are for a signal that the flooder does not wait for;
//! then for nobody, so that the msi-server has to absorb each of them.

use client::{Error, EventKind, Inspector, Mechanism, Switch, Width, report};
use edu_driver::Edu;
use heapless::Vec;
use system::layout::event;

use crate::scene::{OurBuffer, OurChannel, OurDevice, Scene, map};

/// How long the work is counted in each part, in ticks: one an instruction, 10 and more turns of the kernel's schedule.
const PART_TICKS: u64 = 100_000_000;
/// Messages between two looks whether the part is over.
const BURST: u32 = 64;
/// Rounds of which each is timed; the others are counted.
const TIMED: usize = 512;
/// What a round may take more in a flood, in tenths.
const TOLERATED_TENTHS: u64 = 1;

/// What was done in one part.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    rounds: u64,
    /// Ticks of a round, the median of the first ones.
    median: u64,
}

/// Work in one part: maps, unmaps and reads configuration space.
fn work(device: &OurDevice<'_>, buffer: &OurBuffer<'_>) -> Result<Part, Error> {
    let mut times: Vec<u64, TIMED> = Vec::new();
    let start = sel4_client::ticks();
    let mut now = start;
    let mut rounds = 0;
    while now.saturating_sub(start) < PART_TICKS {
        map(buffer)?;
        buffer.unmap()?;
        device.config_read(0, Width::Dword)?;
        rounds += 1;
        let end = sel4_client::ticks();
        // When it is full, that was enough.
        let _ = times.push(end.saturating_sub(now));
        now = end;
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or(0);
    Ok(Part { rounds, median })
}

/// Works beside the flooder, and counts. `rest`: how much of the work must be left, in tenths of what is done beside a client
/// that only computes.
pub fn gauge(scene: &Scene, rest: &str) -> Result<(), Error> {
    let left: u64 = rest.parse().map_err(|_| Error::NotFound)?;
    let beat = scene.channel("beat")?;
    let device = scene.edu()?;
    let buffer = scene.pages(1)?;
    let mut parts = [Part::default(); 3];
    for part in &mut parts {
        scene.hear(&beat)?;
        *part = work(&device, &buffer)?;
        beat.signal();
    }
    let [computes, bound, unbound] = parts;
    let as_quick = |part: Part| {
        part.median.abs_diff(computes.median) * 10 <= computes.median * TOLERATED_TENTHS
    };
    scene.holds(
        "each_takes_as_long",
        as_quick(bound) && as_quick(unbound),
        format_args!(
            "a round takes {} ticks beside a client that computes, {} and {} in floods",
            computes.median, bound.median, unbound.median
        ),
    );
    let enough = |part: Part| part.rounds * 10 >= computes.rounds * left;
    scene.holds(
        "work_is_done",
        enough(bound) && enough(unbound),
        format_args!(
            "{} rounds beside a client that computes, {} and {} in floods; {left} tenths must be left",
            computes.rounds, bound.rounds, unbound.rounds
        ),
    );
    for (key, part) in [
        ("rounds_computing", computes),
        ("rounds_flooded", bound),
        ("rounds_absorbing", unbound),
    ] {
        report::metric(scene.platform, key, part.rounds);
    }
    Ok(())
}

/// Does something again and again until the other side says that the part is over; how often.
fn until_told(scene: &Scene, beat: &OurChannel<'_>, mut burst: impl FnMut()) -> u64 {
    let mut bursts = 0;
    beat.signal();
    while !scene.poll(beat.flag()) {
        burst();
        bursts += 1;
    }
    bursts * u64::from(BURST)
}

/// Floods while the msi-server counts its messages (`interrupt_rate`): each flood is switched off and told, and begins
/// anew when it is let come again.
pub fn metered(scene: &Scene) -> Result<(), Error> {
    let beat = scene.channel("beat")?;
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    until_told(scene, &beat, || {
        (0..BURST).for_each(|n| {
            core::hint::black_box(n);
        });
    });
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    let (mut floods, mut told) = ([0; 2], [0; 2]);
    for (raised, off) in floods.iter_mut().zip(&mut told) {
        *raised = until_told(scene, &beat, || (0..BURST).for_each(|_| edu.raise(1)));
        while let Some(event) = scene.client.next_event()? {
            let ours = event.device == device.address();
            *off += u32::from(ours && event.kind == EventKind::MessageOff);
        }
        interrupts.mask(0, 1, Switch::Off)?;
    }
    scene.holds(
        "each_flood_is_switched_off",
        told == [1; 2],
        format_args!("{floods:?} raised, switched off and told {told:?} times"),
    );
    edu.acknowledge(1);
    interrupts.disable()
}

/// Floods.
pub fn flood(scene: &Scene) -> Result<(), Error> {
    let beat = scene.channel("beat")?;
    let client = &scene.client;
    let inspector = Inspector::new(scene.platform, client.info()).ok_or(Error::NotFound)?;
    let absorbed = || Ok::<_, Error>(inspector.msi(0).figures()?.absorbed);
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    until_told(scene, &beat, || {
        (0..BURST).for_each(|n| {
            core::hint::black_box(n);
        });
    });

    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    let before = absorbed()?;
    let raised = until_told(scene, &beat, || (0..BURST).for_each(|_| edu.raise(1)));
    let came = scene.poll(event::OWN);
    let more = absorbed()? - before;
    scene.holds(
        "flooded",
        came && more == 0,
        format_args!("{raised} raised, came: {came}, {more} absorbed"),
    );
    interrupts.disable()?;
    edu.acknowledge(1);

    let slot = client.window().take(1).ok_or(Error::WindowFull(1))?;
    let before = absorbed()?;
    device.port().msi_enable(Mechanism::Msi, 0, 1, slot.first)?;
    let raised = until_told(scene, &beat, || (0..BURST).for_each(|_| edu.raise(1)));
    let more = absorbed()? - before;
    scene.holds(
        "flood_is_absorbed",
        raised > 0 && more == raised,
        format_args!("{raised} raised for nobody, {more} absorbed"),
    );
    report::metric(scene.platform, "flood_absorbed", more);
    drop(edu);
    device.release()
}
