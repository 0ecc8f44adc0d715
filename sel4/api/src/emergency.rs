//! A serial line for the last words of a root task that was built for another kernel.
//!
//! Such a program knows neither the kernel's labels nor how this kernel gives out IO ports, so the usual way to
//! the serial line is closed to it, and a release kernel prints nothing. [`EmergencySerial`] finds the way by
//! trying: a capability refuses labels that are not its own, whatever their number. Only for a program that is about
//! to stop.

use core::fmt;

use sel4_sys::bootinfo::slot;
use sel4_sys::invocation::invoke;
use sel4_sys::{CPtr, Word};

use crate::Error;

/// Ports of the first serial line (16550).
const COM1: (Word, Word) = (0x3f8, 0x3ff);
/// Its Line Status register, whose bit 5 says that the transmitter takes a byte (16550 data sheet).
const LINE_STATUS: Word = COM1.0 + 5;
const TAKES_A_BYTE: Word = 1 << 5;
/// How often the line is asked whether it takes a byte.
const PATIENCE: u32 = 100_000;

/// Labels to try. Kernels have about 80.
const LABELS: core::ops::RangeInclusive<Word> = 1..=127;
/// From `X86_IOPort_In8` to `X86_IOPort_Out8`; in16 and in32 are between them (5.0.0 to 16.0.0).
const OUT8_AFTER_IN8: Word = 3;
/// From `X86_IOPortControl_Issue` to `X86_IOPort_In8` (13.0.0 to 16.0.0).
const IN8_AFTER_ISSUE: Word = 1;
/// A slot of the initial CSpace that is empty on every kernel for x86 that gives out ranges of ports.
const SPARE_SLOT: Word = 15;

/// The first serial line, by a way that was found out.
#[derive(Debug)]
pub struct EmergencySerial {
    ports: CPtr,
    in8: Word,
}

impl EmergencySerial {
    /// Finds the way, which needs the IPC buffer; `None` if there is none. A debug kernel reports each attempt.
    #[must_use]
    pub fn find() -> Option<Self> {
        for label in LABELS {
            let one_port = invoke(slot::IO_PORTS, label, [COM1.0], []);
            match one_port {
                // All ports, and the first label that takes a port and nothing else: it read a byte.
                Ok(_) => {
                    return Some(Self {
                        ports: slot::IO_PORTS,
                        in8: label,
                    });
                }
                // The control capability, and its only label, which wants more.
                Err(error) if Error::from_label(error) == Error::TruncatedMessage => {
                    let depth = Word::from(Word::BITS);
                    let range = [COM1.0, COM1.1, SPARE_SLOT, depth];
                    invoke(slot::IO_PORTS, label, range, [slot::CNODE]).ok()?;
                    return Some(Self {
                        ports: SPARE_SLOT,
                        in8: label + IN8_AFTER_ISSUE,
                    });
                }
                Err(_) => {}
            }
        }
        None
    }

    fn takes_a_byte(&self) -> bool {
        match invoke(self.ports, self.in8, [LINE_STATUS], []) {
            Ok([status, ..]) => status & TAKES_A_BYTE != 0,
            Err(_) => true,
        }
    }
}

impl fmt::Write for EmergencySerial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut patience = PATIENCE;
            while patience > 0 && !self.takes_a_byte() {
                patience -= 1;
            }
            let out8 = self.in8 + OUT8_AFTER_IN8;
            invoke(self.ports, out8, [COM1.0, byte.into()], []).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}
