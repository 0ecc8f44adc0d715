//! Work of all kinds with an `edu` device: configuration space, assignment, DMA memory whose bytes are looked at,
//! messages. In random order, from a seed.

use client::{
    ANY_IOVA, Access, Client, Device, Error, Mechanism, Memory, PagePreference, Sbdf, Switch, Width,
};
use edu_driver::{Completion, DEVICE, Edu, MOST, VENDOR};
use system::info::ClientInfo;
use system::layout::event;

use crate::counted::Counted;
use crate::{Account, OurClient, PATIENCE_MICROS, signalled};

const PAGE: usize = 4096;
/// Pages of a buffer, at most.
const PAGES: u64 = 8;
/// Pieces of work in a device's life, at most.
const PIECES: u64 = 40;
/// One piece in so many is a transfer by the device, which takes it 100 ms each way.
const TRANSFERS: u64 = 64;
/// A message that has not come by then is missing; so is a transfer's end.
const MESSAGE_MICROS: u64 = 5_000_000;
/// What an interrupt is raised with.
const BITS: u32 = 1;

/// xorshift64* (Vigna 2016): good enough to mix work.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound.max(1)
    }
}

/// A worker's state.
struct Worker<'c, 'p> {
    client: &'c OurClient<'p>,
    random: Random,
    account: Account,
}

/// Works for `seconds`, with a `seed`.
pub fn run(
    platform: &Counted,
    info: &'static ClientInfo,
    seconds: u64,
    seed: u64,
) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let name = &info.channels.first().ok_or(Error::NotFound)?.name;
    let channel = client.channel(name).ok_or(Error::NotFound)?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let mut worker = Worker {
        client: &client,
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        account: Account {
            shard: client.shard_of(found.device)?.into(),
            ..Account::default()
        },
    };
    channel.signal();
    signalled(&client, channel.flag(), PATIENCE_MICROS)?;
    platform.reset();
    let end = client.timer().now()?.micros + 1_000_000 * seconds;
    while client.timer().now()?.micros < end {
        worker.life(found.device)?;
    }

    let page = client.shared_buffer(PAGE as u64, PagePreference::Small)?;
    let mut account = worker.account;
    account.requests = platform.requests();
    account.lost = platform.lost();
    if !account.write(page.memory().ok_or(Error::NotFound)?) {
        return Err(Error::NotFound);
    }
    channel.give(&page)?;
    // Nothing is asked for any more until all is counted.
    page.keep();
    signalled(&client, channel.flag(), PATIENCE_MICROS)
}

impl<'p> Worker<'_, 'p> {
    /// The device is taken, worked with and given back.
    fn life(&mut self, at: Sbdf) -> Result<(), Error> {
        let client = self.client;
        let device = match self.random.below(2) {
            0 => client.assign(at)?,
            _ => client.assign_private(at)?,
        };
        let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
        device.bus_master(Switch::On)?;
        for _ in 0..self.random.below(PIECES) {
            match self.random.below(4) {
                0 => self.configuration(&device)?,
                1 => self.memory(&device)?,
                2 => self.message(&device, &mut edu)?,
                _ if self.random.below(TRANSFERS / 4) == 0 => self.transfer(&device, &mut edu)?,
                _ => self.configuration(&device)?,
            }
        }
        device.bus_master(Switch::Off)?;
        drop(edu);
        device.release()?;
        self.account.lives += 1;
        Ok(())
    }

    fn compare(&mut self, bytes: u64, wrong: u64) {
        self.account.bytes += bytes;
        self.account.wrong += wrong;
    }

    /// Registers that are known.
    fn configuration(&mut self, device: &Device<'_, 'p, Counted>) -> Result<(), Error> {
        let ids = u32::from(DEVICE) << 16 | u32::from(VENDOR);
        for _ in 0..=self.random.below(8) {
            let read = device.config_read(0, Width::Dword)?;
            self.compare(4, u64::from(read != ids));
        }
        device.bus_master(Switch::On)
    }

    /// A buffer: fresh memory is zero, and keeps what is written.
    fn memory(&mut self, device: &Device<'_, 'p, Counted>) -> Result<(), Error> {
        let pages = 1 + self.random.below(PAGES) as usize;
        let buffer = self
            .client
            .buffer((pages * PAGE) as u64, PagePreference::Small)?;
        let memory = buffer.memory().ok_or(Error::NotFound)?;
        let seed = self.random.below(u64::from(u32::MAX));
        for page in 0..pages {
            let wrong = differing(memory, page * PAGE, |_| 0);
            self.compare(PAGE as u64, wrong);
            fill(memory, page * PAGE, |at| pattern(seed, at));
        }
        buffer.map_for(device, ANY_IOVA, Access::ReadWrite)?;
        buffer.unmap()?;
        for page in 0..pages {
            let wrong = differing(memory, page * PAGE, |at| pattern(seed, at));
            self.compare(PAGE as u64, wrong);
        }
        buffer.free()
    }

    /// A message of the device.
    fn message<M: client::Mmio>(
        &mut self,
        device: &Device<'_, 'p, Counted>,
        edu: &mut Edu<M>,
    ) -> Result<(), Error> {
        let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
        for _ in 0..=self.random.below(4) {
            edu.raise(BITS);
            let came = self.client.wait_for(event::OWN, MESSAGE_MICROS)? != 0;
            edu.acknowledge(BITS);
            self.account.messages += 1;
            self.account.missing += u64::from(!came);
        }
        interrupts.disable()
    }

    /// The device fetches a page and stores it elsewhere.
    fn transfer<M: client::Mmio>(
        &mut self,
        device: &Device<'_, 'p, Counted>,
        edu: &mut Edu<M>,
    ) -> Result<(), Error> {
        let buffer = self.client.buffer(2 * PAGE as u64, PagePreference::Small)?;
        let memory = buffer.memory().ok_or(Error::NotFound)?;
        let iova = buffer.map_for(device, ANY_IOVA, Access::ReadWrite)?;
        let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
        let seed = self.random.below(u64::from(u32::MAX));
        fill(memory, 0, |at| pattern(seed, at));
        edu.fetch(iova, 0, MOST, Completion::Interrupt);
        self.completed(edu)?;
        edu.store(0, iova + PAGE as u64, MOST, Completion::Interrupt);
        self.completed(edu)?;
        // The device does not move the last byte.
        let last = PAGE - 1;
        let expected = |at: usize| if at == last { 0 } else { pattern(seed, at) };
        let wrong = differing(memory, PAGE, |at| expected(at - PAGE));
        self.compare(PAGE as u64, wrong);
        interrupts.disable()?;
        buffer.unmap()?;
        buffer.free()
    }

    fn completed<M: client::Mmio>(&mut self, edu: &mut Edu<M>) -> Result<(), Error> {
        let came = self.client.wait_for(event::OWN, MESSAGE_MICROS)? != 0;
        let status = edu.raised();
        edu.acknowledge(status);
        self.account.messages += 1;
        self.account.missing += u64::from(!came || edu.busy());
        Ok(())
    }
}

/// What byte `at` of a buffer is to be.
fn pattern(seed: u64, at: usize) -> u8 {
    (seed as u32)
        .wrapping_add(at as u32)
        .wrapping_mul(2_654_435_761)
        .to_be_bytes()[0]
        | 1
}

fn fill(memory: &impl Memory, from: usize, byte: impl Fn(usize) -> u8) {
    let mut page = [0; PAGE];
    for (at, slot) in page.iter_mut().enumerate() {
        *slot = byte(from + at);
    }
    memory.write(from, &page);
}

/// Bytes of a page that are not what they should be.
fn differing(memory: &impl Memory, from: usize, byte: impl Fn(usize) -> u8) -> u64 {
    let mut page = [0; PAGE];
    if !memory.read(from, &mut page) {
        return PAGE as u64;
    }
    let bytes = page.iter().enumerate();
    bytes.filter(|(at, got)| **got != byte(from + at)).count() as u64
}
