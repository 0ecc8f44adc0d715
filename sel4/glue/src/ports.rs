//! [`PortSpace`]: configuration space through the I/O ports 0xCF8 and 0xCFC, for machines without ECAM;
//! [`Configuration`]: whichever of both a PD was given.
//!
//! An access takes two steps, address then data. A PD has one thread and nobody else has the ports, so
//! nothing comes between them.

use hw::{ConfigSpace, Sbdf};
use sel4::IoPort;

use crate::{EcamSpace, Pd};

/// Address register (PCI Local Bus 3.0, 3.2.2.3.2), four bytes.
const ADDRESS: u16 = 0xcf8;
/// Data register: the four bytes that the address names.
const DATA: u16 = 0xcfc;
/// Address register: an access of the data register is one of configuration space.
const ENABLE: u32 = 1 << 31;
/// Bytes of a function that the ports reach.
const FUNCTION_BYTES: u16 = 256;

/// Configuration space of segment 0 through I/O ports: the first 256 bytes of each function.
#[derive(Clone, Copy, Debug)]
pub struct PortSpace {
    ports: IoPort,
}

impl PortSpace {
    /// Through this capability, which is for the ports 0xCF8 to 0xCFF.
    #[must_use]
    pub const fn new(ports: IoPort) -> Self {
        Self { ports }
    }

    /// Does the machine have such ports? The address register then keeps what is written.
    #[must_use]
    pub fn answers(&self) -> bool {
        let kept = self
            .ports
            .out32(ADDRESS, ENABLE)
            .and_then(|()| self.ports.in32(ADDRESS));
        kept == Ok(ENABLE)
    }

    /// Sets the address; the port where the register's bytes are then. `None` for what the ports do not reach.
    fn select(&self, at: Sbdf, offset: u16, bytes: u16) -> Option<u16> {
        if at.segment() != 0 || offset >= FUNCTION_BYTES || !offset.is_multiple_of(bytes) {
            return None;
        }
        let address = ENABLE | u32::from(at.requester_id()) << 8 | u32::from(offset & !3);
        self.ports.out32(ADDRESS, address).ok()?;
        Some(DATA | offset & 3)
    }
}

macro_rules! accesses {
    ($($read:ident $write:ident $type:ty, $in:ident $out:ident;)*) => {
        $(
            #[cold]
            #[inline(never)]
            fn $read(&self, at: Sbdf, offset: u16) -> $type {
                self.select(at, offset, size_of::<$type>() as u16)
                    .and_then(|port| self.ports.$in(port).ok())
                    .unwrap_or(<$type>::MAX)
            }
        )*
        $(
            #[cold]
            #[inline(never)]
            fn $write(&mut self, at: Sbdf, offset: u16, value: $type) {
                if let Some(port) = self.select(at, offset, size_of::<$type>() as u16) {
                    // The capability holds the port: it was just used for the address.
                    let _ = self.ports.$out(port, value);
                }
            }
        )*
    };
}

impl ConfigSpace for PortSpace {
    accesses! {
        read8 write8 u8, in8 out8;
        read16 write16 u16, in16 out16;
        read32 write32 u32, in32 out32;
    }
}

/// Configuration space, memory-mapped or through ports.
#[derive(Clone, Debug)]
pub enum Configuration {
    /// Memory-mapped.
    Ecam(EcamSpace),
    /// Through ports.
    Ports(PortSpace),
}

macro_rules! either {
    ($($read:ident $write:ident $type:ty;)*) => {
        $(
            #[inline]
            fn $read(&self, at: Sbdf, offset: u16) -> $type {
                match self {
                    Self::Ecam(space) => space.$read(at, offset),
                    Self::Ports(space) => space.$read(at, offset),
                }
            }
        )*
        $(
            #[inline]
            fn $write(&mut self, at: Sbdf, offset: u16, value: $type) {
                match self {
                    Self::Ecam(space) => space.$write(at, offset, value),
                    Self::Ports(space) => space.$write(at, offset, value),
                }
            }
        )*
    };
}

impl ConfigSpace for Configuration {
    either! {
        read8 write8 u8;
        read16 write16 u16;
        read32 write32 u32;
    }

    fn devices_on(&self, segment: u16, bus: u8) -> u32 {
        match self {
            Self::Ecam(space) => space.devices_on(segment, bus),
            Self::Ports(space) => space.devices_on(segment, bus),
        }
    }
}

impl Pd {
    /// pci-server: configuration space of the shard's buses, as it was given.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        match self.pci_info().config_ports {
            0 => Configuration::Ecam(self.ecam()),
            ports => Configuration::Ports(PortSpace::new(IoPort::at(ports.into()))),
        }
    }
}
