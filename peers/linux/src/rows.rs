//! The rows: what a driver asks of VFIO, each as Portcullis's own benchmark
//! asks its servers for it.

use crate::row::{Row, overhead};
use crate::sys::{Mapping, Pages, ticks};
use crate::vfio::{Assigned, Event, Function};
use crate::{Failure, say};
use rustix::io::Errno;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds that count, and rounds before them.
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
/// Rounds of what takes millions of instructions.
const FEW: usize = 40;
/// Where memory is mapped for devices.
const IOVA: u64 = 0x1000_0000;
/// Command and Status, and the bits of Command that let it answer and master the bus (PCIe 5.0, 7.5.1.1).
const COMMAND: u64 = 0x04;
const MEMORY_AND_MASTER: u32 = 0b110;
/// Registers of edu (QEMU, `docs/specs/edu.rst`).
const IDENTIFICATION: usize = 0x00;
const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;
/// Bytes of the DMA buffer of a device in use.
const BUFFER: usize = 64 << 10;

/// All rows. `plain` has no interrupt pin and no reset; `edu` has a pin, a BAR of 1 MiB and MSI.
///
/// # Errors
/// What Linux refused.
pub fn all(plain: &Function, edu: &Function) -> Result<(), Failure> {
    let overhead = overhead();
    let without_pin = assignment(plain, overhead, ["assign", "release"])?;
    let with_pin = assignment(edu, overhead, ["assign_with_pin", "release_with_pin"])?;
    let pin = [0, 1].map(|at| with_pin[at].saturating_sub(without_pin[at]));
    usable(edu, overhead, pin)?;
    let device = Assigned::new(edu)?;
    configuration(&device, overhead)?;
    memory(&device, overhead)?;
    bar(&device, overhead)?;
    interrupts(&device, overhead)?;
    device.release();
    Ok(())
}

/// Taking the device and giving it back; the medians of both.
fn assignment(
    function: &Function,
    overhead: u64,
    [assign, release]: [&'static str; 2],
) -> Result<[u64; 2], Failure> {
    let (mut taking, mut giving) = (Row::new(assign, overhead), Row::new(release, overhead));
    for _ in 0..ROUNDS + WARM_UP {
        let device = taking.time(|| Assigned::new(function))?;
        giving.time(|| device.release());
    }
    Ok([taking.report(WARM_UP), giving.report(WARM_UP)])
}

/// All that a driver does before its first request, and after its last. `pin` instructions of opening and
/// of closing the device are the evaluation of ACPI's interrupt routing for a device with a pin, and are left out.
fn usable(function: &Function, overhead: u64, pin: [u64; 2]) -> Result<(), Failure> {
    let mut assign = Row::new("usable_assign", overhead + pin[0]);
    let mut release = Row::new("usable_release", overhead + pin[1]);
    for _ in 0..ROUNDS / 2 + WARM_UP {
        let start = ticks();
        let device = Assigned::new(function)?;
        let buffer = Mapping::of_memory(BUFFER, Pages::Ordinary)?;
        device.map(buffer.address(), BUFFER as u64, IOVA)?;
        let registers = device.map_bar(device.bar()?)?;
        let command = device.configuration()? + COMMAND;
        device.write32(command, MEMORY_AND_MASTER)?;
        registers.read32(IDENTIFICATION);
        let event = Event::new()?;
        device.enable_msi(event.file())?;
        assign.add(ticks() - start);

        let start = ticks();
        device.disable_msi()?;
        drop(event);
        drop(registers);
        device.unmap(BUFFER as u64, IOVA)?;
        drop(buffer);
        device.release();
        release.add(ticks() - start);
    }
    assign.report(WARM_UP);
    release.report(WARM_UP);
    Ok(())
}

/// Reading and writing 32 bits of configuration space: the ids, and Command with the value that it has.
fn configuration(device: &Assigned, overhead: u64) -> Result<(), Failure> {
    let (mut read, mut write) = (
        Row::new("config_read32", overhead),
        Row::new("config_write32", overhead),
    );
    let at = device.configuration()?;
    device.write32(at + COMMAND, MEMORY_AND_MASTER)?;
    for _ in 0..ROUNDS + WARM_UP {
        read.time(|| device.read32(at))?;
        write.time(|| device.write32(at + COMMAND, MEMORY_AND_MASTER))?;
    }
    read.report(WARM_UP);
    write.report(WARM_UP);
    Ok(())
}

/// Memory for DMA: mapping what the process has, and taking it first.
fn memory(device: &Assigned, overhead: u64) -> Result<(), Failure> {
    let mapped = [
        (
            4096,
            Pages::Ordinary,
            ROUNDS,
            ["dma_map_4k", "dma_unmap_4k"],
        ),
        (
            BUFFER,
            Pages::Ordinary,
            ROUNDS,
            ["dma_map_64k", "dma_unmap_64k"],
        ),
        (
            2 << 20,
            Pages::Ordinary,
            FEW,
            ["dma_map_2m_small", "dma_unmap_2m_small"],
        ),
        (
            2 << 20,
            Pages::Transparent,
            FEW,
            ["dma_map_2m_transparent", "dma_unmap_2m_transparent"],
        ),
        (2 << 20, Pages::Huge, ROUNDS, ["dma_map_2m", "dma_unmap_2m"]),
        (
            16 << 20,
            Pages::Ordinary,
            FEW,
            ["dma_map_16m_small", "dma_unmap_16m_small"],
        ),
        (16 << 20, Pages::Huge, FEW, ["dma_map_16m", "dma_unmap_16m"]),
    ];
    for (bytes, pages, rounds, keys) in mapped {
        let memory = Mapping::of_memory(bytes, pages)?;
        let [mut map, mut unmap] = keys.map(|key| Row::new(key, overhead));
        for _ in 0..rounds + WARM_UP {
            map.time(|| device.map(memory.address(), bytes as u64, IOVA))?;
            unmap.time(|| device.unmap(bytes as u64, IOVA))?;
        }
        map.report(WARM_UP);
        unmap.report(WARM_UP);
    }
    let (mut alloc, mut free) = (
        Row::new("dma_alloc_64k", overhead),
        Row::new("dma_free_64k", overhead),
    );
    for _ in 0..ROUNDS + WARM_UP {
        let memory = alloc.time(|| {
            let memory = Mapping::of_memory(BUFFER, Pages::Ordinary)?;
            device.map(memory.address(), BUFFER as u64, IOVA)?;
            Ok::<_, Errno>(memory)
        })?;
        free.time(|| {
            let unmapped = device.unmap(BUFFER as u64, IOVA);
            drop(memory);
            unmapped
        })?;
    }
    alloc.report(WARM_UP);
    free.report(WARM_UP);
    Ok(())
}

/// Mapping the BAR with one touch, and unmapping it.
fn bar(device: &Assigned, overhead: u64) -> Result<(), Failure> {
    let (mut map, mut unmap) = (
        Row::new("bar_map_1m", overhead),
        Row::new("bar_unmap_1m", overhead),
    );
    let region = device.bar()?;
    for _ in 0..ROUNDS + WARM_UP {
        let registers = map.time(|| {
            let registers = device.map_bar(region)?;
            registers.read32(IDENTIFICATION);
            Ok::<_, Errno>(registers)
        })?;
        unmap.time(|| drop(registers));
    }
    map.report(WARM_UP);
    unmap.report(WARM_UP);
    Ok(())
}

/// Enabling and disabling MSI; an interrupt that the raising thread takes itself, and one that wakes another thread.
fn interrupts(device: &Assigned, overhead: u64) -> Result<(), Failure> {
    let event = Event::new()?;
    let (mut enable, mut disable) = (
        Row::new("msi_enable", overhead),
        Row::new("msi_disable", overhead),
    );
    for _ in 0..ROUNDS + WARM_UP {
        enable.time(|| device.enable_msi(event.file()))?;
        disable.time(|| device.disable_msi())?;
    }
    enable.report(WARM_UP);
    disable.report(WARM_UP);

    device.enable_msi(event.file())?;
    let registers = device.map_bar(device.bar()?)?;
    registers.read32(IDENTIFICATION);
    let mut awake = Row::new("irq_latency", overhead);
    for _ in 0..ROUNDS + WARM_UP {
        awake.time(|| {
            registers.write32(RAISE, 1);
            event.wait()
        })?;
        registers.write32(ACKNOWLEDGE, 1);
    }
    awake.report(WARM_UP);

    let mut blocked = Row::new("irq_latency_blocked", overhead);
    let (woken, done) = (AtomicU64::new(0), Event::new()?);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            for _ in 0..ROUNDS + WARM_UP {
                event.wait()?;
                woken.store(ticks(), Ordering::Relaxed);
                done.signal()?;
            }
            Ok::<_, Errno>(())
        });
        for _ in 0..ROUNDS + WARM_UP {
            // Until the waiter waits: it does nothing else.
            std::thread::sleep(std::time::Duration::from_micros(200));
            let start = ticks();
            registers.write32(RAISE, 1);
            done.wait()?;
            blocked.add(woken.load(Ordering::Relaxed).saturating_sub(start));
            registers.write32(ACKNOWLEDGE, 1);
        }
        waiter.join().map_err(|_| Errno::IO)?
    })?;
    blocked.report(WARM_UP);
    device.disable_msi()?;
    say("@check rows pass");
    Ok(())
}
