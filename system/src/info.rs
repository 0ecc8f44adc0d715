//! [`PdInfo`]: what the root task tells a PD at its start, encoded with
//! postcard at [`crate::layout::va::INFO`] (a `u32` length, then the bytes).

mod iommu;

pub use iommu::{
    AliasRange, IoSpaceInfo, IommuInfo, MAX_ALIAS_RANGES, Reserved, ReservedUse, Scope, UnitInfo,
};

use crate::layout::{MAX_PDS, MAX_SHARDS};
use crate::model::{
    DeviceMatch, IntxRoute, MAX_ARGS, MAX_CHANNELS_A_CLIENT, MAX_CLIENTS, MAX_DEVICE_RULES,
    MAX_INTX_ROUTES, MAX_RULES, MAX_WITHHELD, Name, VirtualFunctions,
};
use heapless::{String, Vec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most untyped pieces handed to one server.
pub const MAX_UNTYPED: usize = 192;
/// Most ECAM windows of one pci-server shard.
pub const MAX_ECAM: usize = 4;
/// Most ranges of I/O addresses of one pci-server shard.
pub const MAX_IO: usize = 8;
/// Most IOMMU units of one iommu-server shard.
pub const MAX_UNITS: usize = 8;
/// Most device scopes of one IOMMU unit.
pub const MAX_SCOPES: usize = 32;
/// Most regions that firmware reserved for DMA, of one iommu-server shard.
pub const MAX_RESERVED: usize = 32;
/// Most bus ranges with a proximity domain of one pci-server shard.
pub const MAX_PROXIMITY: usize = 16;
/// Most interrupt lines.
pub const MAX_LINES: usize = 16;
/// Most cores that messages are sent to.
pub const MAX_CORES: usize = 16;
/// Most vectors that servers have for themselves.
pub const MAX_SERVER_VECTORS: usize = 32;

/// A range of private slots: `first`, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// First slot.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// An untyped capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UntypedPiece {
    /// Slot of the capability.
    pub slot: u32,
    /// Physical address.
    pub base: u64,
    /// Size: 2^bits bytes.
    pub bits: u8,
}

/// A client, as a server needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    /// Name, for dumps.
    pub name: Name,
    /// Slot of the client's grant-window CNode, guard 0.
    pub window: u32,
    /// Slots of it: 2^bits; addressed with depth `window_bits`.
    pub window_bits: u8,
    /// Slot of a capability that signals the client's event notification; its badge is this server's
    /// (`event::DEVICE` for pci-server, `event::FAULT` for iommu-server, `event::LINE` for the msi-server with the lines).
    pub events: u32,
    /// Slot of the client's event notification without a badge, to signal (msi-servers, of clients with an
    /// `interrupt_rate`; else 0): what its metered vectors signal is minted from it.
    pub notification: u32,
    /// Devices it may have.
    pub devices: Vec<DeviceMatch, MAX_RULES>,
    /// DMA memory it may hold, in bytes.
    pub dma_quota: u64,
    /// Its largest buffer, in bytes.
    pub largest_buffer: u64,
    /// Vectors it may hold.
    pub vectors: u16,
    /// Vectors that are kept free for it.
    pub reserved_vectors: u16,
    /// How often a second each of its vectors may be raised; 0: nobody counts.
    pub interrupt_rate: u32,
    /// Core that it runs on.
    pub core: u8,
}

/// ECAM of some buses, mapped in the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcamWindow {
    /// Where bus `first_bus` begins in the shard's address space.
    pub vaddr: u64,
    /// Physical address of the same byte.
    pub paddr: u64,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// The interrupt of a remapping unit that is a PCI function: its message is set up in the function's own registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitMessage {
    /// The function ([`Sbdf::to_bits`]).
    pub device: u32,
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// A pci-server shard's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciInfo {
    /// The shard's number.
    pub shard: u8,
    /// Its buses.
    pub ecam: Vec<EcamWindow, MAX_ECAM>,
    /// Device untypeds of its memory windows, ascending, no overlap.
    pub mmio: Vec<UntypedPiece, MAX_UNTYPED>,
    /// I/O addresses (first and last) that its host bridges pass on, where firmware says so.
    pub io: Vec<(u16, u16), MAX_IO>,
    /// Slot of a capability for I/O ports 0xCF8 to 0xCFF where configuration space is reached through them; 0: ECAM.
    /// The windows' `vaddr` and `paddr` mean nothing then.
    pub config_ports: u32,
    /// How its ports (hot-plug, errors) signal it, if they can: one vector for all of them.
    pub port_interrupt: Option<PortInterrupt>,
    /// Messages of remapping units among its functions.
    pub unit_messages: Vec<UnitMessage, MAX_UNITS>,
    /// Devices that nobody gets.
    pub withheld: Vec<DeviceMatch, MAX_WITHHELD>,
    /// Devices each of whose memory BARs is placed alone in large pages.
    pub large_bars: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    /// Devices that may cache translations (ATS).
    pub ats: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    /// Physical functions whose virtual functions are enabled at boot.
    pub virtual_functions: Vec<VirtualFunctions, MAX_DEVICE_RULES>,
    /// Proximity domains: (first bus, last bus, domain), as firmware says.
    pub proximity: Vec<(u8, u8, u32), MAX_PROXIMITY>,
    /// Is there an IOMMU that covers its devices?
    pub iommu_present: bool,
    /// iommu-server shard that serves it, when present.
    pub iommu_shard: u8,
    /// msi-server shard that serves it. Interrupt lines are the first shard's.
    pub msi_shard: u8,
    /// Lines of interrupt pins.
    pub intx: Vec<IntxRoute, MAX_INTX_ROUTES>,
    /// Assign bus-mastering devices without an IOMMU.
    pub unprotected: bool,
    /// Signals the supervisor: a revocation it owed is done (slot).
    pub done: u32,
}

/// An interrupt of the server's own: the message that raises it, and the kernel's handler for it. It arrives as
/// [`crate::layout::event::INTERRUPT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInterrupt {
    /// Slot of the handler; already set to signal the server.
    pub handler: u32,
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// An msi-server shard's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsiInfo {
    /// The shard's number.
    pub shard: u8,
    /// First kernel vector it owns.
    pub first_vector: u16,
    /// How many.
    pub vectors: u16,
    /// CPU vector of kernel vector 0 (0x30 on x86_64).
    pub cpu_vector_base: u8,
    /// Slot of the handler of its first vector; those of the others follow. They are the originals, of which all copies are
    /// derived.
    pub handlers: u32,
    /// Local APIC id of each core.
    pub apic_ids: Vec<u8, MAX_CORES>,
    /// Buses of each pci-server shard, by shard: (segment, first bus, last bus).
    pub shard_buses: Vec<(u16, u8, u8), MAX_SHARDS>,
    /// Slots that signal each pci-server shard ([`crate::layout::event::LINE_TROUBLE`]), by shard.
    pub shard_signals: Vec<u32, MAX_SHARDS>,
    /// Interrupt lines that it serves.
    pub lines: Vec<LineInfo, MAX_LINES>,
    /// Kernel vectors that servers have for themselves, for the dump.
    pub server_vectors: Vec<u16, MAX_SERVER_VECTORS>,
}

/// A line of the I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineInfo {
    /// Its number.
    pub line: u16,
    /// Kernel vector.
    pub vector: u16,
    /// Slot of its handler.
    pub handler: u32,
}

/// The console service's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleInfo {
    /// Names of the PDs, by PD number; their rings are mapped at `va::RINGS`.
    pub names: Vec<Name, 64>,
    /// First I/O port of the serial line (16550).
    pub port: u16,
}

/// The timer service's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerInfo {
    /// HPET registers.
    pub hpet_vaddr: u64,
    /// IOAPIC pin that the handler at `slot::IRQ` is for; comparator 0 is routed to it.
    pub pin: u8,
    /// Slots that signal each PD's event notification with `event::TIMER`, by PD number; 0: none.
    pub signals: Vec<u32, 64>,
}

/// A client's end of a channel. The other end's signal arrives as [`crate::layout::event::CHANNEL`]` << n` for the
/// n-th end of [`ClientInfo::channels`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelEnd {
    /// The channel's name.
    pub name: Name,
    /// 0 for the client that the description names first, 1 for the other: which half of the mailbox it posts in.
    pub side: u8,
    /// Slot of the mailbox's CNode ([`crate::layout::MAILBOX_BITS`]), guard 0.
    pub mailbox: u32,
    /// Slot of the capability that signals the other end.
    pub signal: u32,
}

/// A client's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its number.
    pub client: u16,
    /// Slots of its grant window: 2^bits.
    pub window_bits: u8,
    /// Size of the untyped at `slot::UNTYPED`: 2^bits bytes.
    pub untyped_bits: u8,
    /// pci-server shards it has endpoints of: (shard number, segment, first bus, last bus).
    pub pci: Vec<(u8, u16, u8, u8), MAX_SHARDS>,
    /// iommu-server shard that keeps its DMA buffers, if there is one.
    pub iommu: Option<u8>,
    /// Has it capabilities to look at the servers ([`crate::layout::slot::INSPECT_PCI`] and following)?
    pub inspect: bool,
    /// Has it capabilities to administer ([`crate::layout::slot::ADMIN_PCI`])?
    pub admin: bool,
    /// Names of the clients, by client id; only when it may look.
    pub clients: Vec<Name, MAX_CLIENTS>,
    /// Its ends of channels.
    pub channels: Vec<ChannelEnd, MAX_CHANNELS_A_CLIENT>,
    /// Its arguments.
    pub args: String<MAX_ARGS>,
    /// Names of all PDs with their numbers (for test programs), only when `testing`.
    pub pds: Vec<(Name, u16), MAX_PDS>,
}

/// What each kind of PD gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of it in a PD, and nothing to allocate it from"
)]
pub enum Role {
    /// pci-server shard.
    Pci(PciInfo),
    /// iommu-server shard.
    Iommu(IommuInfo),
    /// msi-server shard.
    Msi(MsiInfo),
    /// Console service.
    Console(ConsoleInfo),
    /// Timer service.
    Timer(TimerInfo),
    /// A client.
    Client(ClientInfo),
}

/// What the root task tells a PD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PdInfo {
    /// [`crate::model::FORMAT`].
    pub format: u32,
    /// Fingerprint of the kernel interface the root task was built for; a PD built for another one stops.
    pub abi_fingerprint: u64,
    /// Name.
    pub name: Name,
    /// PD number.
    pub pd: u16,
    /// Slots of the private CNode: 2^bits; its capability at `slot::CNODE` has guard 0.
    pub cnode_bits: u8,
    /// Private slots that are empty and the PD's own.
    pub free_slots: Slots,
    /// Ticks of the time-stamp counter a microsecond.
    pub tsc_mhz: u32,
    /// The clients (servers only), by client id.
    pub clients: Vec<ClientEntry, MAX_CLIENTS>,
    /// Allow test operations.
    pub testing: bool,
    /// The rest, by kind.
    pub role: Role,
}

impl PdInfo {
    /// Information of nobody, for [`Self::read`] to fill.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            format: 0,
            abi_fingerprint: 0,
            name: Name::new(),
            pd: 0,
            cnode_bits: 0,
            free_slots: Slots { first: 0, count: 0 },
            tsc_mhz: 0,
            clients: Vec::new(),
            testing: false,
            role: Role::Console(ConsoleInfo {
                names: Vec::new(),
                port: 0,
            }),
        }
    }

    /// Decodes `bytes`, field by field in place: the whole takes over ten KiB, and a deserializer that returns
    /// it moves it over the stack several times. On an error the contents are undefined.
    ///
    /// # Errors
    /// The bytes are no `PdInfo`, or more than one.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        let mut rest = bytes;
        next(&mut self.format, &mut rest)?;
        next(&mut self.abi_fingerprint, &mut rest)?;
        next(&mut self.name, &mut rest)?;
        next(&mut self.pd, &mut rest)?;
        next(&mut self.cnode_bits, &mut rest)?;
        next(&mut self.free_slots, &mut rest)?;
        next(&mut self.tsc_mhz, &mut rest)?;
        // A sequence is its length, then its elements.
        let mut count = 0u32;
        next(&mut count, &mut rest)?;
        self.clients.clear();
        for _ in 0..count {
            let mut client = ClientEntry {
                name: Name::new(),
                window: 0,
                window_bits: 0,
                events: 0,
                notification: 0,
                devices: Vec::new(),
                dma_quota: 0,
                largest_buffer: 0,
                vectors: 0,
                reserved_vectors: 0,
                interrupt_rate: 0,
                core: 0,
            };
            next(&mut client, &mut rest)?;
            let full = |_| postcard::Error::DeserializeBadEncoding;
            self.clients.push(client).map_err(full)?;
        }
        next(&mut self.testing, &mut rest)?;
        next(&mut self.role, &mut rest)?;
        if rest.is_empty() {
            Ok(())
        } else {
            Err(postcard::Error::DeserializeBadEncoding)
        }
    }
}

/// Decodes the next value. A frame of its own each, so that their stacks do not add up.
#[inline(never)]
fn next<T: DeserializeOwned>(into: &mut T, rest: &mut &[u8]) -> Result<(), postcard::Error> {
    (*into, *rest) = postcard::take_from_bytes(rest)?;
    Ok(())
}

#[cfg(test)]
mod tests;
