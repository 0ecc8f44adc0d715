//! A window of registers that are plain memory: for tables in BARs, and as a
//! base for device models.

/// Memory behind [`hw::Mmio`], little-endian, with a count of accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: Vec<u8>,
    /// Writes so far, those that missed not among them.
    pub writes: usize,
}

impl Memory {
    /// `length` bytes of zero.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self {
            bytes: vec![0; length],
            writes: 0,
        }
    }

    /// All bytes as they are now.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        let aligned = offset.is_multiple_of(N);
        let found = offset
            .checked_add(N)
            .and_then(|end| self.bytes.get(offset..end))
            .filter(|_| aligned)
            .and_then(|bytes| bytes.try_into().ok());
        found.unwrap_or([0xff; N])
    }

    fn write<const N: usize>(&mut self, offset: usize, value: [u8; N]) {
        if !offset.is_multiple_of(N) {
            return;
        }
        let place = offset
            .checked_add(N)
            .and_then(|end| self.bytes.get_mut(offset..end));
        if let Some(place) = place {
            place.copy_from_slice(&value);
            self.writes += 1;
        }
    }
}

impl hw::Mmio for Memory {
    fn len(&self) -> usize {
        self.bytes.len()
    }
    fn read32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }
    fn read64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.read(offset))
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.write(offset, value.to_le_bytes());
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.write(offset, value.to_le_bytes());
    }
}
