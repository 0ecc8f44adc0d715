//! Shows what the system promises where only a special program can: bugs of
//! the unpatched kernel, and shards that do not wait for each other.
//! Needs edu devices.
//!
//! Arguments: `b0`, ten thousand interrupts in real time (an unpatched kernel
//! crashes or hangs); `b1`, a mapping that outlives the revocation of its
//! frame; `b3`, a page that another core goes on writing to after it was taken
//! away (needs two cores); `shards`, work in one pci-server shard while another is stopped.

#![no_std]
#![no_main]

use client::report::check;
use client::{Client, Error, Mechanism, Memory, PagePreference, Platform, Switch, Width};
use edu_driver::{DEVICE, Edu, IDENTIFICATION, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::{event, va};

sel4_client::program!(main);

const INTERRUPTS: u32 = 10_000;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = match info.args.as_str() {
        "b0" => interrupt_loop(platform, info),
        "b1" => stale_mapping(platform, info),
        "b3" => other_core(platform, info),
        "shards" => stalled_shard(platform, info),
        other => {
            check(
                platform,
                "probe",
                false,
                format_args!("unknown argument {other:?}"),
            );
            return 1;
        }
    };
    if let Err(error) = &outcome {
        check(platform, "probe", false, format_args!("{error}"));
    }
    u32::from(outcome.is_err())
}

/// Raises the interrupts of two devices in one breath, again and again: the second is pending when the kernel
/// leaves after the first, which is what the unpatched kernel does not survive.
fn interrupt_loop(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    const FIRST: u64 = event::OWN;
    const SECOND: u64 = event::OWN << 1;
    let client = Client::connect(platform, info)?;
    let mut found = client
        .devices()
        .filter_map(Result::ok)
        .map(|found| found.device);
    let first = client.assign(found.next().ok_or(Error::NotFound)?)?;
    let second = client.assign(found.next().ok_or(Error::NotFound)?)?;
    // Others take the lowest vectors: the bug destroys the interrupt table's entries of those above.
    let third = client.assign(found.next().ok_or(Error::NotFound)?)?;
    let fourth = client.assign(found.next().ok_or(Error::NotFound)?)?;
    for (device, count) in [(&third, 16), (&fourth, 8)] {
        let slots = client
            .window()
            .take(count)
            .ok_or(Error::WindowFull(count.into()))?;
        device
            .port()
            .msi_enable(Mechanism::MsiX, 0, count, slots.first)?;
    }
    let mut one = Edu(first.map_bar(0)?);
    let mut other = Edu(second.map_bar(0)?);
    let one_interrupt = first.enable_interrupts(Mechanism::Msi, 0, 1, FIRST)?;
    let other_interrupt = second.enable_interrupts(Mechanism::Msi, 0, 1, SECOND)?;
    first.bus_master(Switch::On)?;
    second.bus_master(Switch::On)?;
    let mut rounds = 0;
    for _ in 0..INTERRUPTS / 2 {
        one.raise(1);
        other.raise(1);
        let mut came = 0;
        while came != FIRST | SECOND {
            came |= client.wait() & (FIRST | SECOND);
        }
        one.acknowledge(1);
        other.acknowledge(1);
        rounds += 1;
    }
    check(
        platform,
        "interrupt_loop",
        rounds == INTERRUPTS / 2,
        format_args!("{} of {INTERRUPTS} interrupts, two at a time", 2 * rounds),
    );
    other_interrupt.disable()?;
    one_interrupt.disable()
}

/// An address in the range that the client library maps from its beginning: nothing is mapped so far up.
const FAR_UP: u64 = va::SMALL + va::SMALL_BYTES - 4096;

/// Deletes a mapped copy of a frame capability, and revokes mapped frames: both must take the mapping along.
fn stale_mapping(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let buffer = client.buffer(2 * 4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    memory.write(0, &[0xdd; 4]);
    memory.write(4096, &[0xee; 4]);
    let copy = client.window().take(1).ok_or(Error::WindowFull(1))?;
    let frames = buffer.frame_slots();
    platform.duplicate(frames.first, copy.first)?;
    platform.map_at(copy.first, FAR_UP)?;
    Platform::clear(platform, copy.first);
    // The address must be free: then another frame can be mapped there.
    platform.duplicate(frames.first + 1, copy.first)?;
    let mapped = platform.map_at(copy.first, FAR_UP);
    check(
        platform,
        "deletion_unmaps",
        mapped.is_ok(),
        format_args!(
            "mapping another frame where the mapping of a deleted capability was: {mapped:?}"
        ),
    );
    Platform::clear(platform, copy.first);

    let device = client.assign_ids(VENDOR, DEVICE)?;
    let edu = Edu(device.map_bar(0)?);
    let address = edu.0.address();
    let before = edu.identification();
    // The server revokes the frames; the mapping here is left to the kernel.
    device.port().release()?;
    platform.duplicate(frames.first + 1, copy.first)?;
    let mapped = platform.map_at(copy.first, address as u64);
    let seen = edu.identification();
    check(
        platform,
        "revocation_unmaps",
        before == IDENTIFICATION && mapped.is_ok() && seen == 0xeeee_eeee,
        format_args!(
            "before {before:#x}, mapping something else there: {mapped:?}, then it reads {seen:#x}"
        ),
    );
    Ok(())
}

/// How long the second thread may write, before and after its page is taken away.
const WHILE_MICROS: u64 = 20_000;

/// A second thread on core 1 writes to a buffer without end; the buffer is freed by the server, and whoever gets
/// the memory next must not see a write.
fn other_core(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let buffer = client.buffer(4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let before = platform.physical_address(buffer.frame_slots().first)?;
    sel4_client::hammer::start(platform, 1, memory.address())?;
    client.wait_for(0, WHILE_MICROS)?;
    let mut word = [0; 8];
    memory.read(0, &mut word);
    let written = u64::from_le_bytes(word);
    // The server takes the frames back; the mapping here is left to the kernel.
    buffer.port().free()?;
    buffer.keep();

    let next = client.buffer(4096, PagePreference::Small)?;
    let memory = next.memory().ok_or(Error::NotFound)?;
    let after = platform.physical_address(next.frame_slots().first)?;
    client.wait_for(0, WHILE_MICROS)?;
    memory.read(0, &mut word);
    let strayed = u64::from_le_bytes(word);
    check(
        platform,
        "other_cores_let_go",
        written != 0 && before == after && strayed == 0,
        format_args!(
            "wrote {written:#x} while it could, memory at {before:#x} and {after:#x}, afterwards {strayed:#x}"
        ),
    );
    Ok(())
}

/// Rounds of assign, read, release in the shard that runs.
const ROUNDS: u32 = 100;

/// Stops the shard of one device, works with a device of another shard, lets the first go on.
fn stalled_shard(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let mut found = client
        .devices()
        .filter_map(Result::ok)
        .map(|found| found.device);
    let near = found.next().ok_or(Error::NotFound)?;
    let near_shard = client.shard_of(near)?;
    let far = found
        .find(|&far| client.shard_of(far) != Ok(near_shard))
        .ok_or(Error::NotFound)?;
    let far_shard = client.shard_of(far)?;
    check(
        platform,
        "two_shards",
        near_shard != far_shard,
        format_args!("{near} in shard {near_shard}, {far} in shard {far_shard}"),
    );

    let mut name = heapless::String::<24>::new();
    // A shard's number has two digits at the most.
    let _ = core::fmt::write(&mut name, format_args!("pci-server-{far_shard}"));
    let pd = info
        .pds
        .iter()
        .find(|(found, _)| *found == name)
        .map(|&(_, pd)| pd)
        .ok_or(Error::NotFound)?;
    client.supervisor().suspend(pd, Switch::Off)?;
    let mut done = 0;
    for _ in 0..ROUNDS {
        let device = client.assign(near)?;
        device.config_read(0, Width::Dword)?;
        device.release()?;
        done += 1;
    }
    client.supervisor().suspend(pd, Switch::On)?;
    check(
        platform,
        "works_beside_a_stalled_shard",
        done == ROUNDS,
        format_args!(
            "{done} of {ROUNDS} rounds of assign, read and release while {name} was stopped"
        ),
    );
    let device = client.assign(far)?;
    let ids = device.config_read(0, Width::Dword)?;
    check(
        platform,
        "the_stalled_shard_goes_on",
        ids == u32::from(DEVICE) << 16 | u32::from(VENDOR),
        format_args!("{far} reads {ids:#010x}"),
    );
    device.release()
}
