//! [`Uart`]: the serial line, a 16550 (National Semiconductor PC16550D, 8).
//!
//! Speed and format are as the firmware and the kernel left them.

use super::Output;

/// I/O ports of the serial line, by their offset from its first.
pub trait Ports {
    /// Reads a port.
    fn read(&mut self, port: u16) -> u8;
    /// Writes a port.
    fn write(&mut self, port: u16, value: u8);
}

/// Transmitter holding register.
const DATA: u16 = 0;
/// Written: FIFO control. Read: interrupt identification.
const FIFO: u16 = 2;
/// Line status.
const STATUS: u16 = 5;
/// FIFO control: both FIFOs are used.
const FIFO_ENABLE: u8 = 1;
/// Interrupt identification: the FIFOs work (both bits).
const FIFO_WORKS: u8 = 0xc0;
/// Line status: the transmitter takes more.
const EMPTY: u8 = 1 << 5;
/// Bytes that the transmitter takes when it is empty and has a FIFO.
const FIFO_BYTES: u8 = 16;
/// Reads of the line status until the line is taken for dead. At 9,600 baud sixteen bytes take 17 ms; a port
/// access takes a microsecond.
const POLLS: u32 = 100_000;

/// A serial line.
#[derive(Debug)]
pub struct Uart<P: Ports> {
    ports: P,
    /// Bytes that the transmitter takes at once.
    burst: u8,
    /// Bytes that can be written before the next look at the line status.
    room: u8,
    /// The transmitter did not become empty: there is no use in waiting again.
    dead: bool,
}

impl<P: Ports> Uart<P> {
    /// The line at `ports`, with its FIFO on if it has one.
    pub fn new(mut ports: P) -> Self {
        ports.write(FIFO, FIFO_ENABLE);
        let burst = if ports.read(FIFO) & FIFO_WORKS == FIFO_WORKS {
            FIFO_BYTES
        } else {
            1
        };
        Self {
            ports,
            burst,
            room: 0,
            dead: false,
        }
    }

    /// Waits until the transmitter is empty; a dead line is looked at once.
    fn wait(&mut self) {
        let polls = if self.dead { 1 } else { POLLS };
        let empty = (0..polls).any(|_| self.ports.read(STATUS) & EMPTY != 0);
        self.dead = !empty;
        self.room = if empty { self.burst } else { 1 };
    }
}

impl<P: Ports> Output for Uart<P> {
    fn put(&mut self, byte: u8) {
        if self.room == 0 {
            self.wait();
        }
        self.room -= 1;
        self.ports.write(DATA, byte);
    }
}
