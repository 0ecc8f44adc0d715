//! [`Bridge`]: builds a function with a type 1 header. Capabilities come from
//! the endpoint it is made of ([`Bridge::with`]).

use super::endpoint::Endpoint;
use super::space::Space;

/// Builds a PCI-to-PCI bridge.
#[derive(Clone, Debug)]
pub struct Bridge {
    endpoint: Endpoint,
}

impl Bridge {
    /// A bridge on bus `primary` that leads to buses `secondary` to `subordinate`, with all windows closed.
    #[must_use]
    pub fn new(primary: u8, secondary: u8, subordinate: u8) -> Self {
        let mut endpoint = Endpoint::new(0x1b36, 0x000c)
            .class(0x06, 0x04, 0x00)
            .raw(0x0e, &[0x01]);
        let space = &mut endpoint.space;
        space.poke(0x18, &[primary, secondary, subordinate]);
        space.allow(0x18, &[0xff, 0xff, 0xff]);
        // IO base above limit, 32-bit; memory and prefetchable (64-bit) the same.
        space.set(0x1c, &[0x01, 0x01]);
        space.poke(0x1c, &[0xf1, 0x01]);
        space.allow(0x1c, &[0xf0, 0xf0]);
        space.allow_clear(0x1e, &0xf900u16.to_le_bytes());
        space.poke(0x20, &[0xf0, 0xff, 0x00, 0x00]);
        space.allow(0x20, &[0xf0, 0xff, 0xf0, 0xff]);
        space.set(0x24, &[0x01, 0x00, 0x01, 0x00]);
        space.poke(0x24, &[0xf1, 0xff, 0x01, 0x00]);
        space.allow(0x24, &[0xf0, 0xff, 0xf0, 0xff]);
        space.allow(0x28, &[0xff; 8]);
        space.allow(0x30, &[0xff; 4]);
        space.allow(0x3e, &0x005fu16.to_le_bytes());
        Self { endpoint }
    }

    /// Adds what any function can have, for instance capabilities.
    #[must_use]
    pub fn with(mut self, add: impl FnOnce(Endpoint) -> Endpoint) -> Self {
        self.endpoint = add(self.endpoint);
        self
    }

    /// Opens the non-prefetchable window: inclusive, multiples of 1 MiB.
    #[must_use]
    pub fn memory(mut self, base: u32, limit: u32) -> Self {
        let halves = [(base >> 16) as u16 & 0xfff0, (limit >> 16) as u16 & 0xfff0];
        self.endpoint.space.poke(0x20, &halves[0].to_le_bytes());
        self.endpoint.space.poke(0x22, &halves[1].to_le_bytes());
        self
    }

    /// Opens the prefetchable window: inclusive, multiples of 1 MiB, 64 bits.
    #[must_use]
    pub fn prefetchable(mut self, base: u64, limit: u64) -> Self {
        let half = |address: u64| ((address >> 16) as u16 & 0xfff0 | 1).to_le_bytes();
        let upper = |address: u64| ((address >> 32) as u32).to_le_bytes();
        let space = &mut self.endpoint.space;
        space.poke(0x24, &half(base));
        space.poke(0x26, &half(limit));
        space.poke(0x28, &upper(base));
        space.poke(0x2c, &upper(limit));
        self
    }

    /// Opens the IO window: inclusive, multiples of 4 KiB, 16 bits.
    #[must_use]
    pub fn io(mut self, base: u16, limit: u16) -> Self {
        let byte = |port: u16| (port >> 8) as u8 & 0xf0 | 1;
        self.endpoint.space.poke(0x1c, &[byte(base), byte(limit)]);
        self
    }
}

impl From<Bridge> for Space {
    fn from(bridge: Bridge) -> Self {
        bridge.endpoint.space
    }
}
