//! [`Mover`]: the device, moving bytes and waiting until it has. [`Page`]: memory and what is in it.

use client::{ANY_IOVA, Access, Buffer, Error, Fault, Memory, Mmio, PagePreference, Sbdf};
use edu_driver::{Completion, Edu};
use sel4_client::SeL4Platform;

use crate::OurClient;

pub type OurBuffer<'c> = Buffer<'c, 'static, SeL4Platform>;

/// Bytes of an attempt.
pub const BYTES: usize = 256;
/// A transfer takes 100 ms of the device's time; it is looked at so often, at most so many times.
const LOOK_MICROS: u64 = 20_000;
const LOOKS: u32 = 250;

/// A pattern that differs from place to place and from seed to seed.
pub fn pattern(seed: u8, at: usize) -> u8 {
    (at as u32 ^ u32::from(seed) << 8)
        .wrapping_mul(2_654_435_761)
        .to_be_bytes()[0]
        ^ at as u8
}

/// The device.
pub struct Mover<'c, M> {
    client: &'c OurClient,
    edu: Edu<M>,
    pub address: Sbdf,
    records: Records,
}

/// What is to be told of a DMA that was blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Records {
    /// Nothing ever.
    None,
    /// A record that names the device.
    OfTheDevice,
    /// A record that names the bridge before it.
    OfABridge,
    /// It was promised, but this machine cannot.
    Unlogged,
}

impl<'c, M: Mmio> Mover<'c, M> {
    pub fn new(client: &'c OurClient, edu: Edu<M>, address: Sbdf, records: Records) -> Self {
        Self {
            client,
            edu,
            address,
            records,
        }
    }

    /// The device reads `count` bytes at `from` into its own memory.
    pub fn fetch(&mut self, from: u64, count: usize) -> Result<(), Error> {
        self.edu.fetch(from, 0, count as u64, Completion::Poll);
        self.settle()
    }

    /// The device writes `count` bytes of its own memory to `to`.
    pub fn store(&mut self, to: u64, count: usize) -> Result<(), Error> {
        self.edu.store(0, to, count as u64, Completion::Poll);
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Error> {
        for _ in 0..LOOKS {
            if !self.edu.busy() {
                return Ok(());
            }
            self.client.wait_for(0, LOOK_MICROS)?;
        }
        Err(Error::NotFound)
    }

    /// Forgets the fault records so far.
    pub fn drain(&self) -> Result<(), Error> {
        // A client's queue of records is bounded; 64 is more than it holds.
        for _ in 0..64 {
            if self.client.next_fault()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Whether what is told of the last attempt agrees with what was promised: a record of the device at this page,
    /// or nothing at all.
    pub fn told(&self, at: u64, access: Access) -> Result<(bool, Option<Fault>), Error> {
        let mut newest = None;
        for _ in 0..64 {
            match self.client.next_fault()? {
                Some(fault) => newest = Some(fault),
                None => break,
            }
        }
        let at_the_page = newest
            .is_some_and(|fault| fault.address & !0xfff == at & !0xfff && fault.access == access);
        let device = newest.map(|fault| fault.device);
        let as_promised = match self.records {
            Records::None => newest.is_none(),
            Records::OfTheDevice => at_the_page && device == Some(self.address),
            Records::OfABridge => at_the_page && device != Some(self.address),
            Records::Unlogged => true,
        };
        Ok((as_promised, newest))
    }
}

/// DMA memory that holds a pattern.
pub struct Page<'c> {
    pub buffer: OurBuffer<'c>,
    bytes: usize,
}

impl<'c> Page<'c> {
    /// `bytes` (a few pages) of a pattern.
    pub fn new(
        client: &'c OurClient,
        bytes: u64,
        pages: PagePreference,
        seed: u8,
    ) -> Result<Self, Error> {
        let page = Self {
            buffer: client.buffer(bytes, pages)?,
            bytes: bytes as usize,
        };
        page.fill(seed);
        Ok(page)
    }

    /// One page of 4 KiB.
    pub fn small(client: &'c OurClient, seed: u8) -> Result<Self, Error> {
        Self::new(client, 4096, PagePreference::Small, seed)
    }

    /// Lets the devices reach it.
    pub fn map(&self, access: Access) -> Result<u64, Error> {
        self.buffer.map(ANY_IOVA, access)
    }

    pub fn fill(&self, seed: u8) {
        let mut chunk = [0; BYTES];
        for from in (0..self.bytes).step_by(BYTES) {
            (from..)
                .zip(&mut chunk)
                .for_each(|(at, byte)| *byte = pattern(seed, at));
            if let Some(memory) = self.buffer.memory() {
                memory.write(from, &chunk);
            }
        }
    }

    /// Bytes that differ from the pattern, but for `count` from `at` on, which hold the pattern of `other` from
    /// its place `from` on.
    pub fn wrong(
        &self,
        seed: u8,
        (at, count): (usize, usize),
        (other, from): (u8, usize),
    ) -> usize {
        let mut chunk = [0; BYTES];
        let mut wrong = 0;
        for first in (0..self.bytes).step_by(BYTES) {
            let read = self
                .buffer
                .memory()
                .is_some_and(|memory| memory.read(first, &mut chunk));
            if !read {
                return self.bytes;
            }
            for (place, byte) in (first..).zip(&chunk) {
                let expected = if (at..at + count).contains(&place) {
                    pattern(other, from + place - at)
                } else {
                    pattern(seed, place)
                };
                wrong += usize::from(*byte != expected);
            }
        }
        wrong
    }

    /// Bytes that are not as they were filled.
    pub fn touched(&self, seed: u8) -> usize {
        self.wrong(seed, (0, 0), (seed, 0))
    }
}
