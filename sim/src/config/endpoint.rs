//! [`Endpoint`]: builds a type 0 function register by register. BARs here,
//! capabilities in `capabilities.rs`.

use super::hostile::Misbehaviour;
use super::space::Space;

/// What a BAR decodes; `size` is in bytes, a power of two; `address` is what firmware programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarShape {
    /// IO ports, with all 32 address bits or, as many devices have it, 16.
    Io {
        /// Bytes.
        size: u32,
        /// First port.
        address: u32,
        /// Address bits that the register has.
        bits: u8,
    },
    /// Memory below 4 GiB.
    Memory32 {
        /// Bytes.
        size: u32,
        /// First address.
        address: u32,
        /// Marked prefetchable.
        prefetchable: bool,
    },
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Bytes.
        size: u64,
        /// First address.
        address: u64,
        /// Marked prefetchable.
        prefetchable: bool,
    },
    /// Any register: value, and which of its bits can be written. For what no honest device has.
    Raw {
        /// Value.
        value: u32,
        /// Writable bits.
        writable: u32,
    },
}

/// Builds an endpoint with a type 0 header.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) space: Space,
    /// Where the next capability goes, and the pointer that must lead to it.
    pub(super) next_capability: u16,
    pub(super) last_link: Option<u16>,
    pub(super) next_extended: u16,
    pub(super) last_extended: Option<u16>,
}

impl Endpoint {
    /// An endpoint with 4,096 bytes of configuration space, no BARs and no capabilities.
    #[must_use]
    pub fn new(vendor: u16, device: u16) -> Self {
        let mut space = Space::new(4096);
        space.set(0x00, &vendor.to_le_bytes());
        space.set(0x02, &device.to_le_bytes());
        // Command: IO, memory, master, parity, SERR, INTx disable.
        space.allow(0x04, &0x0547u16.to_le_bytes());
        // Status: the six error bits are cleared by writing ones.
        space.allow_clear(0x06, &0xf900u16.to_le_bytes());
        // Cache line size, interrupt line.
        space.allow(0x0c, &[0xff]);
        space.allow(0x3c, &[0xff]);
        Self {
            space,
            next_capability: 0x40,
            last_link: None,
            next_extended: 0x100,
            last_extended: None,
        }
    }

    /// Base class, sub-class and programming interface.
    #[must_use]
    pub fn class(mut self, base: u8, sub: u8, interface: u8) -> Self {
        self.space.set(0x09, &[interface, sub, base]);
        self
    }

    /// Revision.
    #[must_use]
    pub fn revision(mut self, revision: u8) -> Self {
        self.space.set(0x08, &[revision]);
        self
    }

    /// Says that the device has more functions.
    #[must_use]
    pub fn multi_function(mut self) -> Self {
        self.space.set(0x0e, &[0x80]);
        self
    }

    /// Subsystem vendor and id.
    #[must_use]
    pub fn subsystem(mut self, vendor: u16, id: u16) -> Self {
        self.space.set(0x2c, &vendor.to_le_bytes());
        self.space.set(0x2e, &id.to_le_bytes());
        self
    }

    /// Interrupt pin, 1 for INTA to 4 for INTD, and what firmware wrote as line.
    #[must_use]
    pub fn interrupt(mut self, pin: u8, line: u8) -> Self {
        self.space.set(0x3d, &[pin]);
        self.space.poke(0x3c, &[line]);
        self
    }

    /// Value of Command, as firmware left it.
    #[must_use]
    pub fn command(mut self, command: u16) -> Self {
        self.space.poke(0x04, &command.to_le_bytes());
        self
    }

    /// The BAR with number `index`.
    #[must_use]
    pub fn bar(mut self, index: u8, shape: BarShape) -> Self {
        assert!(index < 6, "BARs are 0 to 5, not {index}");
        let at = 0x10 + 4 * u16::from(index);
        match shape {
            BarShape::Io {
                size,
                address,
                bits,
            } => {
                assert!(size.is_power_of_two() && size >= 4, "IO BAR of {size}");
                let top = u32::MAX >> (32 - u32::from(bits));
                self.register(at, 0x1, address, !(size - 1) & top);
            }
            BarShape::Memory32 {
                size,
                address,
                prefetchable,
            } => {
                assert!(size.is_power_of_two() && size >= 16, "BAR of {size}");
                let kind = if prefetchable { 0x8 } else { 0x0 };
                self.register(at, kind, address, !(size - 1));
            }
            BarShape::Memory64 {
                size,
                address,
                prefetchable,
            } => {
                assert!(size.is_power_of_two() && size >= 16, "BAR of {size}");
                assert!(index < 5, "a 64-bit BAR takes two registers");
                let kind = if prefetchable { 0xc } else { 0x4 };
                let writable = !(size - 1);
                self.register(at, kind, address as u32, writable as u32);
                self.register(at + 4, 0, (address >> 32) as u32, (writable >> 32) as u32);
            }
            BarShape::Raw { value, writable } => {
                self.space.set(at, &value.to_le_bytes());
                self.space.allow(at, &writable.to_le_bytes());
            }
        }
        self
    }

    fn register(&mut self, at: u16, fixed: u32, address: u32, writable: u32) {
        assert!(
            address & !writable == 0,
            "address {address:#x} does not fit the register at {at:#x}"
        );
        self.space.set(at, &fixed.to_le_bytes());
        self.space.poke(at, &(fixed | address).to_le_bytes());
        self.space.allow(at, &writable.to_le_bytes());
    }

    /// The expansion ROM: `size` in bytes, at least 2 KiB.
    #[must_use]
    pub fn rom(mut self, size: u32, address: u32) -> Self {
        assert!(size.is_power_of_two() && size >= 2048, "ROM of {size}");
        let writable = !(size - 1) | 1;
        self.register(0x30, 0, address, writable);
        self
    }

    /// Says which bits of registers can be written.
    #[must_use]
    pub fn allow(mut self, offset: u16, mask: &[u8]) -> Self {
        self.space.allow(offset, mask);
        self
    }

    /// Says which bits of registers a write of one clears.
    #[must_use]
    pub fn allow_clear(mut self, offset: u16, mask: &[u8]) -> Self {
        self.space.allow_clear(offset, mask);
        self
    }

    /// Sets registers that no other method sets, or sets them wrongly.
    #[must_use]
    pub fn raw(mut self, offset: u16, bytes: &[u8]) -> Self {
        self.space.set(offset, bytes);
        self
    }

    /// Makes the function misbehave.
    #[must_use]
    pub fn misbehave(mut self, how: Misbehaviour) -> Self {
        self.space.misbehave(how);
        self
    }

    /// Answers this many reads after a reset with ones.
    #[must_use]
    pub fn quiet_after_reset(mut self, reads: u32) -> Self {
        self.space.quiet_after_reset = reads;
        self
    }
}

impl From<Endpoint> for Space {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.space
    }
}
