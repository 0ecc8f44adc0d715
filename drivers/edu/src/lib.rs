//! [`Edu`]: the registers of QEMU's teaching device (1234:11e8), generic over
//! how they are reached. Layout: QEMU's `docs/specs/edu.rst`.
//!
//! Used by `edu-driver`, and by the test programs that need a device with a
//! DMA engine whose every move they choose.

#![no_std]
#![forbid(unsafe_code)]

use client::Mmio;

/// Vendor id.
pub const VENDOR: u16 = 0x1234;
/// Device id.
pub const DEVICE: u16 = 0x11e8;
/// Identification register of version 1.0.
pub const IDENTIFICATION: u32 = 0x0100_00ed;
/// Where the device's internal buffer begins in its own address space.
pub const INTERNAL: u64 = 0x4_0000;
/// Most bytes that one transfer moves: QEMU 7.2 aborts when a transfer touches the last byte of the 4 KiB buffer.
pub const MOST: u64 = 4095;
/// Interrupt status of a completed transfer.
pub const COMPLETED: u32 = 0x100;

mod register {
    pub const IDENTIFICATION: usize = 0x00;
    pub const INTERRUPT_STATUS: usize = 0x24;
    pub const INTERRUPT_RAISE: usize = 0x60;
    pub const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
    pub const SOURCE: usize = 0x80;
    pub const DESTINATION: usize = 0x88;
    pub const COUNT: usize = 0x90;
    pub const COMMAND: usize = 0x98;
}

const START: u64 = 1;
const FROM_DEVICE: u64 = 2;
const INTERRUPT: u64 = 4;

/// How a transfer tells that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// By an interrupt.
    Interrupt,
    /// By [`Edu::busy`] alone.
    Poll,
}

impl Completion {
    const fn bits(self) -> u64 {
        match self {
            Self::Interrupt => INTERRUPT,
            Self::Poll => 0,
        }
    }
}

/// The device's registers.
pub struct Edu<M>(pub M);

impl<M: Mmio> Edu<M> {
    /// The identification register.
    pub fn identification(&self) -> u32 {
        self.0.read32(register::IDENTIFICATION)
    }

    /// Raises an interrupt with these status bits.
    #[inline(always)]
    pub fn raise(&mut self, bits: u32) {
        self.0.write32(register::INTERRUPT_RAISE, bits);
    }

    /// Status bits of the raised interrupts.
    pub fn raised(&self) -> u32 {
        self.0.read32(register::INTERRUPT_STATUS)
    }

    /// Clears status bits.
    #[inline(always)]
    pub fn acknowledge(&mut self, bits: u32) {
        self.0.write32(register::INTERRUPT_ACKNOWLEDGE, bits);
    }

    /// Whether a transfer is under way.
    pub fn busy(&self) -> bool {
        self.0.read32(register::COMMAND) & START as u32 != 0
    }

    /// Starts moving `count` bytes (at most [`MOST`]) from I/O virtual address `from` into the device at `offset`.
    pub fn fetch(&mut self, from: u64, offset: u64, count: u64, completion: Completion) {
        self.transfer(from, INTERNAL + offset, count, START | completion.bits());
    }

    /// Starts moving `count` bytes (at most [`MOST`]) from the device at `offset` to I/O virtual address `to`.
    pub fn store(&mut self, offset: u64, to: u64, count: u64, completion: Completion) {
        self.transfer(
            INTERNAL + offset,
            to,
            count,
            START | FROM_DEVICE | completion.bits(),
        );
    }

    fn transfer(&mut self, from: u64, to: u64, count: u64, command: u64) {
        self.0.write64(register::SOURCE, from);
        self.0.write64(register::DESTINATION, to);
        self.0.write64(register::COUNT, count.min(MOST));
        self.0.write64(register::COMMAND, command);
    }
}
