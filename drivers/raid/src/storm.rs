//! A storm: ten thousand blocked DMAs of one device, while another client goes
//! on mapping, unmapping and reading configuration space, and measures it.
//!
//! The device is QEMU's e1000 (82540EM): one write to its transmit tail makes
//! it fetch as many descriptors as it is told, each a DMA of its own. Layout:
//! Intel 82540 developer's manual, 13.4.33 and following.

use client::{Error, EventKind, Memory, Mmio, Platform, Switch, Width, report};
use heapless::Vec;
use system::layout::event;

use crate::scene::{OurDevice, Scene, map};

const VENDOR: u16 = 0x8086;
const E1000: u16 = 0x100e;
/// Registers, all of them, in pages.
const PAGES: u16 = 32;

mod register {
    pub const TRANSMIT_CONTROL: usize = 0x400;
    pub const RING_LOW: usize = 0x3800;
    pub const RING_HIGH: usize = 0x3804;
    pub const RING_BYTES: usize = 0x3808;
    pub const HEAD: usize = 0x3810;
    pub const TAIL: usize = 0x3818;
}

const ENABLE: u32 = 1 << 1;
/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 16;
/// Descriptor: end of packet, report status; and where "done" is reported.
const END_AND_REPORT: u8 = 1 | 1 << 3;
const COMMAND_AT: usize = 11;
const STATUS_AT: usize = 12;

/// Nothing is mapped there.
const NOWHERE: u64 = 0x4000_0000;
/// Bad DMAs in all, and those of one burst.
const STORM: u32 = 10_000;
const BURST: u32 = 20;
/// From one burst to the next.
const PAUSE_MICROS: u64 = 200;
const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;

fn ring<M: Mmio>(registers: &mut M, at: u64, descriptors: u32) {
    registers.write32(register::TRANSMIT_CONTROL, 0);
    registers.write32(register::HEAD, 0);
    registers.write32(register::TAIL, 0);
    registers.write32(register::RING_LOW, at as u32);
    registers.write32(register::RING_HIGH, (at >> 32) as u32);
    registers.write32(register::RING_BYTES, descriptors * DESCRIPTOR);
    registers.write32(register::TRANSMIT_CONTROL, ENABLE);
}

/// Has the device fetch a descriptor from our memory and report it done there.
fn works(scene: &Scene, device: &OurDevice<'_>) -> Result<bool, Error> {
    let mut registers = device.map_bar_pages(0, 0, PAGES)?;
    device.bus_master(Switch::On)?;
    let buffer = scene.pages(1)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    memory.write(0, &[0; 4096]);
    memory.write(COMMAND_AT, &[END_AND_REPORT]);
    ring(&mut registers, map(&buffer)?, 256);
    registers.write32(register::TAIL, 1);
    let mut status = [0];
    memory.read(STATUS_AT, &mut status);
    Ok(status[0] & 1 != 0)
}

/// Makes the storm.
pub fn storm(scene: &Scene) -> Result<(), Error> {
    let beat = scene.channel("beat")?;
    let device = scene.client.assign_ids(VENDOR, E1000)?;
    let good = works(scene, &device)?;
    scene.holds(
        "dma_where_it_may",
        good,
        format_args!("a descriptor fetched and reported done: {good}"),
    );
    scene.hear(&beat)?;
    let mut told = 0;
    {
        let mut registers = device.map_bar_pages(0, 0, PAGES)?;
        ring(&mut registers, NOWHERE, 4096);
        let mut tail = 0;
        for _ in 0..STORM / BURST {
            tail = (tail + BURST) % 4096;
            registers.write32(register::TAIL, tail);
            while let Some(fault) = scene.client.next_fault()? {
                told += u64::from(fault.lost) + 1;
            }
            scene.wait(0, PAUSE_MICROS)?;
        }
    }
    beat.signal();
    scene.holds(
        "faults_are_told",
        told > 0,
        format_args!("{told} of {STORM} with those that were lost"),
    );
    report::metric(scene.platform, "faults_told", told);

    let mut stormed = None;
    if scene.wait(event::DEVICE, 1_000_000)? {
        while let Some(event) = scene.client.next_event()? {
            if event.kind == EventKind::Storm && event.device == device.address() {
                stormed = Some(event.detail);
            }
        }
    }
    scene.holds(
        "holder_is_told_of_the_storm",
        stormed.is_some(),
        format_args!("faults when it was stopped: {stormed:?}"),
    );
    report::metric(scene.platform, "stopped_after", stormed.unwrap_or(0));
    let command = device.config_read(COMMAND, Width::Word)?;
    scene.holds(
        "bus_mastering_is_off",
        command & BUS_MASTER == 0,
        format_args!("Command is {command:#06x}"),
    );

    // A holder that gives the device back and takes it again begins anew.
    device.release()?;
    let device = scene.client.assign_ids(VENDOR, E1000)?;
    let good = works(scene, &device)?;
    scene.holds(
        "works_when_taken_anew",
        good,
        format_args!("a descriptor fetched and reported done: {good}"),
    );
    Ok(())
}

/// Rounds before the storm. During it there are as many as it takes.
const ROUNDS: usize = 512;
/// What may change, in tenths.
const TOLERATED_TENTHS: u64 = 1;

/// Ticks of each operation, one entry a round.
#[derive(Default)]
struct Samples {
    map: Vec<u32, ROUNDS>,
    unmap: Vec<u32, ROUNDS>,
    read: Vec<u32, ROUNDS>,
}

/// Works as a driver does, before the storm and in it.
pub fn meter(scene: &Scene) -> Result<(), Error> {
    let beat = scene.channel("beat")?;
    let device = scene.edu()?;
    let buffer = scene.pages(1)?;
    let mut before = Samples::default();
    for _ in 0..ROUNDS {
        round(&device, &buffer, &mut before)?;
    }
    beat.signal();
    let mut during = Samples::default();
    let mut rounds = 0u64;
    // The newest samples are kept.
    while !scene.poll(beat.flag()) {
        if during.map.is_full() {
            during = Samples::default();
        }
        round(&device, &buffer, &mut during)?;
        rounds += 1;
    }
    let mut ok = rounds >= ROUNDS as u64;
    for (name, before, during) in [
        ("map", &mut before.map, &mut during.map),
        ("unmap", &mut before.unmap, &mut during.unmap),
        ("config_read", &mut before.read, &mut during.read),
    ] {
        let (was, is) = (percentile(before, 50), percentile(during, 50));
        ok &= was.abs_diff(is) * 10 < was * TOLERATED_TENTHS;
        scene.platform.log(format_args!(
            "{name}: median {was} before, {is} in the storm; 99 of 100 within {} and {}",
            percentile(before, 99),
            percentile(during, 99)
        ));
        figure(scene, name, "before", was);
        figure(scene, name, "storm", is);
    }
    scene.holds(
        "medians_move_less_than_a_tenth",
        ok,
        format_args!("{rounds} rounds in the storm"),
    );
    Ok(())
}

fn figure(scene: &Scene, name: &str, when: &str, value: u64) {
    let mut key = heapless::String::<32>::new();
    // The names are short.
    let _ = core::fmt::write(&mut key, format_args!("{name}_{when}"));
    report::metric(scene.platform, &key, value);
}

fn round(
    device: &OurDevice<'_>,
    buffer: &crate::scene::OurBuffer<'_>,
    samples: &mut Samples,
) -> Result<(), Error> {
    let start = sel4_client::ticks();
    map(buffer)?;
    let mapped = sel4_client::ticks();
    buffer.unmap()?;
    let unmapped = sel4_client::ticks();
    device.config_read(0, Width::Dword)?;
    let read = sel4_client::ticks();
    let ticks = |from: u64, to: u64| to.saturating_sub(from).min(u32::MAX.into()) as u32;
    // There is room: the caller sees to it.
    let _ = samples.map.push(ticks(start, mapped));
    let _ = samples.unmap.push(ticks(mapped, unmapped));
    let _ = samples.read.push(ticks(unmapped, read));
    Ok(())
}

/// The value that `percent` of the samples do not exceed.
fn percentile(samples: &mut [u32], percent: usize) -> u64 {
    samples.sort_unstable();
    let at = samples.len().saturating_sub(1) * percent / 100;
    samples.get(at).copied().unwrap_or(0).into()
}
