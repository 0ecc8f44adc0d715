//! Tricks with DMA by its own device: outside its buffers, without bus
//! mastering, after unmap, after free, after release, and into what others
//! got afterwards.

use client::{Access, Device, Error, Fault, Mmio, Sbdf, Switch};
use edu_driver::{Completion, Edu, MOST};
use sel4_client::SeL4Platform;

use crate::Intruder;
use crate::witness::Witness;

/// A transfer takes 100 ms; wait longer.
const SETTLE_MICROS: u64 = 150_000;
const BYTES: u64 = 64;
/// edu drops address bits above 28.
const REACH: u64 = 1 << 28;

fn settle(intruder: &Intruder<'_>) -> Result<(), Error> {
    intruder.client.wait_for(0, SETTLE_MICROS)?;
    Ok(())
}

/// Moves bytes to `to` and waits until the device has done with it.
fn store<M: Mmio>(intruder: &Intruder<'_>, edu: &mut Edu<M>, to: u64) -> Result<(), Error> {
    edu.store(0, to, BYTES, Completion::Poll);
    settle(intruder)
}

fn drain_faults(intruder: &Intruder<'_>) -> Result<Option<Fault>, Error> {
    let mut newest = None;
    // A client's queue of records is bounded; 64 is more than it holds.
    for _ in 0..64 {
        match intruder.client.next_fault()? {
            Some(fault) => newest = Some(fault),
            None => break,
        }
    }
    Ok(newest)
}

fn faulted(intruder: &Intruder<'_>, at: u64, device: Sbdf) -> Result<(bool, Option<Fault>), Error> {
    let fault = drain_faults(intruder)?;
    let told =
        fault.is_some_and(|fault| fault.address & !0xfff == at & !0xfff && fault.device == device);
    Ok((told, fault))
}

pub fn run(intruder: &Intruder<'_>) -> Result<(), Error> {
    let client = intruder.client;
    let device = client.assign(intruder.own)?;
    let witness = Witness::new(client)?;
    within_assignment(intruder, &device, &witness)?;

    // Mapped, then freed: the memory goes back to the pool and on to the next buffer.
    let freed = Witness::new(client)?;
    let at = freed.map(Access::ReadWrite)?;
    let old = intruder
        .platform
        .physical_address(freed.buffer.frame_slots().first)?;
    freed.buffer.free()?;
    let next = Witness::new(client)?;
    let new = intruder
        .platform
        .physical_address(next.buffer.frame_slots().first)?;
    let mut edu = Edu(device.map_bar(0)?);
    store(intruder, &mut edu, at)?;
    let touched = next.touched();
    intruder.holds(
        "dma_into_freed",
        touched == 0,
        format_args!("memory at {old:#x}, next buffer at {new:#x}: {touched} bytes touched"),
    );
    let _ = drain_faults(intruder)?;

    // Released while a transfer is under way: it must not arrive.
    let at = next.map(Access::ReadWrite)?;
    edu.store(0, at, MOST, Completion::Poll);
    drop(edu);
    device.release()?;
    settle(intruder)?;
    let touched = next.touched();
    intruder.holds(
        "dma_after_release",
        touched == 0,
        format_args!("{touched} bytes touched by a transfer begun before the release"),
    );

    // Assigned again: what was begun in the last life must not arrive now, nor may anything before bus mastering is on.
    let device = client.assign(intruder.own)?;
    settle(intruder)?;
    let mut edu = Edu(device.map_bar(0)?);
    store(intruder, &mut edu, at)?;
    let touched = next.touched();
    intruder.holds(
        "dma_before_bus_master",
        touched == 0,
        format_args!("{touched} bytes touched though bus mastering is off"),
    );
    drop(edu);
    device.release()
}

fn within_assignment(
    intruder: &Intruder<'_>,
    device: &Device<'_, 'static, SeL4Platform>,
    witness: &Witness<'_>,
) -> Result<(), Error> {
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    let _ = drain_faults(intruder)?;

    // The attack works where it may: the checks below would see it.
    let mapped = witness.map(Access::ReadWrite)?;
    store(intruder, &mut edu, mapped)?;
    let touched = witness.touched();
    intruder.holds(
        "dma_own_buffer_works",
        touched == BYTES as usize,
        format_args!("{touched} bytes written at {mapped:#x}"),
    );
    witness.reset();

    // By physical address, as if there were no IOMMU.
    let physical = intruder
        .platform
        .physical_address(witness.buffer.frame_slots().first)?;
    let target = if physical < REACH && physical != mapped {
        physical
    } else {
        mapped + 0x10_0000
    };
    store(intruder, &mut edu, target)?;
    let (told, fault) = faulted(intruder, target, device.address())?;
    let touched = witness.touched();
    intruder.holds(
        "dma_outside_buffers",
        touched == 0,
        format_args!("at physical {target:#x}: {touched} bytes touched"),
    );
    intruder.holds("fault_is_reported", told, format_args!("{fault:?}"));

    // Reading what is only writable, writing what is only readable.
    witness.buffer.unmap()?;
    let read_only = witness.map(Access::Read)?;
    store(intruder, &mut edu, read_only)?;
    let touched = witness.touched();
    intruder.holds(
        "dma_writes_read_only",
        touched == 0,
        format_args!("{touched} bytes touched"),
    );
    witness.buffer.unmap()?;
    let _ = drain_faults(intruder)?;

    store(intruder, &mut edu, read_only)?;
    let touched = witness.touched();
    let (told, fault) = faulted(intruder, read_only, device.address())?;
    intruder.holds(
        "dma_after_unmap",
        touched == 0 && told,
        format_args!("{touched} bytes touched, {fault:?}"),
    );
    Ok(())
}
