//! PCI Express capability: [`Express`], what kind of port or endpoint it is,
//! whether it can be reset alone, and its slot (PCIe 5.0, 7.5.3).

use super::{Capability, CapabilityError, check_extent, id};
use crate::{ConfigSpace, Sbdf};

/// Device/port type (PCIe 5.0, 7.5.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortType {
    /// PCI Express endpoint.
    Endpoint,
    /// Legacy PCI Express endpoint: may need IO space and locked requests.
    LegacyEndpoint,
    /// Endpoint integrated in the root complex, on a root bus.
    IntegratedEndpoint,
    /// Event collector of a root complex.
    EventCollector,
    /// Root port.
    RootPort,
    /// Upstream port of a switch.
    UpstreamPort,
    /// Downstream port of a switch.
    DownstreamPort,
    /// Bridge from PCI Express to conventional PCI.
    ToConventionalBridge,
    /// Bridge from conventional PCI to PCI Express.
    FromConventionalBridge,
}

impl PortType {
    const fn from_bits(bits: u16) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Endpoint,
            0x1 => Self::LegacyEndpoint,
            0x4 => Self::RootPort,
            0x5 => Self::UpstreamPort,
            0x6 => Self::DownstreamPort,
            0x7 => Self::ToConventionalBridge,
            0x8 => Self::FromConventionalBridge,
            0x9 => Self::IntegratedEndpoint,
            0xa => Self::EventCollector,
            _ => return None,
        })
    }

    /// A port that has a link below it: root port or downstream port of a switch.
    #[must_use]
    pub const fn is_downstream(self) -> bool {
        matches!(self, Self::RootPort | Self::DownstreamPort)
    }
}

/// A slot that a downstream port serves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PhysicalSlot {
    /// Number on the chassis, 0 if the slot has none.
    pub number: u16,
    /// Devices may be added and removed while the system runs.
    pub hot_plug: bool,
    /// Devices may be removed without asking.
    pub surprise: bool,
    /// The slot has an attention button.
    pub attention_button: bool,
    /// The slot's power can be switched.
    pub power_controller: bool,
}

/// The PCI Express capability of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Express {
    /// Where the capability starts.
    pub offset: u8,
    /// Version of the capability's layout, 1 or 2.
    pub version: u8,
    /// What the function is.
    pub port: PortType,
    /// The function can be reset alone.
    pub function_level_reset: bool,
    /// Largest payload it can handle, in bytes.
    pub max_payload: u16,
    /// The slot below it, where it is a downstream port with one.
    pub slot: Option<PhysicalSlot>,
}

impl Express {
    /// Device Control: start a function-level reset.
    pub const INITIATE_FLR: u16 = 1 << 15;
    /// Device Status: transactions are pending.
    pub const TRANSACTIONS_PENDING: u16 = 1 << 5;
    /// Bytes up to and including Device Status, which every version has.
    const DEVICE_BYTES: u16 = 12;
    /// Bytes up to and including Slot Status.
    const SLOT_BYTES: u16 = 28;

    /// Device Control, 16 bits ([`Self::INITIATE_FLR`]).
    #[must_use]
    pub const fn device_control_register(&self) -> u16 {
        self.offset as u16 + 0x08
    }

    /// Device Status, 16 bits ([`Self::TRANSACTIONS_PENDING`]); its low four bits are cleared by writing ones.
    #[must_use]
    pub const fn device_status_register(&self) -> u16 {
        self.offset as u16 + 0x0a
    }

    /// Slot Control, 16 bits; of meaning if [`Self::slot`] is.
    #[must_use]
    pub const fn slot_control_register(&self) -> u16 {
        self.offset as u16 + 0x18
    }

    /// Slot Status, 16 bits; its event bits are cleared by writing ones.
    #[must_use]
    pub const fn slot_status_register(&self) -> u16 {
        self.offset as u16 + 0x1a
    }
}

impl Capability for Express {
    const ID: u8 = id::EXPRESS;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::DEVICE_BYTES)?;
        let base = u16::from(offset);
        let reserved = |field, value| CapabilityError::Reserved {
            id: u16::from(Self::ID),
            offset: base,
            field,
            value,
        };
        let flags = cfg.read16(at, base + 2);
        let kind = flags >> 4 & 0xf;
        let port =
            PortType::from_bits(kind).ok_or(reserved("device/port type", u32::from(kind)))?;
        let device = cfg.read32(at, base + 4);
        let payload = device & 7;
        if payload > 5 {
            return Err(reserved("max payload size supported", payload));
        }
        let slot = if port.is_downstream() && flags & 1 << 8 != 0 {
            check_extent(Self::ID, offset, Self::SLOT_BYTES)?;
            let slot = cfg.read32(at, base + 0x14);
            Some(PhysicalSlot {
                number: (slot >> 19) as u16,
                hot_plug: slot & 1 << 6 != 0,
                surprise: slot & 1 << 5 != 0,
                attention_button: slot & 1 != 0,
                power_controller: slot & 1 << 1 != 0,
            })
        } else {
            None
        };
        Ok(Self {
            offset,
            version: (flags & 0xf) as u8,
            port,
            // Bit 28 means something in endpoints only; ports must read zero.
            function_level_reset: device & 1 << 28 != 0,
            max_payload: 128 << payload,
            slot,
        })
    }
}
