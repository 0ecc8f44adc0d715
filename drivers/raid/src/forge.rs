//! Forged interrupt messages: a device writes to where messages go, what
//! another device's interrupt would be. With interrupt remapping the message
//! is looked up under the writer's own requester id.
//!
//! Messages in the format of before remapping name the vector themselves; a
//! unit that is told to blocks them. QEMU 7.2 does not, and it does not know the
//! requester of a plain DMA write (decision 5): what gets through there is told.

use client::{CapabilityListKind, Error, Mechanism, Memory, Mmio, Switch, Width};
use edu_driver::{Completion, Edu, MOST};
use system::layout::event;

use crate::scene::{OurBuffer, OurDevice, SETTLE_MICROS, Scene, map};

/// Capability id of MSI (PCI 3.0, appendix H).
const MSI: u16 = 5;
/// Where messages go; bit 4 says that it is to be looked up (VT-d 3.0, 5.1.2.2).
const MESSAGES: u64 = 0xfee0_0000;
const REMAPPABLE: u64 = 1 << 4;
/// An entry far beyond those in use, in the address's bits 19:5.
const ABSENT: u64 = 0x1234 << 5;
/// First vector that the kernel gives to messages, and how many are tried.
const FIRST_VECTOR: u32 = 0x30;
const VECTORS: u32 = 8;
const OWN: u64 = event::OWN;
/// The processor's exceptions: what they push differs from what an interrupt does, and the kernel dies of it.
const EXCEPTIONS: u32 = 32;
/// Page fault.
const PAGE_FAULT: u32 = 0x0e;

/// Address and data of a device's message.
fn message(scene: &Scene, device: &OurDevice<'_>) -> Result<(u64, u32), Error> {
    let capabilities = scene.client.capabilities(device.address());
    let msi = capabilities
        .filter_map(Result::ok)
        .find(|found| found.list == CapabilityListKind::Standard && found.id == MSI)
        .ok_or(Error::NotFound)?
        .offset;
    // A 64-bit message: address, upper half, data (PCI 3.0, 6.8.1).
    let low = device.config_read(msi + 4, Width::Dword)?;
    let high = device.config_read(msi + 8, Width::Dword)?;
    let data = device.config_read(msi + 12, Width::Word)?;
    Ok((u64::from(high) << 32 | u64::from(low), data))
}

/// Has a device whose message the forger knows.
pub fn target(scene: &Scene) -> Result<(), Error> {
    let aim = scene.channel("aim")?;
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, OWN)?;
    device.bus_master(Switch::On)?;
    let isolated = device.properties().interrupts_isolated;
    edu.raise(1);
    let came = scene.wait(OWN, SETTLE_MICROS)?;
    edu.acknowledge(1);
    scene.holds(
        "own_message_arrives",
        came && isolated,
        format_args!("{came}, isolation promised: {isolated}"),
    );

    let page = scene.shared_pages(1)?;
    let (address, data) = message(scene, &device)?;
    if let Some(memory) = page.memory() {
        memory.write(0, &address.to_le_bytes());
        memory.write(8, &data.to_le_bytes());
    }
    aim.give(&page)?;
    scene.hear(&aim)?;
    let came = scene.poll(OWN);
    scene.holds(
        "message_of_another_is_blocked",
        !came,
        format_args!("{address:#x} and {data:#x} written by another's device, arrived: {came}"),
    );
    aim.signal();
    scene.hear(&aim)?;
    let came = scene.poll(OWN);
    scene.holds(
        "compatibility_format_is_blocked",
        !came,
        format_args!(
            "vectors {FIRST_VECTOR:#x} and {VECTORS} after it written by another's device, ours arrived: {came}"
        ),
    );
    edu.raise(1);
    let came = scene.wait(OWN, SETTLE_MICROS)?;
    edu.acknowledge(1);
    scene.holds("own_message_still_arrives", came, format_args!("{came}"));
    interrupts.disable()
}

/// Writes a message by DMA: first into the device, then to where messages go.
fn write<M: Mmio>(
    scene: &Scene,
    edu: &mut Edu<M>,
    (buffer, iova): (&OurBuffer<'_>, u64),
    (address, data): (u64, u32),
) -> Result<(), Error> {
    if let Some(memory) = buffer.memory() {
        memory.write(0, &data.to_le_bytes());
    }
    edu.fetch(iova, 0, 4, Completion::Poll);
    scene.settle()?;
    edu.store(0, address, 4, Completion::Poll);
    scene.settle()
}

/// Forges messages by its own device.
pub fn forger(scene: &Scene) -> Result<(), Error> {
    let aim = scene.channel("aim")?;
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, OWN)?;
    device.bus_master(Switch::On)?;
    let buffer = scene.pages(1)?;
    let iova = map(&buffer)?;
    let from = (&buffer, iova);

    // The trick works where it may: the checks below, and the target's, would see it.
    let own = message(scene, &device)?;
    write(scene, &mut edu, from, own)?;
    let came = scene.poll(OWN);
    scene.holds(
        "own_message_by_dma_arrives",
        came && own.0 & REMAPPABLE != 0,
        format_args!("{:#x} and {:#x}: {came}", own.0, own.1),
    );
    // All of the first entries in one sweep, ours among them, and the target's.
    edu.store(0, MESSAGES, MOST, Completion::Poll);
    scene.settle()?;
    scene.poll(OWN);
    let absent = MESSAGES | REMAPPABLE | ABSENT;
    write(scene, &mut edu, from, (absent, 0))?;
    let came = scene.poll(OWN);
    scene.holds(
        "absent_entry_is_blocked",
        !came,
        format_args!("{absent:#x}: {came}"),
    );

    // What is looked up names its vector itself: an exception's number in the data changes nothing.
    let mut own_came = 0;
    for vector in 0..EXCEPTIONS {
        write(scene, &mut edu, from, (own.0, vector))?;
        own_came += u32::from(scene.poll(OWN));
    }
    scene.holds(
        "exception_as_data_is_not_taken",
        true,
        format_args!(
            "0 to {:#x} as data at {:#x}: alive, {own_came} of our own came",
            EXCEPTIONS - 1,
            own.0
        ),
    );

    let note = scene.receive(&aim)?;
    let mut bytes = [0; 12];
    if let Some(memory) = note.memory() {
        memory.read(0, &mut bytes);
    }
    let [a, b, c, d, e, f, g, h, data @ ..] = bytes;
    let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    write(scene, &mut edu, from, (address, u32::from_le_bytes(data)))?;
    let came = scene.poll(OWN);
    scene.holds(
        "forgery_does_not_come_back",
        !came,
        format_args!("{address:#x}: {came}"),
    );
    aim.signal();
    scene.hear(&aim)?;
    for vector in FIRST_VECTOR..FIRST_VECTOR + VECTORS {
        write(scene, &mut edu, from, (MESSAGES, vector))?;
    }
    aim.signal();
    interrupts.disable()
}

/// Writes a page fault's number as a message in the format of before remapping. Without a unit that blocks it this is the
/// system's end.
pub fn exception(scene: &Scene) -> Result<(), Error> {
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    let buffer = scene.pages(1)?;
    let iova = map(&buffer)?;
    scene.holds(
        "about_to",
        device.properties().interrupts_isolated,
        format_args!("{PAGE_FAULT:#x} to {MESSAGES:#x}"),
    );
    write(scene, &mut edu, (&buffer, iova), (MESSAGES, PAGE_FAULT))?;
    scene.holds("exception_is_blocked", true, format_args!("alive"));
    Ok(())
}
