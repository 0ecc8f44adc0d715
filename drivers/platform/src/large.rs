//! BARs that lie alone in large pages: each is mapped by one large frame, works,
//! and nobody else's registers are in it.

use client::{Device, Error, Found, Inspector, Mmio, Rule};
use edu_driver::IDENTIFICATION;
use sel4_client::SeL4Platform;

use crate::{Probe, transfer};

const LARGE_PAGE: u64 = 2 << 20;
/// Device id << 16 | vendor id of a teaching device, and of shared memory (QEMU's ivshmem).
const EDU: u32 = 0x11e8_1234;
const SHARED_MEMORY: u32 = 0x1110_1af4;

/// The first teaching device that is granted and shared memory lie alone; another teaching device does not.
pub fn bars(probe: &Probe) -> Result<(), Error> {
    let inspector = Inspector::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
    let used = || {
        inspector
            .pci(0)
            .figures()
            .map(|figures| figures.untyped_used)
    };
    let before = used()?;
    let (first, plain) = (nth(probe, EDU, 0)?, nth(probe, EDU, 1)?);
    edu(probe, &inspector, first)?;
    shared_memory(probe, &inspector, nth(probe, SHARED_MEMORY, 0)?)?;

    let plain = probe.client.assign(plain.device)?;
    let refused = plain.map_bar_large(0).map(drop).err();
    probe.check(
        "others_are_not_large",
        refused.and_then(|error| error.rule()) == Some(Rule::NotLarge),
        format_args!("{}: {refused:?}", plain.address()),
    );
    plain.release()?;
    let after = used()?;
    probe.check(
        "gone_with_the_device",
        after == before,
        format_args!("{before} bytes of device memory in use before, {after} after"),
    );
    Ok(())
}

fn nth(probe: &Probe, ids: u32, n: usize) -> Result<Found, Error> {
    let found = probe.client.devices().filter(|found| match found {
        Ok(found) => found.ids == ids,
        Err(_) => true,
    });
    found.into_iter().nth(n).ok_or(Error::NotFound)?
}

/// A register, a DMA transfer out and back with interrupts, all through one large frame.
fn edu(probe: &Probe, inspector: &Inspector<'_, SeL4Platform>, found: Found) -> Result<(), Error> {
    let device = probe.client.assign(found.device)?;
    alone(probe, inspector, &device, 0)?;
    let slots = probe.client.window().in_use();
    let registers = device.map_bar_large(0)?;
    let frames = probe.client.window().in_use() - slots;
    let behind = registers.read32(device.bar(0)?.bytes as usize);
    probe.check(
        "one_large_frame",
        frames == 1 && registers.len() as u64 == LARGE_PAGE && behind != IDENTIFICATION,
        format_args!("{frames} window slots, {} bytes", registers.len()),
    );
    let outcome = transfer::round_trip_over(probe, &device, registers)?;
    probe.check(
        "works_through_it",
        outcome.is_whole(),
        format_args!(
            "{} wrong bytes, {} of 2 interrupts",
            outcome.wrong, outcome.completions
        ),
    );
    // Unmapped by now; the frame itself stays with the assignment.
    let again = device.map_bar_large(0)?.read32(0);
    let small = device.map_bar(0).map(drop).err();
    probe.check(
        "mapped_again",
        again == IDENTIFICATION && small.is_some(),
        format_args!("{again:#x}, in small pages: {small:?}"),
    );
    device.release()
}

/// Every word of the memory holds what was written.
fn shared_memory(
    probe: &Probe,
    inspector: &Inspector<'_, SeL4Platform>,
    found: Found,
) -> Result<(), Error> {
    const BAR: u8 = 2;
    let device = probe.client.assign(found.device)?;
    alone(probe, inspector, &device, BAR)?;
    let words = device.bar(BAR)?.bytes as usize / 8;
    let mut memory = device.map_bar_large(BAR)?;
    let pattern = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // One word in each 512 bytes.
    let places = || (0..words).step_by(64);
    places().for_each(|at| memory.write64(8 * at, pattern(at)));
    let wrong = places()
        .filter(|at| memory.read64(8 * at) != pattern(*at))
        .count();
    probe.check(
        "memory_keeps_what_is_written",
        wrong == 0 && words > 0,
        format_args!("{wrong} of {} words differ", places().count()),
    );
    drop(memory);
    device.release()
}

/// Is nothing else in the large pages of a BAR?
fn alone(
    probe: &Probe,
    inspector: &Inspector<'_, SeL4Platform>,
    device: &Device<'_, 'static, SeL4Platform>,
    bar: u8,
) -> Result<(), Error> {
    let server = inspector.pci(0);
    let (mut base, mut bytes) = (0, 0);
    // Two rounds: where it is, then who else is there.
    for round in 0..2 {
        let mut others = 0;
        for index in 0.. {
            let holder = match server.holder(index) {
                Ok(holder) => holder,
                Err(refusal) if refusal.rule == Rule::EndOfList => break,
                Err(refusal) => return Err(refusal.into()),
            };
            for number in 0..6 {
                let found = server.holder_bar(index, number)?;
                if (holder.device, number) == (device.address(), bar) {
                    (base, bytes) = (found.base, found.bytes);
                    continue;
                }
                let end = found.base.saturating_add(found.bytes);
                let meets = found.base < base.saturating_add(LARGE_PAGE) && end > base;
                others += u32::from(meets && found.bytes != 0);
            }
        }
        if round == 1 {
            probe.check(
                "alone",
                others == 0 && base != 0 && base.is_multiple_of(LARGE_PAGE),
                format_args!(
                    "{}: BAR {bar} of {bytes} bytes at {base:#x}, {others} others there",
                    device.address()
                ),
            );
        }
    }
    Ok(())
}
