//! The header of configuration space: identity, class, layout, command and
//! status bits, what a bridge forwards (PCIe 5.0, 7.5.1).
//!
//! [`Header::read`] takes what every function has in few reads; the parts that
//! only some callers want ([`Subsystem`], [`Interrupt`], [`Timing`], [`SelfTest`],
//! [`Bridge`], [`CardBus`]) are read by their own functions.

mod bridge;

pub use bridge::{Bridge, BridgeControl, BusNumbers, CardBus, CardBusControl, Window};

use core::fmt;

use bitflags::bitflags;
use thiserror::Error;

use crate::{ConfigSpace, Sbdf};

/// Offsets of the header's registers, in bytes (PCIe 5.0, figures 7-4, 7-6 and 7-12).
pub mod register {
    /// Vendor ID, 16 bits; all ones where no function answers.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits ([`super::Command`]).
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits ([`super::Status`]); its error bits are cleared by writing ones.
    pub const STATUS: u16 = 0x06;
    /// Revision ID, 8 bits, and class code in the three bytes above it.
    pub const REVISION: u16 = 0x08;
    /// Cache line size, latency timer, header type, BIST: one byte each.
    pub const CACHE_LINE: u16 = 0x0c;
    /// Latency timer, 8 bits.
    pub const LATENCY_TIMER: u16 = 0x0d;
    /// Built-in self-test, 8 bits ([`super::SelfTest`]).
    pub const BIST: u16 = 0x0f;
    /// Header type, 8 bits.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register.
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor ID, then subsystem ID; type 0 only.
    pub const SUBSYSTEM: u16 = 0x2c;
    /// Expansion ROM base address of a type 0 header.
    pub const ROM_ENDPOINT: u16 = 0x30;
    /// Offset of the first capability, 8 bits; types 0 and 1.
    pub const CAPABILITIES: u16 = 0x34;
    /// Offset of the first capability of a CardBus bridge, 8 bits.
    pub const CAPABILITIES_CARDBUS: u16 = 0x14;
    /// Interrupt line, then interrupt pin, 8 bits each.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, 8 bits.
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// Least time that a conventional function wants the bus for, 8 bits; type 0.
    pub const MIN_GRANT: u16 = 0x3e;
    /// Most time that a conventional function can wait for the bus, 8 bits; type 0.
    pub const MAX_LATENCY: u16 = 0x3f;
    /// Primary, secondary, subordinate bus and secondary latency timer; types 1 and 2.
    pub const BUS_NUMBERS: u16 = 0x18;
    /// IO base and IO limit, 8 bits each; type 1.
    pub const IO_BASE: u16 = 0x1c;
    /// Secondary Status, 16 bits ([`super::Status`]); type 1.
    pub const SECONDARY_STATUS: u16 = 0x1e;
    /// Memory base and memory limit, 16 bits each; type 1.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Prefetchable memory base and limit, 16 bits each; type 1.
    pub const PREFETCH_BASE: u16 = 0x24;
    /// Upper 32 bits of the prefetchable base; type 1.
    pub const PREFETCH_BASE_UPPER: u16 = 0x28;
    /// Upper 32 bits of the prefetchable limit; type 1.
    pub const PREFETCH_LIMIT_UPPER: u16 = 0x2c;
    /// Upper 16 bits of the IO base, then of the IO limit; type 1.
    pub const IO_BASE_UPPER: u16 = 0x30;
    /// Expansion ROM base address of a type 1 header.
    pub const ROM_BRIDGE: u16 = 0x38;
    /// Bridge control, 16 bits ([`super::BridgeControl`]); type 1.
    pub const BRIDGE_CONTROL: u16 = 0x3e;
    /// Secondary Status of a CardBus bridge, 16 bits.
    pub const SECONDARY_STATUS_CARDBUS: u16 = 0x16;
    /// First of two memory windows of a CardBus bridge: base and limit, 32 bits each.
    pub const CARDBUS_MEMORY: u16 = 0x1c;
    /// First of two IO windows of a CardBus bridge: base and limit, 32 bits each.
    pub const CARDBUS_IO: u16 = 0x2c;
    /// Subsystem vendor ID, then subsystem ID of a CardBus bridge.
    pub const SUBSYSTEM_CARDBUS: u16 = 0x40;
    /// Ports of a CardBus bridge's 16-bit interface, 32 bits.
    pub const CARDBUS_LEGACY: u16 = 0x44;
}

bitflags! {
    /// The Command register (PCIe 5.0, 7.5.1.1.3).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Command: u16 {
        /// Answers to IO space accesses.
        const IO_SPACE = 1 << 0;
        /// Answers to memory space accesses.
        const MEMORY_SPACE = 1 << 1;
        /// May issue memory and IO requests, message signalled interrupts among them.
        const BUS_MASTER = 1 << 2;
        /// Conventional functions: watches special cycles.
        const SPECIAL_CYCLES = 1 << 3;
        /// Conventional functions: may use memory write and invalidate.
        const WRITE_INVALIDATE = 1 << 4;
        /// Conventional functions: watches writes to the VGA palette.
        const PALETTE_SNOOP = 1 << 5;
        /// Reports parity errors.
        const PARITY_ERROR_RESPONSE = 1 << 6;
        /// Before PCI 3.0: address and data stepping.
        const STEPPING = 1 << 7;
        /// Reports errors to the root complex.
        const SERR_ENABLE = 1 << 8;
        /// Conventional functions: fast transactions to different targets.
        const FAST_BACK_TO_BACK = 1 << 9;
        /// May not assert INTx.
        const INTERRUPT_DISABLE = 1 << 10;
        const _ = !0;
    }
}

bitflags! {
    /// The Status register (PCIe 5.0, 7.5.1.1.4).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Status: u16 {
        /// An INTx interrupt is pending.
        const INTERRUPT = 1 << 3;
        /// The capability pointer is valid.
        const CAPABILITIES = 1 << 4;
        /// Conventional functions: runs at 66 MHz.
        const MHZ_66 = 1 << 5;
        /// Before PCI 2.2: has features that its user configures.
        const USER_FEATURES = 1 << 6;
        /// Conventional functions: takes fast transactions to different targets.
        const FAST_BACK_TO_BACK = 1 << 7;
        /// A poisoned transaction was received or sent.
        const MASTER_DATA_PARITY_ERROR = 1 << 8;
        /// Completed a request with Completer Abort.
        const SIGNALED_TARGET_ABORT = 1 << 11;
        /// Received a completion with Completer Abort.
        const RECEIVED_TARGET_ABORT = 1 << 12;
        /// Received a completion with Unsupported Request.
        const RECEIVED_MASTER_ABORT = 1 << 13;
        /// Sent an error message upstream.
        const SIGNALED_SYSTEM_ERROR = 1 << 14;
        /// Received a poisoned transaction.
        const DETECTED_PARITY_ERROR = 1 << 15;
        const _ = !0;
    }
}

impl Status {
    /// Conventional functions: how fast the function answers, 0 fast, 1 medium, 2 slow, 3 reserved.
    #[must_use]
    pub const fn device_select(self) -> u8 {
        (self.bits() >> 9 & 3) as u8
    }
}

/// Vendor and device number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ids {
    /// Who made it, as the PCI-SIG numbers them.
    pub vendor: u16,
    /// What it is, as its vendor numbers them.
    pub device: u16,
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Class code: base class, sub-class, programming interface (PCI Code and ID Assignment).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClassCode {
    /// Base class, for instance 1 for storage.
    pub base: u8,
    /// Sub-class, for instance 8 for NVM.
    pub sub: u8,
    /// Programming interface, for instance 2 for NVM Express.
    pub interface: u8,
}

impl ClassCode {
    /// A host bridge, which may stop routing memory while its decoding is off.
    #[must_use]
    pub const fn is_host_bridge(self) -> bool {
        self.base == 6 && self.sub == 0
    }

    /// The three bytes as one number, `base << 16 | sub << 8 | interface`.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        ((self.base as u32) << 16) | ((self.sub as u32) << 8) | self.interface as u32
    }

    /// The class of the number that [`Self::to_bits`] gives; the top byte is ignored.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            base: (bits >> 16) as u8,
            sub: (bits >> 8) as u8,
            interface: bits as u8,
        }
    }
}

impl fmt::Display for ClassCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.to_bits())
    }
}

impl fmt::Debug for ClassCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which of the three header layouts a function has (header type, bits 6:0).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// Type 0: an endpoint.
    Endpoint,
    /// Type 1: a PCI-to-PCI bridge, root or switch port.
    Bridge,
    /// Type 2: a CardBus bridge.
    CardBus,
}

impl Layout {
    /// How many base address registers the layout has.
    #[must_use]
    pub const fn bar_count(self) -> u8 {
        match self {
            Self::Endpoint => 6,
            Self::Bridge => 2,
            Self::CardBus => 1,
        }
    }

    /// Offset of the expansion ROM register, where the layout has one.
    #[must_use]
    pub const fn rom_register(self) -> Option<u16> {
        match self {
            Self::Endpoint => Some(register::ROM_ENDPOINT),
            Self::Bridge => Some(register::ROM_BRIDGE),
            Self::CardBus => None,
        }
    }

    /// Offset of the byte that points at the first capability.
    #[must_use]
    pub const fn capabilities_pointer(self) -> u16 {
        match self {
            Self::Endpoint | Self::Bridge => register::CAPABILITIES,
            Self::CardBus => register::CAPABILITIES_CARDBUS,
        }
    }
}

/// Why a function's header cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HeaderError {
    /// No function answers: vendor id reads all ones, or what some boards give in their place.
    #[error("no function answers")]
    Absent,
    /// The function answers that it is not ready (PCIe 5.0, 2.3.2: it asks for a retry).
    #[error("the function is not ready")]
    NotReady,
    /// The vendor id reads zero, which no device may have.
    #[error("vendor id reads zero")]
    VendorZero,
    /// The function answered and then read all ones.
    #[error("the function stopped answering")]
    Vanished,
    /// A header type above 2, whose registers nobody knows.
    #[error("header type {0:#x} is not defined")]
    UnknownLayout(u8),
}

/// What every function's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Vendor and device.
    pub ids: Ids,
    /// Class code.
    pub class: ClassCode,
    /// Revision, as the vendor numbers them.
    pub revision: u8,
    /// Which registers follow.
    pub layout: Layout,
    /// The device says that it may have functions 1 to 7 (header type, bit 7).
    pub multi_function: bool,
}

impl Header {
    /// Reads the header of the function at `at`: one read where there is none, three where there is.
    ///
    /// # Errors
    /// Nothing answers, or what answers is no header.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Result<Self, HeaderError> {
        Self::read_on(cfg, at, cfg.read32(at, register::VENDOR_ID))
    }

    /// Do these first four bytes say that there is no function?
    #[inline(always)]
    pub(crate) const fn is_absent(ids: u32) -> bool {
        // Some boards answer for an absent function with zeros in one or both halves.
        ids as u16 == 0xffff || ids == 0 || ids == 0xffff_0000
    }

    /// [`Self::read`] from the second register on: the first says `ids`.
    pub(crate) fn read_on<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        ids: u32,
    ) -> Result<Self, HeaderError> {
        let vendor = ids as u16;
        if Self::is_absent(ids) {
            return Err(HeaderError::Absent);
        }
        if ids == 0xffff_0001 {
            return Err(HeaderError::NotReady);
        }
        if vendor == 0 {
            return Err(HeaderError::VendorZero);
        }
        let class = cfg.read32(at, register::REVISION);
        let header_type = cfg.read32(at, register::CACHE_LINE);
        if header_type == u32::MAX {
            return Err(HeaderError::Vanished);
        }
        let header_type = (header_type >> 16) as u8;
        let layout = match header_type & 0x7f {
            0 => Layout::Endpoint,
            1 => Layout::Bridge,
            2 => Layout::CardBus,
            other => return Err(HeaderError::UnknownLayout(other)),
        };
        Ok(Self {
            ids: Ids {
                vendor,
                device: (ids >> 16) as u16,
            },
            class: ClassCode::from_bits(class >> 8),
            revision: class as u8,
            layout,
            multi_function: header_type & 0x80 != 0,
        })
    }
}

/// Who put the function on a board: subsystem vendor and id. Type 0 headers only; a bridge
/// says it in a capability of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Subsystem {
    /// Subsystem vendor.
    pub vendor: u16,
    /// Subsystem id.
    pub id: u16,
}

impl Subsystem {
    /// Reads it from a type 0 header.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Self {
        Self::at(cfg, at, register::SUBSYSTEM)
    }

    /// Reads it where a header or a capability has it.
    pub(crate) fn at<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf, offset: u16) -> Self {
        let word = cfg.read32(at, offset);
        Self {
            vendor: word as u16,
            id: (word >> 16) as u16,
        }
    }
}

/// How long a conventional function wants the bus, and in which units it caches (PCI 3.0, 6.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Timing {
    /// Cache line size, in words of four bytes.
    pub cache_line: u8,
    /// Latency timer, in clocks of the bus.
    pub latency: u8,
    /// Type 0 only: least time on the bus, in units of 250 ns; else 0.
    pub min_grant: u8,
    /// Type 0 only: longest wait for the bus, in units of 250 ns; else 0.
    pub max_latency: u8,
}

impl Timing {
    /// Reads it from a header.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf, layout: Layout) -> Self {
        let of_endpoint = |offset| match layout {
            Layout::Endpoint => cfg.read8(at, offset),
            Layout::Bridge | Layout::CardBus => 0,
        };
        Self {
            cache_line: cfg.read8(at, register::CACHE_LINE),
            latency: cfg.read8(at, register::LATENCY_TIMER),
            min_grant: of_endpoint(register::MIN_GRANT),
            max_latency: of_endpoint(register::MAX_LATENCY),
        }
    }
}

/// The built-in self-test of a function that has one (PCIe 5.0, 7.5.1.1.10).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SelfTest {
    /// It runs.
    pub running: bool,
    /// What it came to, 0 to 15: 0 is good.
    pub code: u8,
}

impl SelfTest {
    /// Reads its state; `None` where the function has none.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Option<Self> {
        let word = cfg.read8(at, register::BIST);
        (word & 1 << 7 != 0).then_some(Self {
            running: word & 1 << 6 != 0,
            code: word & 0xf,
        })
    }
}

/// The pin with which a function asserts INTx.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InterruptPin {
    /// INTA.
    A,
    /// INTB.
    B,
    /// INTC.
    C,
    /// INTD.
    D,
}

/// INTx of a function (PCIe 5.0, 7.5.1.1.12 and 13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Interrupt {
    /// The pin; `None` where the function uses none or names one that does not exist.
    pub pin: Option<InterruptPin>,
    /// What firmware left as routing information; hardware does not use it.
    pub line: u8,
}

impl Interrupt {
    /// Reads pin and line.
    pub fn read<C: ConfigSpace + ?Sized>(cfg: &C, at: Sbdf) -> Self {
        let word = cfg.read16(at, register::INTERRUPT_LINE);
        let pin = match word >> 8 {
            1 => Some(InterruptPin::A),
            2 => Some(InterruptPin::B),
            3 => Some(InterruptPin::C),
            4 => Some(InterruptPin::D),
            _ => None,
        };
        Self {
            pin,
            line: word as u8,
        }
    }
}
