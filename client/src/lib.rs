//! The library a driver is written against.
//!
//! ```text
//! let client = Client::connect(platform)?;          // versions are compared
//! let device = client.assign(address)?;             // "I hold this device"
//! let mut registers = device.map_bar(0)?;           // BAR frames, no server on the way
//! let buffer = client.buffer(64 << 10, PagePreference::Small)?;
//! let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
//! device.bus_master(Switch::On)?;
//! let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
//! let flags = client.wait();
//! ```
//! Dropping a [`Device`], [`Buffer`], mapping or [`Interrupts`] gives it back;
//! the explicit methods do the same and say what went wrong.
//!
//! A server that is restarted while it serves a request is asked again by these methods; who uses the stubs
//! themselves has [`retry`] and [`Refusal::is_retryable`].
//!
//! What the kernel must do (mapping frames, waiting) comes in by [`Platform`],
//! implemented by `sel4-glue` for images and by test doubles on the host.
//! Neighbours: `ipc-proto` (the contract), `system` (fixed places).

#![no_std]
#![forbid(unsafe_code)]

mod again;
mod buffer;
mod channel;
mod device;
mod dump;
mod error;
mod inspect;
mod interrupts;
mod platform;
mod query;
pub mod report;
mod share;
mod wait;
mod window;

pub use buffer::{Buffer, Fault};
pub use channel::{Channel, POSTED_MAX};
pub use device::{BarInfo, Device, Found, Registers};
pub use error::Error;
pub use hw::{Mmio, Sbdf};
pub use inspect::{Administrator, Held, Inspector};
pub use interrupts::{Interrupts, Line};
pub use ipc_proto::{
    ANY_IOVA, Access, BarKind, CapabilityListKind, ConfigRight, ContextChoice, Delivery,
    DeviceError, DeviceState, EventKind, GroupTie, Mechanism, PagePreference, Properties, Refusal,
    ResetKind, Rule, Switch, Turns, Width, WithheldCode, retry,
};
pub use platform::{KernelError, Memory, Platform};
pub use query::{CapabilityEntry, Event, Member, Place, ReservedRegion};
pub use share::{Narrowed, Rights};
pub use window::{Run, WORDS as WINDOW_WORDS, Window};

use ipc_proto::{iommu, msi, pci, supervisor, timer};
use system::info::ClientInfo;
use system::layout::slot;

/// A connection to the servers that serve this PD.
pub struct Client<'p, P: Platform> {
    platform: &'p P,
    info: &'p ClientInfo,
    window: Window<'p>,
    kept: wait::Kept,
}

impl<'p, P: Platform> Client<'p, P> {
    /// Says hello to every shard that the description lets this PD reach.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Rule::VersionMismatch`] when the image holds servers of another version.
    pub fn connect(platform: &'p P, info: &'p ClientInfo) -> Result<Self, Error> {
        let client = Self {
            platform,
            info,
            window: Window::new(info.window_bits, platform.slots_in_use()),
            kept: wait::Kept::default(),
        };
        for &(shard, ..) in &info.pci {
            retry(|| client.pci(shard).hello(ipc_proto::VERSION))?;
        }
        if info.iommu.is_some() {
            let server = client.iommu()?;
            retry(|| server.hello(ipc_proto::VERSION))?;
        }
        Ok(client)
    }

    /// What the kernel does for this PD.
    pub fn platform(&self) -> &'p P {
        self.platform
    }

    /// The PD's information.
    pub fn info(&self) -> &'p ClientInfo {
        self.info
    }

    /// The slots of the grant window.
    pub fn window(&self) -> &Window<'p> {
        &self.window
    }

    /// The stub of pci-server shard `shard`.
    pub fn pci(&self, shard: u8) -> pci::Stub<P::Port> {
        pci::Stub(self.platform.port(slot::PCI + u64::from(shard)))
    }

    /// The stub of the iommu-server shard that keeps this PD's buffers.
    ///
    /// # Errors
    /// [`Error::NoIommuShard`] when there is none.
    pub fn iommu(&self) -> Result<iommu::Stub<P::Port>, Error> {
        let shard = self.info.iommu.ok_or(Error::NoIommuShard)?;
        Ok(iommu::Stub(
            self.platform.port(slot::IOMMU + u64::from(shard)),
        ))
    }

    /// The stub of msi-server shard `shard`. The first has the interrupt lines.
    pub fn msi(&self, shard: u8) -> msi::Stub<P::Port> {
        msi::Stub(self.platform.port(slot::MSI + u64::from(shard)))
    }

    /// The stub of the timer service.
    pub fn timer(&self) -> timer::Stub<P::Port> {
        timer::Stub(self.platform.port(slot::TIMER))
    }

    /// The stub of the supervisor.
    pub fn supervisor(&self) -> supervisor::Stub<P::Port> {
        supervisor::Stub(self.platform.port(slot::SUPERVISOR))
    }

    /// The shard whose buses hold `device`.
    ///
    /// # Errors
    /// [`Error::NoShard`] when this PD reaches none.
    pub fn shard_of(&self, device: Sbdf) -> Result<u8, Error> {
        self.info
            .pci
            .iter()
            .find(|&&(_, segment, first, last)| {
                segment == device.segment() && (first..=last).contains(&device.bus())
            })
            .map(|&(shard, ..)| shard)
            .ok_or(Error::NoShard(device))
    }

    /// The devices that the description grants this PD, over all shards.
    pub fn devices(&self) -> impl Iterator<Item = Result<Found, Error>> + '_ {
        self.info.pci.iter().flat_map(move |&(shard, ..)| {
            query::list(move |index| {
                let row = retry(|| self.pci(shard).device_at(index))?;
                Ok(Found {
                    device: row.device,
                    ids: row.ids,
                    class: row.class,
                    state: row.state,
                })
            })
        })
    }

    /// Takes a device. It is this PD's alone until it is released.
    ///
    /// # Errors
    /// The rule that forbids it, or [`Error::WindowFull`].
    pub fn assign(&self, device: Sbdf) -> Result<Device<'_, 'p, P>, Error> {
        Device::assign(self, device, ContextChoice::Shared)
    }

    /// As [`Self::assign`], with a context of its own for the device's DMA: it reaches only buffers that are mapped
    /// for it ([`Buffer::map_for`]).
    ///
    /// # Errors
    /// The same.
    pub fn assign_private(&self, device: Sbdf) -> Result<Device<'_, 'p, P>, Error> {
        Device::assign(self, device, ContextChoice::Private)
    }

    /// Takes the first granted device with these ids.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; else as [`Self::assign`].
    pub fn assign_ids(&self, vendor: u16, device: u16) -> Result<Device<'_, 'p, P>, Error> {
        let ids = u32::from(device) << 16 | u32::from(vendor);
        for found in self.devices() {
            let found = found?;
            if found.ids == ids {
                return self.assign(found.device);
            }
        }
        Err(Error::NotFound)
    }

    /// Allocates DMA memory for this PD and its devices. Nobody can be given a share of it, where it is of small pages.
    ///
    /// # Errors
    /// The rule that forbids it, or [`Error::WindowFull`].
    pub fn buffer(&self, bytes: u64, pages: PagePreference) -> Result<Buffer<'_, 'p, P>, Error> {
        match pages {
            PagePreference::Small => Buffer::allocate_private(self, bytes),
            PagePreference::Large => Buffer::allocate(self, bytes, pages),
        }
    }

    /// Allocates DMA memory of which other PDs can be given a share ([`Channel::give`]). It takes more requests, and kernel
    /// calls of the server, than [`Self::buffer`].
    ///
    /// # Errors
    /// The rule that forbids it, or [`Error::WindowFull`].
    pub fn shared_buffer(
        &self,
        bytes: u64,
        pages: PagePreference,
    ) -> Result<Buffer<'_, 'p, P>, Error> {
        Buffer::allocate(self, bytes, pages)
    }

    /// The oldest fault record of this PD's devices, if there is one.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn next_fault(&self) -> Result<Option<Fault>, Error> {
        let server = self.iommu()?;
        match retry(|| server.fault_next()) {
            Ok(row) => Ok(Some(Fault {
                device: row.device,
                address: row.address,
                access: row.access,
                reason: row.reason,
                lost: row.lost,
            })),
            Err(refusal) if refusal.rule == Rule::EndOfList => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
