//! Transfers that arrive when their memory is somebody else's: begun before
//! the device was anybody's, before the buffer was freed, before its holder
//! died. An edu takes 100 ms for a transfer, so all of it happens in between.

use client::{Error, Switch};
use edu_driver::{Completion, Edu, MOST};
use heapless::Vec;

use crate::scene::{OurBuffer, PAGE, SETTLE_MICROS, Scene, fill, map, touched, wrong};

/// Pages of the buffers that make up the pool, and of the raider's.
const PAGES: usize = 4;
/// Most such buffers that the pool may have room for.
const MOST_BUFFERS: usize = 64;
/// A transfer that was begun just before is not there yet.
const BEFORE_IT_ARRIVES_MICROS: u64 = 80_000;

/// Aims at memory that it gives away meanwhile.
pub fn raider(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("spoils")?;
    // At a physical address, as if nothing translated, when nobody holds the device.
    let device = scene.edu()?;
    let page = scene.pages(1)?;
    let physical = scene.physical(&page)?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    edu.store(0, physical, MOST, Completion::Poll);
    let busy = edu.busy();
    drop(edu);
    device.release()?;
    scene.settle()?;
    let bytes = touched(&page);
    scene.holds(
        "dma_before_assignment",
        busy && bytes == 0,
        format_args!("at physical {physical:#x}, begun: {busy}, while nobody held the device: {bytes} bytes touched"),
    );

    // It is a device that does as it is told, where it may.
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    drop(page);
    let buffer = scene.pages(PAGES)?;
    fill(&buffer, 0, 3);
    let iova = map(&buffer)?;
    scene.copy(&mut edu, iova, iova + PAGE as u64)?;
    let bad = wrong(&buffer, 1, 3);
    scene.holds(
        "dma_where_it_may",
        bad == 0,
        format_args!("{MOST} bytes out and back at {iova:#x}, {bad} wrong"),
    );

    // Freed in mid-transfer: the heir has the memory before it arrives.
    scene.faults(device.address(), iova)?;
    edu.store(0, iova, MOST, Completion::Poll);
    buffer.free()?;
    channel.signal();
    scene.hear(&channel)?;
    let faults = scene.faults(device.address(), iova)?;
    scene.holds(
        "recycled_fault_is_told",
        faults.told,
        format_args!("{:?}", faults.newest),
    );

    // Killed in mid-transfer.
    let buffer = scene.pages(PAGES)?;
    let iova = map(&buffer)?;
    edu.store(0, iova, MOST, Completion::Poll);
    channel.signal();
    scene.hear(&channel)?;
    scene.holds("was_killed", false, format_args!("still alive"));
    Ok(())
}

/// Takes all memory of the pool as soon as it can be had, and watches it. `rest`: the pool's buffers.
pub fn heir(scene: &Scene, rest: &str) -> Result<(), Error> {
    let all = rest.parse().map_err(|_| Error::NotFound)?;
    let channel = scene.channel("spoils")?;
    scene.hear(&channel)?;
    watch(scene, all, "recycled_memory_untouched")?;
    channel.signal();

    scene.hear(&channel)?;
    scene.client.supervisor().kill(scene.pd("raider")?)?;
    watch(scene, all, "memory_of_the_dead_untouched")
}

/// Holds the whole pool, so also what the raider had, and says whether any of it is touched.
fn watch(scene: &Scene, all: usize, name: &str) -> Result<(), Error> {
    let timer = scene.client.timer();
    let began = timer.now()?.micros;
    let mut held: Vec<OurBuffer<'_>, MOST_BUFFERS> = Vec::new();
    while held.len() < all.min(MOST_BUFFERS) {
        match scene.pages(PAGES) {
            Ok(buffer) => held.push(buffer).map_err(|_| Error::NotFound)?,
            // The dead client's is not back yet.
            Err(_) if timer.now()?.micros - began < BEFORE_IT_ARRIVES_MICROS => {
                scene.wait(0, 100)?;
            }
            Err(error) => return Err(error),
        }
    }
    let took = timer.now()?.micros - began;
    scene.wait(0, SETTLE_MICROS)?;
    let bytes: usize = held.iter().map(touched).sum();
    scene.holds(
        name,
        bytes == 0 && took < BEFORE_IT_ARRIVES_MICROS,
        format_args!(
            "the whole pool of {} pages held after {took} us, {bytes} bytes touched",
            held.len() * PAGES
        ),
    );
    Ok(())
}
