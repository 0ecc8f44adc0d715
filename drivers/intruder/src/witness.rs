//! [`Witness`]: memory that an attack aims at, and whether it was touched.

use client::{Access, Buffer, Client, Error, Memory, PagePreference};
use sel4_client::SeL4Platform;

const MARK: u8 = 0xa5;
/// Bytes of a witness.
pub const BYTES: usize = 4096;

/// A page of DMA memory that holds a known pattern.
pub struct Witness<'c> {
    /// The memory.
    pub buffer: Buffer<'c, 'static, SeL4Platform>,
}

impl<'c> Witness<'c> {
    /// A fresh page, filled.
    pub fn new(client: &'c Client<'static, SeL4Platform>) -> Result<Self, Error> {
        let witness = Self {
            buffer: client.buffer(BYTES as u64, PagePreference::Small)?,
        };
        witness.reset();
        Ok(witness)
    }

    /// Fills it again.
    pub fn reset(&self) {
        if let Some(memory) = self.buffer.memory() {
            memory.write(0, &[MARK; BYTES]);
        }
    }

    /// How many bytes are not as they were.
    pub fn touched(&self) -> usize {
        let mut bytes = [0; BYTES];
        match self.buffer.memory() {
            Some(memory) if memory.read(0, &mut bytes) => {
                bytes.iter().filter(|&&byte| byte != MARK).count()
            }
            _ => BYTES,
        }
    }

    /// Lets the devices reach it.
    pub fn map(&self, access: Access) -> Result<u64, Error> {
        self.buffer.map(client::ANY_IOVA, access)
    }
}
