//! The address of a PCI function, [`Sbdf`] (segment:bus:device.function),
//! ranges of buses, and the place of a function in an ECAM window.
//!
//! `pci_types::PciAddress` packs the same 32 bits, but its constructor panics
//! on a device above 31, it has neither `Hash` nor parsing, and its companion
//! access trait is `unsafe`; a newtype of our own is smaller than a wrapper.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// Bytes of configuration space a function has in ECAM (PCIe 5.0, 7.2.2).
pub const ECAM_FUNCTION_BYTES: u64 = 4096;
/// Bytes of ECAM that one bus takes: 32 devices of 8 functions.
pub const ECAM_BUS_BYTES: u64 = 256 * ECAM_FUNCTION_BYTES;

/// Address of a PCI function: segment, bus, device, function.
///
/// Ordered as it is written, so that sorting gives the order of `lspci`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sbdf(u32);

/// Why a set of numbers or a text is not the address of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AddressError {
    /// Devices are 0 to 31.
    #[error("device number {0} is above 31")]
    Device(u8),
    /// Functions are 0 to 7.
    #[error("function number {0} is above 7")]
    Function(u8),
    /// The text is not `[ssss:]bb:dd.f` in hexadecimal digits.
    #[error("not of the form [ssss:]bb:dd.f in hexadecimal digits")]
    Syntax,
}

impl Sbdf {
    /// Highest device number of a bus.
    pub const MAX_DEVICE: u8 = 31;
    /// Highest function number of a device.
    pub const MAX_FUNCTION: u8 = 7;

    /// The address with these parts.
    ///
    /// # Errors
    /// A device above 31 or a function above 7.
    pub const fn from_parts(
        segment: u16,
        bus: u8,
        device: u8,
        function: u8,
    ) -> Result<Self, AddressError> {
        if device > Self::MAX_DEVICE {
            return Err(AddressError::Device(device));
        }
        if function > Self::MAX_FUNCTION {
            return Err(AddressError::Function(function));
        }
        let routing = ((bus as u32) << 8) | ((device as u32) << 3) | function as u32;
        Ok(Self(((segment as u32) << 16) | routing))
    }

    /// The function which `requester_id` names in `segment`: every value names one.
    #[must_use]
    pub const fn from_requester_id(segment: u16, requester_id: u16) -> Self {
        Self(((segment as u32) << 16) | requester_id as u32)
    }

    /// The packed form: `segment << 16 | bus << 8 | device << 3 | function`.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The address of this packed form: every value is one (see [`Self::to_bits`]).
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// PCI segment group.
    #[must_use]
    pub const fn segment(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Bus number, 0 to 255.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        ((self.0 >> 3) & 0x1f) as u8
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// What the function's transactions carry: bus, device and function in 16 bits
    /// (PCIe 5.0, 2.2.4.2). Behind a conventional bridge the bridge's id is seen instead.
    #[must_use]
    pub const fn requester_id(self) -> u16 {
        self.0 as u16
    }

    /// The same device with another function number; the number is taken modulo 8.
    #[must_use]
    pub const fn with_function(self, function: u8) -> Self {
        Self((self.0 & !7) | (function & 7) as u32)
    }
}

impl fmt::Display for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment(),
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sbdf {
    type Err = AddressError;

    /// Parses `0000:00:03.0`, or `00:03.0` for segment 0.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (rest, function) = text.rsplit_once('.').ok_or(AddressError::Syntax)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(AddressError::Syntax)?;
        let (segment, bus) = match rest.rsplit_once(':') {
            Some((segment, bus)) => (hex(segment, 4)?, bus),
            None => (0, rest),
        };
        // Each part has few enough digits to fit its type.
        Self::from_parts(
            segment,
            hex(bus, 2)? as u8,
            hex(device, 2)? as u8,
            hex(function, 1)? as u8,
        )
    }
}

/// One to `digits` hexadecimal digits and nothing else (`from_str_radix` would allow a sign).
fn hex(text: &str, digits: usize) -> Result<u16, AddressError> {
    if text.is_empty() || text.len() > digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(AddressError::Syntax);
    }
    u16::from_str_radix(text, 16).map_err(|_| AddressError::Syntax)
}

/// An inclusive range of bus numbers; never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BusRange {
    first: u8,
    last: u8,
}

impl BusRange {
    /// Every bus of a segment.
    pub const ALL: Self = Self {
        first: 0,
        last: 255,
    };

    /// The buses from `first` to `last`, both included; `None` if `last` is before `first`.
    #[must_use]
    pub const fn new(first: u8, last: u8) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// First bus of the range.
    #[must_use]
    pub const fn first(self) -> u8 {
        self.first
    }

    /// Last bus of the range, included.
    #[must_use]
    pub const fn last(self) -> u8 {
        self.last
    }

    /// How many buses the range has, 1 to 256.
    #[must_use]
    pub const fn count(self) -> u16 {
        // `last` is never below `first`.
        (self.last - self.first) as u16 + 1
    }

    /// Whether `bus` is one of the range.
    #[must_use]
    pub const fn contains(self, bus: u8) -> bool {
        self.first <= bus && bus <= self.last
    }

    /// Whether every bus of `other` is one of this range.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The buses of the range in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        self.first..=self.last
    }
}

impl fmt::Display for BusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}-{:02x}", self.first, self.last)
    }
}

/// Where configuration space of one segment is mapped in memory (PCIe 5.0, 7.2.2;
/// PCI Firmware 3.2, 4.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EcamWindow {
    /// Physical address at which bus **0** of the segment would be, even where the window
    /// starts at a later bus.
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// Buses that the window holds.
    pub buses: BusRange,
}

impl EcamWindow {
    /// Physical address of the window's first byte, which belongs to its first bus.
    /// `None` if the table's base makes it pass 2^64.
    #[must_use]
    pub fn start(&self) -> Option<u64> {
        self.base
            .checked_add(u64::from(self.buses.first()).checked_mul(ECAM_BUS_BYTES)?)
    }

    /// Bytes that the window takes from [`Self::start`] on.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.buses.count()) * ECAM_BUS_BYTES
    }

    /// Never true: a window holds at least one bus.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Offset of a register from [`Self::start`]; `None` if the function is not in
    /// this window or `register` is beyond its 4,096 bytes.
    #[must_use]
    pub fn offset(&self, at: Sbdf, register: u16) -> Option<u64> {
        if at.segment() != self.segment || !self.buses.contains(at.bus()) {
            return None;
        }
        if u64::from(register) >= ECAM_FUNCTION_BYTES {
            return None;
        }
        let function = u64::from(at.requester_id())
            .checked_sub(u64::from(self.buses.first()) * 256)?
            .checked_mul(ECAM_FUNCTION_BYTES)?;
        function.checked_add(u64::from(register))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn parts_bits_and_text_agree() {
        let at = Sbdf::from_parts(1, 0x80, 0x1f, 7).unwrap();
        assert_eq!(at.to_bits(), 0x0001_80ff);
        assert_eq!(Sbdf::from_bits(0x0001_80ff), at);
        assert_eq!(at.requester_id(), 0x80ff);
        assert_eq!(at.to_string(), "0001:80:1f.7");
        assert_eq!("0001:80:1f.7".parse(), Ok(at));
        assert_eq!("3:2.1".parse(), Sbdf::from_parts(0, 3, 2, 1));
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        assert_eq!(Sbdf::from_parts(0, 0, 32, 0), Err(AddressError::Device(32)));
        assert_eq!(Sbdf::from_parts(0, 0, 0, 8), Err(AddressError::Function(8)));
        assert_eq!("00:20.0".parse::<Sbdf>(), Err(AddressError::Device(0x20)));
        assert_eq!("00:1f.8".parse::<Sbdf>(), Err(AddressError::Function(8)));
        for text in [
            "",
            "00",
            "00:00",
            "00.0",
            "+0:00.0",
            "0:0:0:0.0",
            "00000:00:00.0",
            "00:00.00",
            "00:0g.0",
        ] {
            assert_eq!(text.parse::<Sbdf>(), Err(AddressError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn ecam_offsets_are_relative_to_the_first_bus_of_the_window() {
        let window = EcamWindow {
            base: 0xb000_0000,
            segment: 0,
            buses: BusRange::new(0x80, 0x8f).unwrap(),
        };
        assert_eq!(window.start(), Some(0xb800_0000));
        assert_eq!(window.len(), 16 << 20);
        let at = Sbdf::from_parts(0, 0x81, 1, 2).unwrap();
        assert_eq!(window.offset(at, 0x10), Some(0x10_a010));
        assert_eq!(window.offset(at, 4096), None);
        assert_eq!(
            window.offset(Sbdf::from_parts(0, 0x7f, 0, 0).unwrap(), 0),
            None
        );
        assert_eq!(
            window.offset(Sbdf::from_parts(1, 0x80, 0, 0).unwrap(), 0),
            None
        );
        let beyond = EcamWindow {
            base: u64::MAX,
            ..window
        };
        assert_eq!(beyond.start(), None);
    }
}
