//! A virtio block device (QEMU's `virtio-blk-pci`, modern, behind an IOMMU): a message for each of its queues, by MSI-X. A request
//! that is done sends its queue's message; what is asked for is the disk's name, which the device answers at once.
//! Sections are those of the Virtual I/O Device specification 1.2.

use client::{
    ANY_IOVA, Access, CapabilityListKind, Error, Mechanism, Memory, Mmio, PagePreference, Platform,
    Registers, Switch, Width,
};
use sel4_client::SeL4Platform;

use crate::sources::{Card, Source};
use crate::{Probe, suite};

const VENDOR: u16 = 0x1af4;
const DEVICE: u16 = 0x1042;
/// Queues, and so messages.
const QUEUES: u16 = 8;
const PAGE: usize = 4096;
/// Looks at a device in its reset before it is given up.
const LOOKS: u32 = 1_000;
/// Vendor capability (4.1.4), and its kinds.
const VENDOR_SPECIFIC: u16 = 0x09;
const COMMON: u32 = 1;
const NOTIFICATIONS: u32 = 2;

/// The common configuration (4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub const DEVICE_FEATURE: usize = 0x04;
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub const DRIVER_FEATURE: usize = 0x0c;
    pub const STATUS: usize = 0x14;
    pub const QUEUE_SELECT: usize = 0x16;
    pub const QUEUE_SIZE: usize = 0x18;
    pub const QUEUE_MESSAGE: usize = 0x1a;
    pub const QUEUE_ENABLE: usize = 0x1c;
    pub const QUEUE_NOTIFY: usize = 0x1e;
    pub const QUEUE_DESCRIPTORS: usize = 0x20;
    pub const QUEUE_DRIVER: usize = 0x28;
    pub const QUEUE_DEVICE: usize = 0x30;
}

/// Device status (2.1).
mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
}

/// Features in each word of 32 that are asked for: several queues (5.2.3); version 1 and access through the platform's
/// IOMMU (6), of which the second has to be there.
const FEATURES: [u32; 2] = [1 << 12, 0b11];

/// A queue's page: descriptors, available ring, used ring (2.7), and the one request.
const ENTRIES: u16 = 16;
const AVAILABLE: usize = 0x100;
const USED: usize = 0x200;
const HEADER: usize = 0x400;
const NAME: usize = 0x440;
const OUTCOME: usize = 0x480;
/// Descriptor flags (2.7.5).
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// "Get the device's name" (5.2.6), and the name's bytes.
const GET_ID: u32 = 8;
const NAME_BYTES: u32 = 20;

type Mapped<'d> = Registers<'d, 'static, SeL4Platform>;
type Region = <SeL4Platform as Platform>::Registers;

/// Registers of the device that a vendor capability names.
struct Part<'d> {
    registers: Mapped<'d>,
    /// Of the first, in what is mapped.
    offset: usize,
    /// Bytes between two queues' notification registers (4.1.4.4).
    multiplier: u32,
}

impl Part<'_> {
    fn region(&self) -> Region {
        *self.registers
    }
}

/// What of the device is used.
struct Disk<'d, M> {
    notifications: Part<'d>,
    memory: M,
    /// Of each queue: where it is notified, and requests so far.
    queues: [(usize, u16); QUEUES as usize],
}

impl<M: Memory> Source for Disk<'_, M> {
    fn raise(&mut self, message: u16) {
        let Some((register, count)) = self.queues.get_mut(usize::from(message)) else {
            return;
        };
        let page = PAGE * usize::from(message);
        // The ring's entries all name the one request; it was done before it is asked for again.
        *count = count.wrapping_add(1);
        (self.memory).write(page + AVAILABLE + 2, &count.to_le_bytes());
        let register = *register;
        self.notifications.region().write16(register, message);
    }

    fn settle(&mut self, _message: u16) {}
}

/// The part of the device with this kind of registers.
fn part<'d>(probe: &Probe, device: &'d Card<'_>, wanted: u32) -> Result<Part<'d>, Error> {
    let read = |at, width| device.config_read(at, width);
    for entry in probe.client.capabilities(device.address()) {
        let entry = entry?;
        let at = entry.offset;
        let vendor = entry.list == CapabilityListKind::Standard && entry.id == VENDOR_SPECIFIC;
        if !vendor || read(at + 3, Width::Byte)? != wanted {
            continue;
        }
        let bar = read(at + 4, Width::Byte)? as u8;
        let offset = read(at + 8, Width::Dword)?;
        let multiplier = match wanted {
            NOTIFICATIONS => read(at + 16, Width::Dword)?,
            _ => 0,
        };
        return Ok(Part {
            registers: device.map_bar_pages(bar, offset / PAGE as u32, 1)?,
            offset: offset as usize % PAGE,
            multiplier,
        });
    }
    Err(Error::NotFound)
}

/// A queue's page, with its request, as the device finds it at `iova`.
fn prepare(memory: &impl Memory, queue: u16, iova: u64) {
    let page = PAGE * usize::from(queue);
    memory.write(page, &[0; PAGE]);
    memory.write(page + HEADER, &GET_ID.to_le_bytes());
    let parts: [(usize, u32, u16); 3] = [
        (HEADER, 16, NEXT),
        (NAME, NAME_BYTES, NEXT | DEVICE_WRITES),
        (OUTCOME, 1, DEVICE_WRITES),
    ];
    for (n, (at, bytes, flags)) in (0u16..).zip(parts) {
        let mut descriptor = [0u8; 16];
        descriptor[..8].copy_from_slice(&(iova + at as u64).to_le_bytes());
        descriptor[8..12].copy_from_slice(&bytes.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..].copy_from_slice(&(n + 1).to_le_bytes());
        memory.write(page + 16 * usize::from(n), &descriptor);
    }
}

/// Resets the device and agrees on features.
fn agree(common: &mut Region) -> Result<(), &'static str> {
    common.write8(common::STATUS, 0);
    if (0..LOOKS).all(|_| common.read8(common::STATUS) != 0) {
        return Err("it stays in its reset");
    }
    let state = status::ACKNOWLEDGE | status::DRIVER;
    common.write8(common::STATUS, state);
    for (word, wanted) in (0u32..).zip(FEATURES) {
        common.write32(common::DEVICE_FEATURE_SELECT, word);
        let offered = common.read32(common::DEVICE_FEATURE);
        if offered & wanted != wanted {
            return Err("it has not the features that are needed");
        }
        common.write32(common::DRIVER_FEATURE_SELECT, word);
        common.write32(common::DRIVER_FEATURE, wanted);
    }
    common.write8(common::STATUS, state | status::FEATURES_OK);
    match common.read8(common::STATUS) & status::FEATURES_OK {
        0 => Err("it does not agree on features"),
        _ => Ok(()),
    }
}

/// Lets a queue work, with the message of its number; which of the notification registers is its own.
fn start(common: &mut Region, queue: u16, iova: u64) -> Result<u16, &'static str> {
    common.write16(common::QUEUE_SELECT, queue);
    if common.read16(common::QUEUE_SIZE) < ENTRIES {
        return Err("it has fewer queues");
    }
    common.write16(common::QUEUE_SIZE, ENTRIES);
    common.write16(common::QUEUE_MESSAGE, queue);
    if common.read16(common::QUEUE_MESSAGE) != queue {
        return Err("it has fewer messages");
    }
    let rings = [
        (common::QUEUE_DESCRIPTORS, 0),
        (common::QUEUE_DRIVER, AVAILABLE),
        (common::QUEUE_DEVICE, USED),
    ];
    for (register, at) in rings {
        let address = iova + at as u64;
        common.write32(register, address as u32);
        common.write32(register + 4, (address >> 32) as u32);
    }
    common.write16(common::QUEUE_ENABLE, 1);
    Ok(common.read16(common::QUEUE_NOTIFY))
}

/// Eight messages.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    let bytes = PAGE as u64 * u64::from(QUEUES);
    let buffer = probe.client.buffer(bytes, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    device.bus_master(Switch::On)?;
    let registers = part(probe, &device, COMMON)?;
    let notifications = part(probe, &device, NOTIFICATIONS)?;
    let failed = |why| {
        probe.check("virtio", false, format_args!("{why}"));
        Error::NotFound
    };
    if registers.offset != 0 {
        return Err(failed("its registers do not begin on a page"));
    }
    let mut common = registers.region();
    agree(&mut common).map_err(failed)?;
    let mut queues = [(0, 0); QUEUES as usize];
    for (queue, place) in (0..).zip(&mut queues) {
        let iova = iova + PAGE as u64 * u64::from(queue);
        prepare(memory, queue, iova);
        let number = start(&mut common, queue, iova).map_err(failed)?;
        let skipped = notifications.multiplier.saturating_mul(number.into());
        place.0 = notifications.offset + skipped as usize;
    }
    let ready = common.read8(common::STATUS) | status::DRIVER_OK;
    common.write8(common::STATUS, ready);
    let mut disk = Disk {
        notifications,
        memory: *memory,
        queues,
    };
    suite::run(probe, &device, Mechanism::MsiX, QUEUES, &mut disk)?;
    // Each request was answered, with a name.
    let mut answered = 0;
    for (queue, (_, count)) in disk.queues.iter().enumerate() {
        let (mut used, mut outcome) = ([0; 2], [u8::MAX]);
        memory.read(PAGE * queue + USED + 2, &mut used);
        memory.read(PAGE * queue + OUTCOME, &mut outcome);
        answered += u16::from(u16::from_le_bytes(used) == *count && outcome == [0]);
    }
    probe.check(
        "requests_answered",
        answered == QUEUES,
        format_args!("on {answered} of {QUEUES} queues"),
    );
    Ok(())
}
