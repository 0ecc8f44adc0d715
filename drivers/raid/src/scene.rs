//! [`Scene`]: what every role starts from, and [`Page`]: memory that an attack
//! aims at.

use core::cell::Cell;

use client::{
    ANY_IOVA, Access, Buffer, Channel, Client, Device, Error, Fault, Memory, Mmio, PagePreference,
    Sbdf, report,
};
use edu_driver::{Completion, DEVICE, Edu, MOST, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

/// How long an edu's transfer takes, with room: 100 ms of the device's time.
pub const SETTLE_MICROS: u64 = 200_000;
/// How long the other side of a channel may take.
const PATIENCE_MICROS: u64 = 20_000_000;
/// The machine does not report what it blocks.
const UNLOGGED: &str = "unlogged";
/// Bytes of a page.
pub const PAGE: usize = 4096;
/// What untouched memory holds.
const MARK: u8 = 0xa5;

/// A connection.
pub type OurClient = Client<'static, SeL4Platform>;
/// A held device.
pub type OurDevice<'s> = Device<'s, 'static, SeL4Platform>;
/// An end of a channel.
pub type OurChannel<'s> = Channel<'s, 'static, SeL4Platform>;
/// DMA memory.
pub type OurBuffer<'s> = Buffer<'s, 'static, SeL4Platform>;

/// What every role starts from.
pub struct Scene {
    /// The connection.
    pub client: OurClient,
    /// What the kernel does.
    pub platform: &'static SeL4Platform,
    /// Are blocked DMAs of our device told? The last that was taken says.
    tells: Cell<bool>,
}

impl Scene {
    /// Says hello to the servers.
    pub fn begin(
        platform: &'static SeL4Platform,
        info: &'static ClientInfo,
    ) -> Result<Self, Error> {
        let client = Client::connect(platform, info)?;
        Ok(Self {
            client,
            platform,
            tells: Cell::new(true),
        })
    }

    /// Waits until one of `flags` has been signalled, at most `micros`; says whether.
    pub fn wait(&self, flags: u64, micros: u64) -> Result<bool, Error> {
        Ok(self.client.wait_for(flags, micros)? != 0)
    }

    /// Has one of `flags` been signalled?
    pub fn poll(&self, flags: u64) -> bool {
        self.client.poll(flags) != 0
    }

    /// A named check.
    pub fn holds(&self, name: &str, ok: bool, detail: core::fmt::Arguments<'_>) {
        report::check(self.platform, name, ok, detail);
    }

    /// The end of a channel that the description must name.
    pub fn channel(&self, name: &str) -> Result<OurChannel<'_>, Error> {
        self.client.channel(name).ok_or(Error::NotFound)
    }

    /// Waits until the other end signals.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not.
    pub fn hear(&self, channel: &OurChannel<'_>) -> Result<(), Error> {
        match self.wait(channel.flag(), PATIENCE_MICROS)? {
            true => Ok(()),
            false => Err(Error::NotFound),
        }
    }

    /// Waits until the other end has given a buffer, and takes it.
    pub fn receive<'s>(&'s self, channel: &OurChannel<'s>) -> Result<OurBuffer<'s>, Error> {
        self.hear(channel)?;
        channel.take()?.ok_or(Error::NotFound)
    }

    /// Waits until a transfer that was begun has ended.
    pub fn settle(&self) -> Result<(), Error> {
        self.wait(0, SETTLE_MICROS)?;
        Ok(())
    }

    /// Number of a PD by name.
    pub fn pd(&self, name: &str) -> Result<u16, Error> {
        let mut pds = self.client.info().pds.iter();
        let found = pds.find(|(found, _)| found == name);
        found.map(|&(_, pd)| pd).ok_or(Error::NotFound)
    }

    /// Takes the first edu there is for us.
    pub fn edu(&self) -> Result<OurDevice<'_>, Error> {
        let device = self.client.assign_ids(VENDOR, DEVICE)?;
        self.note(&device);
        Ok(device)
    }

    /// Notes what is promised of a device that is tried next. Last in the arguments, `unlogged` says that the machine
    /// does not keep that promise.
    pub fn note(&self, device: &OurDevice<'_>) {
        let kept = !self.client.info().args.ends_with(UNLOGGED);
        self.tells.set(kept && device.properties().faults_reported);
    }

    /// Has the device move a whole buffer of its own to `to`, and waits for the end.
    pub fn store<M: Mmio>(&self, edu: &mut Edu<M>, to: u64) -> Result<(), Error> {
        edu.store(0, to, MOST, Completion::Poll);
        self.settle()
    }

    /// Has the device read [`MOST`] bytes at `from` and write them at `to`.
    pub fn copy<M: Mmio>(&self, edu: &mut Edu<M>, from: u64, to: u64) -> Result<(), Error> {
        edu.fetch(from, 0, MOST, Completion::Poll);
        self.settle()?;
        self.store(edu, to)
    }

    /// All fault records there are: how many, and whether one is of this device at this page, where they are told.
    pub fn faults(&self, device: Sbdf, at: u64) -> Result<Faults, Error> {
        let mut faults = Faults {
            count: 0,
            told: !self.tells.get(),
            newest: None,
        };
        // A client's queue of records is bounded; 64 is more than it holds.
        for _ in 0..64 {
            let Some(fault) = self.client.next_fault()? else {
                break;
            };
            faults.count += 1;
            faults.told |= fault.device == device && fault.address & !0xfff == at & !0xfff;
            faults.newest = Some(fault);
        }
        Ok(faults)
    }

    /// A fresh buffer of so many pages, each byte marked.
    pub fn pages(&self, pages: usize) -> Result<OurBuffer<'_>, Error> {
        let bytes = (pages * PAGE) as u64;
        let buffer = self.client.buffer(bytes, PagePreference::Small)?;
        mark(&buffer);
        Ok(buffer)
    }

    /// The same of memory that can be shared.
    pub fn shared_pages(&self, pages: usize) -> Result<OurBuffer<'_>, Error> {
        let bytes = (pages * PAGE) as u64;
        let buffer = self.client.shared_buffer(bytes, PagePreference::Small)?;
        mark(&buffer);
        Ok(buffer)
    }

    /// Physical address of a buffer's first page.
    pub fn physical(&self, buffer: &OurBuffer<'_>) -> Result<u64, Error> {
        Ok(self.platform.physical_address(buffer.frame_slots().first)?)
    }
}

/// Fault records that were waiting.
#[derive(Debug)]
pub struct Faults {
    /// How many.
    pub count: u32,
    /// Was what was asked for among them, or are they not told here?
    pub told: bool,
    /// The last.
    pub newest: Option<Fault>,
}

/// Marks every byte of a buffer.
pub fn mark(buffer: &OurBuffer<'_>) {
    if let Some(memory) = buffer.memory() {
        (0..memory.len() / PAGE).for_each(|page| {
            memory.write(page * PAGE, &[MARK; PAGE]);
        });
    }
}

/// How many bytes of a buffer are not as [`mark`] left them.
pub fn touched(buffer: &OurBuffer<'_>) -> usize {
    let Some(memory) = buffer.memory() else {
        return usize::MAX;
    };
    let mut bytes = [0; PAGE];
    let pages = 0..memory.len() / PAGE;
    pages
        .map(|page| {
            memory.read(page * PAGE, &mut bytes);
            bytes.iter().filter(|&&byte| byte != MARK).count()
        })
        .sum()
}

/// Byte `at` of a pattern; different for each `seed`.
fn pattern(seed: u32, at: usize) -> u8 {
    (at as u32 ^ seed << 16)
        .wrapping_mul(2_654_435_761)
        .to_be_bytes()[0]
        ^ at as u8
}

/// Fills a page of a buffer with a pattern.
pub fn fill(buffer: &OurBuffer<'_>, page: usize, seed: u32) {
    let bytes: [u8; PAGE] = core::array::from_fn(|at| pattern(seed, at));
    if let Some(memory) = buffer.memory() {
        memory.write(page * PAGE, &bytes);
    }
}

/// How many of the first [`MOST`] bytes of a page differ from the pattern.
pub fn wrong(buffer: &OurBuffer<'_>, page: usize, seed: u32) -> usize {
    let mut bytes = [0; PAGE];
    match buffer.memory() {
        Some(memory) if memory.read(page * PAGE, &mut bytes) => {
            let moved = bytes.iter().take(MOST as usize).enumerate();
            moved
                .filter(|(at, byte)| **byte != pattern(seed, *at))
                .count()
        }
        _ => PAGE,
    }
}

/// Maps a buffer for reading and writing by this PD's devices.
pub fn map(buffer: &OurBuffer<'_>) -> Result<u64, Error> {
    buffer.map(ANY_IOVA, Access::ReadWrite)
}
