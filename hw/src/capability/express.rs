//! PCI Express capability: [`Express`], what kind of port or endpoint it is,
//! whether it can be reset alone, and its slot (PCIe 5.0, 7.5.3).
//!
//! [`Express`] is what every device keeps; the registers themselves are read when
//! somebody asks: [`DeviceRegisters`], [`LinkRegisters`], [`SlotRegisters`],
//! [`RootRegisters`], [`Device2Registers`], [`Link2Registers`].

mod device;
mod link;
mod root;
mod slot;

pub use device::{
    Device2Registers, DeviceCapabilities, DeviceCapabilities2, DeviceControl, DeviceControl2,
    DeviceRegisters, DeviceStatus,
};
pub use link::{
    Link2Registers, LinkCapabilities, LinkCapabilities2, LinkControl, LinkControl2, LinkRegisters,
    LinkStatus, LinkStatus2,
};
pub use root::{RootCapabilities, RootControl, RootRegisters, RootStatus};
pub use slot::{SlotCapabilities, SlotControl, SlotRegisters, SlotStatus};

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

    /// A port that has a link below it: root port, downstream port of a switch, or a bridge from
    /// conventional PCI.
    #[must_use]
    pub const fn is_downstream(self) -> bool {
        matches!(
            self,
            Self::RootPort | Self::DownstreamPort | Self::FromConventionalBridge
        )
    }

    /// Has a link: all but what is integrated in the root complex.
    #[must_use]
    pub const fn has_link(self) -> bool {
        !matches!(self, Self::IntegratedEndpoint | Self::EventCollector)
    }

    /// Has root registers.
    #[must_use]
    pub const fn has_root_registers(self) -> bool {
        matches!(self, Self::RootPort | Self::EventCollector)
    }
}

/// Power that a slot gives a card (PCIe 5.0, 7.5.3.9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PowerLimit {
    /// The value.
    pub value: u8,
    /// Its unit: 0 for 1 W, 1 for 0.1 W, 2 for 0.01 W, 3 for 0.001 W.
    pub scale: u8,
}

impl PowerLimit {
    /// Milliwatts; `None` for more than 600 W.
    #[must_use]
    pub const fn milliwatts(self) -> Option<u32> {
        let value = self.value as u32;
        match (self.scale & 3, value) {
            // Values above 239 W in steps.
            (0, 0xff) => None,
            (0, 0xf0..) => Some((250 + 25 * (value - 0xf0)) * 1000),
            (0, _) => Some(value * 1000),
            (1, _) => Some(value * 100),
            (2, _) => Some(value * 10),
            _ => Some(value),
        }
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
    /// Number of the vector with which a port interrupts about its slot and its root registers.
    pub interrupt_message: u8,
    /// The link can use flits (PCIe 6.0, 7.5.3.2).
    pub flit_mode: bool,
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
    /// Bytes up to and including Link Status.
    const LINK_BYTES: u16 = 20;
    /// Bytes up to and including Slot Status.
    const SLOT_BYTES: u16 = 28;
    /// Bytes up to and including Root Status.
    const ROOT_BYTES: u16 = 36;
    /// Bytes up to and including Device Status 2.
    const DEVICE2_BYTES: u16 = 44;
    /// Bytes up to and including Link Status 2.
    const LINK2_BYTES: u16 = 52;

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

    /// Link Control, 16 bits ([`LinkControl`]); of meaning if [`PortType::has_link`].
    #[must_use]
    pub const fn link_control_register(&self) -> u16 {
        self.offset as u16 + 0x10
    }

    /// Link Status, 16 bits ([`LinkStatus`]).
    #[must_use]
    pub const fn link_status_register(&self) -> u16 {
        self.offset as u16 + 0x12
    }

    /// Slot Control, 16 bits ([`SlotControl`]); of meaning if [`Self::slot`] is.
    #[must_use]
    pub const fn slot_control_register(&self) -> u16 {
        self.offset as u16 + 0x18
    }

    /// Slot Status, 16 bits ([`SlotStatus`]); its event bits are cleared by writing ones.
    #[must_use]
    pub const fn slot_status_register(&self) -> u16 {
        self.offset as u16 + 0x1a
    }

    /// Root Control, 16 bits ([`RootControl`]); of meaning if [`PortType::has_root_registers`].
    #[must_use]
    pub const fn root_control_register(&self) -> u16 {
        self.offset as u16 + 0x1c
    }

    /// Root Status, 32 bits ([`RootStatus`]).
    #[must_use]
    pub const fn root_status_register(&self) -> u16 {
        self.offset as u16 + 0x20
    }

    /// Device Control 2, 16 bits ([`DeviceControl2`]); version 2 has it.
    #[must_use]
    pub const fn device_control2_register(&self) -> u16 {
        self.offset as u16 + 0x28
    }

    /// Link Control 2, 16 bits ([`LinkControl2`]); version 2 has it.
    #[must_use]
    pub const fn link_control2_register(&self) -> u16 {
        self.offset as u16 + 0x30
    }

    /// Reads the device registers.
    pub fn device<C: ConfigSpace + ?Sized>(&self, cfg: &C, at: Sbdf) -> DeviceRegisters {
        let base = u16::from(self.offset);
        DeviceRegisters {
            capabilities: DeviceCapabilities::from_bits_retain(cfg.read32(at, base + 0x04)),
            control: DeviceControl::from_bits_retain(cfg.read16(at, base + 0x08)),
            status: DeviceStatus::from_bits_retain(cfg.read16(at, base + 0x0a)),
        }
    }

    /// Reads the link registers; `Ok(None)` where the function has no link.
    ///
    /// # Errors
    /// The registers pass the end of the space.
    pub fn link<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<Option<LinkRegisters>, CapabilityError> {
        if !self.port.has_link() {
            return Ok(None);
        }
        check_extent(Self::ID, self.offset, Self::LINK_BYTES)?;
        let base = u16::from(self.offset);
        Ok(Some(LinkRegisters {
            capabilities: LinkCapabilities::from_bits_retain(cfg.read32(at, base + 0x0c)),
            control: LinkControl::from_bits_retain(cfg.read16(at, base + 0x10)),
            status: LinkStatus::from_bits_retain(cfg.read16(at, base + 0x12)),
        }))
    }

    /// Reads the slot registers; `None` where the function has no slot.
    pub fn slot_registers<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Option<SlotRegisters> {
        self.slot?;
        let base = u16::from(self.offset);
        Some(SlotRegisters {
            capabilities: SlotCapabilities::from_bits_retain(cfg.read32(at, base + 0x14)),
            control: SlotControl::from_bits_retain(cfg.read16(at, base + 0x18)),
            status: SlotStatus::from_bits_retain(cfg.read16(at, base + 0x1a)),
        })
    }

    /// Reads the root registers; `Ok(None)` where the function has none.
    ///
    /// # Errors
    /// The registers pass the end of the space.
    pub fn root<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<Option<RootRegisters>, CapabilityError> {
        if !self.port.has_root_registers() {
            return Ok(None);
        }
        check_extent(Self::ID, self.offset, Self::ROOT_BYTES)?;
        let base = u16::from(self.offset);
        Ok(Some(RootRegisters {
            control: RootControl::from_bits_retain(cfg.read16(at, base + 0x1c)),
            capabilities: RootCapabilities::from_bits_retain(cfg.read16(at, base + 0x1e)),
            status: RootStatus::from_bits_retain(cfg.read32(at, base + 0x20)),
        }))
    }

    /// Reads the second set of device registers; `Ok(None)` in version 1.
    ///
    /// # Errors
    /// The registers pass the end of the space.
    pub fn device2<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<Option<Device2Registers>, CapabilityError> {
        if self.version < 2 {
            return Ok(None);
        }
        check_extent(Self::ID, self.offset, Self::DEVICE2_BYTES)?;
        let base = u16::from(self.offset);
        Ok(Some(Device2Registers {
            capabilities: DeviceCapabilities2::from_bits_retain(cfg.read32(at, base + 0x24)),
            control: DeviceControl2::from_bits_retain(cfg.read16(at, base + 0x28)),
        }))
    }

    /// Reads the second set of link registers; `Ok(None)` in version 1 or where there is no link.
    ///
    /// # Errors
    /// The registers pass the end of the space.
    pub fn link2<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &C,
        at: Sbdf,
    ) -> Result<Option<Link2Registers>, CapabilityError> {
        if self.version < 2 || !self.port.has_link() {
            return Ok(None);
        }
        check_extent(Self::ID, self.offset, Self::LINK2_BYTES)?;
        let base = u16::from(self.offset);
        Ok(Some(Link2Registers {
            capabilities: LinkCapabilities2::from_bits_retain(cfg.read32(at, base + 0x2c)),
            control: LinkControl2::from_bits_retain(cfg.read16(at, base + 0x30)),
            status: LinkStatus2::from_bits_retain(cfg.read16(at, base + 0x32)),
        }))
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
        let device = DeviceCapabilities::from_bits_retain(cfg.read32(at, base + 4));
        let payload = device.payload_log2();
        if payload > 5 {
            return Err(reserved("max payload size supported", u32::from(payload)));
        }
        let slot = if port.is_downstream() && flags & 1 << 8 != 0 {
            check_extent(Self::ID, offset, Self::SLOT_BYTES)?;
            let slot = SlotCapabilities::from_bits_retain(cfg.read32(at, base + 0x14));
            Some(PhysicalSlot {
                number: slot.number(),
                hot_plug: slot.contains(SlotCapabilities::HOT_PLUG),
                surprise: slot.contains(SlotCapabilities::SURPRISE),
                attention_button: slot.contains(SlotCapabilities::ATTENTION_BUTTON),
                power_controller: slot.contains(SlotCapabilities::POWER_CONTROLLER),
            })
        } else {
            None
        };
        Ok(Self {
            offset,
            version: (flags & 0xf) as u8,
            port,
            // Means something in endpoints only; ports must read zero.
            function_level_reset: device.contains(DeviceCapabilities::FUNCTION_LEVEL_RESET),
            max_payload: 128 << payload,
            interrupt_message: (flags >> 9 & 0x1f) as u8,
            flit_mode: flags & 1 << 15 != 0,
            slot,
        })
    }
}
