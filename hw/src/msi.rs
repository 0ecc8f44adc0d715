//! Interrupt messages: what a device writes where ([`Message`]), and the layout
//! of an MSI-X table entry ([`entry`]).
//!
//! Formats: Intel SDM volume 3, 11.11 (message address and data), and VT-d 4.0,
//! 5.1.5.2 (remappable format). Where a function keeps its messages:
//! [`crate::capability::Msi`], [`crate::capability::Msix`].

use thiserror::Error;

/// Layout of an MSI-X table entry, in bytes from its start (PCIe 5.0, 7.7.2.5 to 8).
pub mod entry {
    /// Bytes that an entry takes.
    pub const BYTES: usize = 16;
    /// Message address, lower 32 bits.
    pub const ADDRESS: usize = 0;
    /// Message address, upper 32 bits.
    pub const UPPER_ADDRESS: usize = 4;
    /// Message data, 32 bits.
    pub const DATA: usize = 8;
    /// Vector control, 32 bits; bits above 0 keep their value ([`MASKED`]).
    pub const CONTROL: usize = 12;
    /// Vector control: the entry sends nothing.
    pub const MASKED: u32 = 1;
}

/// Where interrupt messages are written: 1 MiB from here on belongs to the local APICs.
pub const MESSAGE_BASE: u32 = 0xfee0_0000;

/// Why an interrupt message cannot be composed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum MessageError {
    /// Vectors below 32 are the processor's exceptions: a message with one would look
    /// like a fault of the kernel.
    #[error("vector {0:#x} is an exception of the processor")]
    ExceptionVector(u8),
}

/// A message: what a device writes to raise an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Message {
    /// Where, lower 32 bits.
    pub address: u32,
    /// Where, upper 32 bits; zero in every format of this module.
    pub upper_address: u32,
    /// What; MSI sends the lower 16 bits.
    pub data: u32,
}

impl Message {
    /// A fixed, edge-triggered interrupt `vector` for the core whose local APIC has the
    /// 8-bit id `apic`, in the compatibility format: any device can forge it.
    ///
    /// # Errors
    /// `vector` is below 32.
    pub const fn fixed(apic: u8, vector: u8) -> Result<Self, MessageError> {
        if vector < 32 {
            return Err(MessageError::ExceptionVector(vector));
        }
        Ok(Self {
            address: MESSAGE_BASE | (apic as u32) << 12,
            upper_address: 0,
            // Delivery mode fixed (0), edge (0).
            data: vector as u32,
        })
    }

    /// The interrupt of entry `handle` of the interrupt remapping table, with no sub-handle.
    #[must_use]
    pub const fn remappable(handle: u16) -> Self {
        let low = (handle as u32 & 0x7fff) << 5;
        let high = (handle as u32 >> 15) << 2;
        // Bit 4: remappable format. Bit 3 (sub-handle valid) stays clear.
        Self {
            address: MESSAGE_BASE | low | 1 << 4 | high,
            upper_address: 0,
            data: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_message_names_core_and_vector() {
        let message = Message::fixed(3, 0x4e).unwrap();
        assert_eq!(message.address, 0xfee0_3000);
        assert_eq!(message.upper_address, 0);
        assert_eq!(message.data, 0x4e);
    }

    #[test]
    fn exception_vectors_are_refused() {
        for vector in 0..32 {
            let refused = Err(MessageError::ExceptionVector(vector));
            assert_eq!(Message::fixed(0, vector), refused);
        }
        assert!(Message::fixed(0, 32).is_ok());
        assert!(Message::fixed(0xff, 0xff).is_ok());
    }

    #[test]
    fn remappable_message_splits_the_handle() {
        assert_eq!(Message::remappable(0).address, 0xfee0_0010);
        assert_eq!(Message::remappable(1).address, 0xfee0_0030);
        assert_eq!(Message::remappable(0x8001).address, 0xfee0_0034);
        assert_eq!(Message::remappable(0xffff).address, 0xfeef_fff4);
        assert_eq!(Message::remappable(0xffff).data, 0);
    }
}
