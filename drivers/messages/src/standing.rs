//! [`Standing`]: what the servers have given out, as a client that may look sees it: the vector table row by row, and every
//! figure that has to be as it was when nobody holds anything any more.

use client::{Client, Error, Inspector, Platform, Sbdf};
use heapless::Vec;
use ipc_proto::VectorUse;
use ipc_proto::msi::VectorAtReply;
use sel4_client::SeL4Platform;

/// Rows of the vector table: more than the kernel has vectors.
const MAX_ROWS: usize = 128;

/// What is given out at one moment. Two are equal when nothing leaked in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Vectors that are not free, with device, message, core and holder of each.
    pub table: Vec<VectorAtReply, MAX_ROWS>,
    /// Everything else.
    pub figures: Figures,
}

/// What is given out, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Vectors that are free.
    pub free: u16,
    /// Slots of the msi-server's CSpace, where the kernel's interrupt handlers are.
    pub handlers: u32,
    /// Slots of all pci-server shards. The iommu-server keeps some of a client that has had DMA memory until it ends.
    pub slots: u32,
    /// Bytes of device memory that the pci-server shards have cut for somebody.
    pub untyped: u64,
    /// Devices that are held, and devices that are attached to a context.
    pub devices: [u32; 2],
    /// Requests that wait.
    pub parked: u64,
    /// Domain ids, and tables of the IOMMU.
    pub domains: u32,
    /// Tables of the IOMMU.
    pub tables: u32,
    /// Bytes of DMA memory that are free, and buffers that are not.
    pub pool: (u64, u32),
    /// Slots of this PD's own window.
    pub window: u32,
}

/// Looks at all servers.
pub struct Observer<'a> {
    client: &'a Client<'static, SeL4Platform>,
    inspector: Inspector<'static, SeL4Platform>,
}

impl<'a> Observer<'a> {
    /// An observer.
    ///
    /// # Errors
    /// [`Error::NotFound`]: the description does not let this PD look.
    pub fn new(client: &'a Client<'static, SeL4Platform>) -> Result<Self, Error> {
        let inspector = Inspector::new(client.platform(), client.info()).ok_or(Error::NotFound)?;
        Ok(Self { client, inspector })
    }

    /// What is given out now.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn standing(&self) -> Result<Standing, Error> {
        let msi = self.inspector.msi(0).figures()?;
        let iommu = self
            .inspector
            .iommu(self.client.info().iommu.unwrap_or(0))
            .figures()?;
        let mut standing = Standing {
            table: Vec::new(),
            figures: Figures {
                free: msi.free,
                handlers: msi.slots_used,
                slots: 0,
                untyped: 0,
                devices: [0, iommu.attached],
                parked: 0,
                domains: iommu.domains_used,
                tables: iommu.tables_used,
                pool: (iommu.pool_free, iommu.buffers),
                window: self.client.window().in_use(),
            },
        };
        let figures = &mut standing.figures;
        for row in self.inspector.vectors(0) {
            let table = &mut standing.table;
            table.push(row?).map_err(|_| Error::NotFound)?;
        }
        for &(shard, ..) in &self.client.info().pci {
            let pci = self.inspector.pci(shard).figures()?;
            figures.slots += pci.slots_used;
            figures.untyped += pci.untyped_used;
            figures.devices[0] += pci.assigned;
            figures.parked += pci.parked;
        }
        Ok(standing)
    }

    /// Who holds a device, by name, and how many messages of it are enabled.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn holding(&self, device: Sbdf) -> Result<Option<(&str, u16)>, Error> {
        let shard = self.client.shard_of(device)?;
        for held in self.inspector.functions(shard) {
            let held = held?;
            if held.device != device {
                continue;
            }
            let Some(holder) = held.holder else {
                break;
            };
            let name = self.client.info().clients.get(usize::from(holder));
            return Ok(name.map(|name| (name.as_str(), held.messages)));
        }
        Ok(None)
    }

    /// The vector of a device's first message, as the kernel counts.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn vector(&self, device: Sbdf) -> Result<Option<u16>, Error> {
        for row in self.inspector.vectors(0) {
            let row = row?;
            if row.purpose == VectorUse::Message && row.device == device {
                return Ok(Some(row.vector));
            }
        }
        Ok(None)
    }

    /// Messages so far that reached nobody because nobody was bound to their vector.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn absorbed(&self) -> Result<u64, Error> {
        Ok(self.inspector.msi(0).figures()?.absorbed)
    }
}

impl Standing {
    /// Whether no device has a vector.
    pub fn is_without_messages(&self) -> bool {
        let mut rows = self.table.iter();
        rows.all(|row| row.purpose != VectorUse::Message)
    }

    /// Whether nothing is given out that was not before; what is different is said.
    pub fn is_as(&self, before: &Self, platform: &SeL4Platform) -> bool {
        if self.table != before.table {
            platform.log(format_args!("vectors before: {:x?}", before.table));
            platform.log(format_args!("vectors now: {:x?}", self.table));
        }
        if self.figures != before.figures {
            platform.log(format_args!("before: {:?}", before.figures));
            platform.log(format_args!("now: {:?}", self.figures));
        }
        self == before
    }
}
