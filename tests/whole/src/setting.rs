//! [`Setting`]: the size and kind of a world; [`Store`]: the servers' memory.

use iommu_core::vtd;
use pci_core::Tables;
use sim::vtd::Model;

use crate::mortal::Mortal;

use system::info::{ClientEntry, EcamWindow, PciInfo, UntypedPiece};
use system::model::DeviceMatch;

/// Slots of a client's window: 2^bits.
pub const WINDOW_BITS: u8 = 8;
/// DMA memory of a client.
pub const QUOTA: u64 = 1 << 16;
/// Vectors of a client.
pub const VECTORS: u16 = 8;
/// The msi-server's vectors, as the kernel counts, and the processor's number of the first.
pub const FIRST_VECTOR: u16 = 2;
/// How many there are.
pub const VECTOR_COUNT: u16 = 16;
/// The processor's number of the kernel's vector 0.
pub const VECTOR_BASE: u8 = 0x30;

pub(crate) const DEVICE_MEMORY: [(u32, u64, u8); 2] =
    [(100, 0xe000_0000, 28), (101, 0x80_0000_0000, 32)];
pub(crate) const POOL: [UntypedPiece; 1] = [UntypedPiece {
    slot: 10,
    base: 0x1000_0000,
    bits: 18,
}];

/// Something broken on purpose, to see that the rules notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Nothing is.
    None,
    /// The unit confirms that it forgot context entries, and did not: as if nobody had told it to.
    KeepsContexts,
    /// The same for translations.
    KeepsTranslations,
    /// The kernel leaves copies of what is revoked.
    KeepsCopies,
    /// The same, of device capabilities alone.
    KeepsDeviceCapabilities,
    /// Some of what a server notes for its next life is lost.
    LosesNotes(Mortal),
}

/// The size and kind of a world.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// What the unit is like.
    pub model: Model,
    /// How many clients there are.
    pub clients: u16,
    /// How many of [`crate::hardware::DEVICES`] there are.
    pub devices: usize,
    /// What is broken.
    pub flaw: Flaw,
}

/// Most lives of a server.
const MAX_LIVES: usize = 400;

/// Memory for each life of a server, made when it begins.
pub(crate) type Spare<T> = Vec<Option<Box<T>>>;

fn spare<T>() -> Spare<T> {
    (0..MAX_LIVES).map(|_| None).collect()
}

/// The servers' memory.
pub struct Store {
    pub(crate) tables: Spare<Tables<u32, 32, 8, 64>>,
    pub(crate) iommu: Spare<(iommu_core::Storage, vtd::Storage)>,
    pub(crate) info: PciInfo,
    pub(crate) clients: Vec<ClientEntry>,
}

impl Store {
    /// Empty.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let any = DeviceMatch::Class { class: 0, mask: 0 };
        let client = |number: u16| ClientEntry {
            name: format!("client-{number}")
                .as_str()
                .try_into()
                .expect("a name"),
            window: 500,
            window_bits: WINDOW_BITS,
            events: 501,
            notification: 0,
            devices: [any].into_iter().collect(),
            dma_quota: QUOTA,
            largest_buffer: QUOTA,
            vectors: VECTORS,
            reserved_vectors: 0,
            interrupt_rate: 0,
            core: 0,
        };
        let mut info = PciInfo {
            config_ports: 0,
            port_interrupt: None,
            unit_messages: Default::default(),
            large_bars: Default::default(),
            ats: Default::default(),
            virtual_functions: Default::default(),
            proximity: Default::default(),
            shard: 0,
            ecam: Default::default(),
            mmio: Default::default(),
            io: Default::default(),
            withheld: Default::default(),
            iommu_present: true,
            iommu_shard: 0,
            msi_shard: 0,
            intx: Default::default(),
            unprotected: false,
            done: 502,
        };
        let window = EcamWindow {
            vaddr: 0x4000_0000,
            paddr: 0xb000_0000,
            segment: 0,
            first_bus: 0,
            last_bus: 0x3f,
        };
        info.ecam.push(window).expect("room for a window");
        for (slot, base, bits) in DEVICE_MEMORY {
            let piece = UntypedPiece { slot, base, bits };
            info.mmio.push(piece).expect("room for a piece");
        }
        Self {
            tables: spare(),
            iommu: spare(),
            info,
            clients: (0..setting.clients).map(client).collect(),
        }
    }
}
