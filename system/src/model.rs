//! The system description in compiled form: what `images` makes of the
//! user's TOML and the root task reads at boot. Every list is bounded.

use heapless::{String, Vec};
use hw::Sbdf;
use serde::{Deserialize, Serialize};

/// Most PDs that a description may name (servers not counted).
pub const MAX_CLIENTS: usize = 32;
/// Most device rules a client may have.
pub const MAX_RULES: usize = 16;
/// Most devices that the description withholds.
pub const MAX_WITHHELD: usize = 16;
/// Most rules of each other list of devices in the description.
pub const MAX_DEVICE_RULES: usize = 16;
/// Most channels that the description names.
pub const MAX_CHANNELS: usize = 16;
/// Most channels that a client may be an end of.
pub const MAX_CHANNELS_A_CLIENT: usize = 8;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 24;
/// Longest argument string, in bytes.
pub const MAX_ARGS: usize = 120;

/// A PD's or program's name.
pub type Name = String<MAX_NAME>;

/// Which devices a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceMatch {
    /// One function, by address ([`Sbdf::to_bits`]).
    Address(u32),
    /// Every function with this vendor and device id.
    Ids {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// Every function whose class code (class << 16 | subclass << 8 | interface) equals `class` under `mask`.
    Class {
        /// Class code.
        class: u32,
        /// Bits that count.
        mask: u32,
    },
}

impl DeviceMatch {
    /// Does the rule mean this function? `ids` is device << 16 | vendor.
    #[must_use]
    pub fn matches(&self, device: Sbdf, ids: u32, class: u32) -> bool {
        match *self {
            Self::Address(bits) => device.to_bits() == bits,
            Self::Ids { vendor, device } => ids == u32::from(device) << 16 | u32::from(vendor),
            Self::Class {
                class: wanted,
                mask,
            } => class & mask == wanted & mask,
        }
    }
}

/// A client PD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Name, unique.
    pub name: Name,
    /// Program: name of an ELF in the bundle.
    pub program: Name,
    /// Arguments handed to the program as they are.
    pub args: String<MAX_ARGS>,
    /// Priority, 1..=[`crate::layout::priority::CLIENT_MAX`].
    pub priority: u8,
    /// Core, 0-based.
    pub core: u8,
    /// Stack, in pages of 4 KiB.
    pub stack_pages: u16,
    /// Untyped memory for its own kernel objects: 2^bits bytes.
    pub untyped_bits: u8,
    /// Slots of its grant window: 2^bits.
    pub window_bits: u8,
    /// DMA memory it may hold, in bytes.
    pub dma_quota: u64,
    /// The largest buffer of that, in bytes.
    pub largest_buffer: u64,
    /// Interrupt vectors it may hold.
    pub vectors: u16,
    /// Of these, vectors that are kept free for it from the start, in one aligned block.
    pub reserved_vectors: u16,
    /// How often a second each of its vectors may be raised: the msi-server counts and passes them on. 0: nobody counts, and
    /// no server is on the way.
    pub interrupt_rate: u32,
    /// Devices it may have.
    pub devices: Vec<DeviceMatch, MAX_RULES>,
    /// May it look at every server (dumps, figures)?
    pub inspect: bool,
    /// May it administer the platform (scan again, remove devices)?
    pub admin: bool,
    /// Does the run end when this PD (and all others with this set) have exited?
    pub must_finish: bool,
    /// Is a fault of this PD what the description expects (tests)?
    pub may_fault: bool,
}

/// Which backend the iommu-server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IommuChoice {
    /// What the machine has.
    Auto,
    /// User-level VT-d.
    Vtd,
    /// User-level AMD-Vi.
    AmdVi,
    /// The kernel's own driver, through I/O spaces.
    Kernel,
    /// None, even if there is one.
    None,
}

/// What a device that nobody holds any more reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quarantine {
    /// Nothing.
    Blocking,
    /// Zeros to read, and nothing to write: for devices that hang when a read of theirs is refused. Where the
    /// IOMMU is VT-d; nothing elsewhere.
    Scratch,
}

/// When the system powers itself off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Never: it serves until the machine is switched off.
    Never,
    /// When every client that must finish has exited: through QEMU's `isa-debug-exit` port.
    Finished,
}

/// How configuration space is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigAccess {
    /// Memory-mapped (ECAM) where firmware names windows for it, else I/O ports.
    Auto,
    /// I/O ports 0xCF8 and 0xCFC, even where there is ECAM: segment 0, 256 bytes a function.
    Ports,
}

/// A physical function whose virtual functions the platform enables at boot and hands out; nobody gets itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualFunctions {
    /// The physical function.
    pub device: DeviceMatch,
    /// How many.
    pub count: u16,
}

/// A way for two clients to hand each other capabilities (DMA buffers above all) and to signal each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Name, unlike any other channel's.
    pub name: Name,
    /// The two clients, by id.
    pub ends: [u16; 2],
}

/// Which lines of the I/O APIC the interrupt pins of some devices on a root bus are wired to: what firmware says in AML
/// (`_PRT`), which is not run. The pins of what lies behind bridges are those of the bridge on the root bus, turned by the
/// device number at each bridge (PCI-to-PCI Bridge 1.2, 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntxRoute {
    /// PCI segment.
    pub segment: u16,
    /// Root bus.
    pub bus: u8,
    /// First device number.
    pub first: u8,
    /// Last device number.
    pub last: u8,
    /// Lines of pins A to D of a device whose number is a multiple of four; the others' are turned by their number where
    /// `rotated`.
    pub lines: [u8; 4],
    /// Does pin p of device d have the line of number (d + p) mod 4, instead of p?
    pub rotated: bool,
}

/// Most rules about interrupt pins.
pub const MAX_INTX_ROUTES: usize = 16;

impl IntxRoute {
    /// The line of a pin (0: A) of a device on the root bus, if this rule is about it.
    #[must_use]
    pub fn line(&self, device: Sbdf, pin: u8) -> Option<u8> {
        let number = device.device();
        let meant = (self.segment, self.bus) == (device.segment(), device.bus())
            && (self.first..=self.last).contains(&number);
        let turn = if self.rotated { number } else { 0 };
        let index = usize::from(turn.wrapping_add(pin) % 4);
        self.lines.get(index).copied().filter(|_| meant)
    }
}

/// How many shards each server has. 0: by the machine (one pci shard a host bridge).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shards {
    /// pci-server shards, 0: one a host bridge.
    pub pci: u8,
    /// msi-server shards (at least 1).
    pub msi: u8,
}

/// The whole description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// [`FORMAT`] of the tool that compiled it.
    pub format: u32,
    /// Name, for messages.
    pub name: Name,
    /// Assign bus-mastering devices though nothing confines their DMA.
    pub unprotected: bool,
    /// Allow the supervisor's test operations.
    pub testing: bool,
    /// Backend of the iommu-server.
    pub iommu: IommuChoice,
    /// Drive interrupt remapping where the unit has it.
    pub interrupt_remapping: bool,
    /// What a device that nobody holds any more reaches.
    pub quarantine: Quarantine,
    /// How configuration space is reached.
    pub config_access: ConfigAccess,
    /// Faults of a server shard, without a minute in between, after which it is not restarted any more; 0: it is never
    /// restarted.
    pub restarts: u8,
    /// Shards.
    pub shards: Shards,
    /// Pool of DMA memory, in bytes.
    pub dma_pool: u64,
    /// Memory for IOMMU tables, in pages of 4 KiB.
    pub table_pages: u32,
    /// When the system ends.
    pub end: End,
    /// Devices that nobody gets, besides the built-in rules.
    pub withheld: Vec<DeviceMatch, MAX_WITHHELD>,
    /// Devices each of whose memory BARs is placed alone in large pages (2 MiB), so that one large frame maps it.
    pub large_bars: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    /// Devices that may have the memory firmware reserved for their DMA (RMRR, IVMD) mapped.
    pub reserved_regions: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    /// Devices that may cache translations (ATS).
    pub ats: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    /// Physical functions whose virtual functions are enabled at boot.
    pub virtual_functions: Vec<VirtualFunctions, MAX_DEVICE_RULES>,
    /// Lines of interrupt pins.
    pub intx: Vec<IntxRoute, MAX_INTX_ROUTES>,
    /// The clients, in order of their ids.
    pub clients: Vec<Client, MAX_CLIENTS>,
    /// The channels between them.
    pub channels: Vec<Channel, MAX_CHANNELS>,
}

/// Version of the compiled form.
pub const FORMAT: u32 = 5;
