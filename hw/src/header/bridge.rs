//! Bridges: bus numbers and what is forwarded, of PCI-to-PCI bridges, [`Bridge`]
//! (PCIe 5.0, 7.5.1.3), and of CardBus bridges, [`CardBus`] (PC Card Standard 8.1, volume 2).

use bitflags::bitflags;

use super::{Status, Subsystem, register};
use crate::{BusRange, ConfigSpace, Sbdf};

bitflags! {
    /// The Bridge Control register (PCIe 5.0, 7.5.1.3.13).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct BridgeControl: u16 {
        /// Forwards poisoned transactions as errors.
        const PARITY_ERROR_RESPONSE = 1 << 0;
        /// Forwards error messages.
        const SERR_ENABLE = 1 << 1;
        /// Forwards only the first 256 bytes of each KiB of IO space.
        const ISA_ENABLE = 1 << 2;
        /// Forwards the VGA addresses.
        const VGA_ENABLE = 1 << 3;
        /// Decodes 16 bits of VGA IO addresses.
        const VGA_16_BIT = 1 << 4;
        /// Conventional bridges: reports Master Abort as an error.
        const MASTER_ABORT = 1 << 5;
        /// Holds everything behind the bridge in reset.
        const SECONDARY_BUS_RESET = 1 << 6;
        /// Conventional bridges: fast transactions to different targets.
        const FAST_BACK_TO_BACK = 1 << 7;
        /// Conventional bridges: forgets what waits above after 2^10 instead of 2^15 clocks.
        const PRIMARY_DISCARD_TIMER = 1 << 8;
        /// Conventional bridges: forgets what waits below after 2^10 instead of 2^15 clocks.
        const SECONDARY_DISCARD_TIMER = 1 << 9;
        /// Conventional bridges: forgot something; cleared by writing one.
        const DISCARD_TIMER_STATUS = 1 << 10;
        /// Conventional bridges: reports what it forgot as an error.
        const DISCARD_TIMER_SERR = 1 << 11;
        const _ = !0;
    }
}

/// Bus numbers of a bridge, as it alleges them: check with [`Self::behind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BusNumbers {
    /// The bus on which the bridge is.
    pub primary: u8,
    /// The bus directly behind it; 0 where firmware has not set it up.
    pub secondary: u8,
    /// The highest bus number behind it.
    pub subordinate: u8,
}

impl BusNumbers {
    /// Reads them from a bridge (types 1 and 2).
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Self {
        let word = cfg.read32(at, register::BUS_NUMBERS);
        Self {
            primary: word as u8,
            secondary: (word >> 8) as u8,
            subordinate: (word >> 16) as u8,
        }
    }

    /// The buses behind the bridge; `None` if they are not set up, or not in order.
    #[must_use]
    pub const fn behind(self) -> Option<BusRange> {
        if self.secondary == 0 {
            return None;
        }
        BusRange::new(self.secondary, self.subordinate)
    }
}

/// Addresses that a bridge forwards: inclusive, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Last address, included.
    pub limit: u64,
}

/// What a PCI-to-PCI bridge (type 1) forwards (PCIe 5.0, 7.5.1.3). A window whose limit is below
/// its base is closed: `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridge {
    /// Its bus numbers.
    pub buses: BusNumbers,
    /// IO ports forwarded, in units of 4 KiB.
    pub io: Option<Window>,
    /// Non-prefetchable memory forwarded, in units of 1 MiB, below 4 GiB.
    pub memory: Option<Window>,
    /// Prefetchable memory forwarded, in units of 1 MiB.
    pub prefetchable: Option<Window>,
    /// Bridge Control.
    pub control: BridgeControl,
    /// Secondary Status: as Status, but what the bridge saw below;
    /// [`Status::SIGNALED_SYSTEM_ERROR`] says that it received an error message.
    pub secondary_status: Status,
    /// Latency timer of the conventional bus below.
    pub secondary_latency: u8,
}

impl Bridge {
    /// Reads a type 1 header's part that no other layout has.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Self {
        let io = cfg.read16(at, register::IO_BASE);
        let io_upper = cfg.read32(at, register::IO_BASE_UPPER);
        let memory = cfg.read32(at, register::MEMORY_BASE);
        let prefetch = cfg.read32(at, register::PREFETCH_BASE);
        let base_upper = cfg.read32(at, register::PREFETCH_BASE_UPPER);
        let limit_upper = cfg.read32(at, register::PREFETCH_LIMIT_UPPER);
        Self {
            buses: BusNumbers::read(cfg, at),
            io: io_window(io, io_upper),
            memory: memory_window(memory, 0, 0),
            prefetchable: if prefetch & 0xf == 1 {
                memory_window(prefetch, base_upper, limit_upper)
            } else {
                memory_window(prefetch, 0, 0)
            },
            control: BridgeControl::from_bits_retain(cfg.read16(at, register::BRIDGE_CONTROL)),
            secondary_status: Status::from_bits_retain(cfg.read16(at, register::SECONDARY_STATUS)),
            secondary_latency: cfg.read8(at, register::BUS_NUMBERS + 3),
        }
    }
}

fn io_window(word: u16, upper: u32) -> Option<Window> {
    // An unimplemented window reads zero throughout, and 0..0xfff is no range a bridge can own.
    if word == 0 && upper == 0 {
        return None;
    }
    let wide = word & 0xf == 1;
    let (base_upper, limit_upper) = if wide {
        (upper & 0xffff, upper >> 16)
    } else {
        (0, 0)
    };
    let base = (u64::from(base_upper) << 16) | u64::from(word & 0xf0) << 8;
    let limit = (u64::from(limit_upper) << 16) | u64::from(word >> 12) << 12 | 0xfff;
    (base <= limit).then_some(Window { base, limit })
}

fn memory_window(word: u32, base_upper: u32, limit_upper: u32) -> Option<Window> {
    if word == 0 && base_upper == 0 && limit_upper == 0 {
        return None;
    }
    let base = (u64::from(base_upper) << 32) | u64::from(word & 0xfff0) << 16;
    let limit = (u64::from(limit_upper) << 32) | u64::from(word & 0xfff0_0000) | 0xf_ffff;
    (base <= limit).then_some(Window { base, limit })
}

bitflags! {
    /// Bridge Control of a CardBus bridge.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct CardBusControl: u16 {
        /// Reports parity errors.
        const PARITY_ERROR_RESPONSE = 1 << 0;
        /// Forwards system errors.
        const SERR_ENABLE = 1 << 1;
        /// Forwards only the first 256 bytes of each KiB of IO space.
        const ISA_ENABLE = 1 << 2;
        /// Forwards the VGA addresses.
        const VGA_ENABLE = 1 << 3;
        /// Reports Master Abort as an error.
        const MASTER_ABORT = 1 << 5;
        /// Holds the card in reset.
        const CARD_RESET = 1 << 6;
        /// Interrupts of 16-bit cards go to ISA.
        const ISA_INTERRUPTS = 1 << 7;
        /// The first memory window is prefetchable.
        const PREFETCH_0 = 1 << 8;
        /// The second memory window is prefetchable.
        const PREFETCH_1 = 1 << 9;
        /// Writes are posted.
        const POST_WRITES = 1 << 10;
        const _ = !0;
    }
}

/// What a CardBus bridge (type 2) forwards. A window whose limit is below its base, or that reads
/// zero throughout, is closed: `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CardBus {
    /// Its bus numbers.
    pub buses: BusNumbers,
    /// Latency timer of the bus below.
    pub secondary_latency: u8,
    /// Memory forwarded, in units of 4 KiB.
    pub memory: [Option<Window>; 2],
    /// IO ports forwarded, in units of 4 bytes.
    pub io: [Option<Window>; 2],
    /// Bridge Control.
    pub control: CardBusControl,
    /// Secondary Status.
    pub secondary_status: Status,
    /// Who put it on a board.
    pub subsystem: Subsystem,
    /// Register of the ports of its 16-bit interface; bit 0 is no part of the address.
    pub legacy_ports: u32,
}

impl CardBus {
    /// Reads a type 2 header's part that no other layout has.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Self {
        let pair = |first: u16, index: u16| {
            let offset = first + 8 * index;
            (cfg.read32(at, offset), cfg.read32(at, offset + 4))
        };
        let memory = |index| {
            let (base, limit) = pair(register::CARDBUS_MEMORY, index);
            open_window(base & !0xfff, limit & !0xfff, 0xfff)
        };
        let io = |index| {
            let (base, limit) = pair(register::CARDBUS_IO, index);
            // Bit 0 of the base: ports of 32 bits.
            let mask = if base & 1 != 0 { !0x3 } else { 0xfffc };
            open_window(base & mask, limit & mask, 0x3)
        };
        Self {
            buses: BusNumbers::read(cfg, at),
            secondary_latency: cfg.read8(at, register::BUS_NUMBERS + 3),
            memory: [memory(0), memory(1)],
            io: [io(0), io(1)],
            control: CardBusControl::from_bits_retain(cfg.read16(at, register::BRIDGE_CONTROL)),
            secondary_status: Status::from_bits_retain(
                cfg.read16(at, register::SECONDARY_STATUS_CARDBUS),
            ),
            subsystem: Subsystem::at(cfg, at, register::SUBSYSTEM_CARDBUS),
            legacy_ports: cfg.read32(at, register::CARDBUS_LEGACY),
        }
    }
}

fn open_window(base: u32, limit: u32, tail: u32) -> Option<Window> {
    let is_set_up = base != 0 || limit != 0;
    (is_set_up && base <= limit).then_some(Window {
        base: u64::from(base),
        limit: u64::from(limit | tail),
    })
}
