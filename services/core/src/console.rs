//! The console service: what every PD writes into its log ring, line by line on one serial line.
//!
//! - [`Assembler`]: bytes of one PD become lines, each behind the PD's name;
//! - [`Uart`]: the serial line;
//! - [`Console`]: the service over both, fair to all PDs.
//!
//! A PD is trusted with nothing: it cannot write a line that looks like another's, move the terminal's cursor
//! or keep others from writing.

mod assembler;
mod service;
mod uart;

pub use assembler::Assembler;
pub use service::{Console, TURN_BYTES};
pub use uart::{Ports, Uart};

/// Where text goes.
pub trait Output {
    /// Writes one byte.
    fn put(&mut self, byte: u8);

    /// Writes bytes.
    fn put_all(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.put(*byte));
    }
}
