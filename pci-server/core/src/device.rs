//! [`Device`]: what the shard knows about a function, decoded once at boot and
//! trusted from then on; [`Withheld`] and [`Malformed`]: why nobody gets one.

use core::fmt;

use heapless::Vec;
use hw::bar::{BarError, Space};
use hw::capability::{
    AdvancedFeatures, CapabilityError, Entry, Express, MAX_CAPABILITIES, Msi, Msix, MsixError,
    PowerManagement, WalkFault,
};
use hw::header::{Header, HeaderError, register};
use hw::{Bar, ConfigSpace, Sbdf};
use ipc_proto::{BarKind, DeviceState, Refusal, ResetKind, Rule, WithheldCode};
use thiserror::Error;

use crate::bridge::Forwarding;
use crate::env::RegionId;
use crate::groups::Node;
use crate::space::{Range, ShardMemory};
use crate::translation::TranslationCache;

/// Why a function is given to nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Withheld {
    /// A host bridge: memory is reached through it.
    #[error("host bridge")]
    HostBridge,
    /// A bridge to other buses, or to ISA: the platform's.
    #[error("bridge")]
    Bridge,
    /// A part of the chipset: interrupt controller, timer, system management bus.
    #[error("part of the chipset")]
    Chipset,
    /// An IOMMU's own function.
    #[error("an IOMMU")]
    Iommu,
    /// The description says so.
    #[error("by the system description")]
    Description,
    /// The console's serial line.
    #[error("the console's serial line")]
    Console,
    /// A physical function whose virtual functions the platform hands out.
    #[error("its virtual functions are handed out")]
    Platform,
    /// It breaks a rule of the specification, or lies where it cannot be used.
    #[error("malformed: {0}")]
    Malformed(Malformed),
}

impl Withheld {
    /// Does it make its isolation group one that nobody gets? Bridges are no end of a request, and the
    /// platform's physical functions are idle: they go with their group, whoever has it.
    #[must_use]
    pub const fn bars_group(self) -> bool {
        !matches!(self, Self::HostBridge | Self::Bridge | Self::Platform)
    }

    /// Its code for a dump.
    #[must_use]
    pub const fn code(self) -> WithheldCode {
        match self {
            Self::HostBridge => WithheldCode::HostBridge,
            Self::Bridge => WithheldCode::Bridge,
            Self::Chipset => WithheldCode::Chipset,
            Self::Iommu => WithheldCode::Iommu,
            Self::Description => WithheldCode::Description,
            Self::Console => WithheldCode::Console,
            Self::Platform => WithheldCode::Platform,
            Self::Malformed(_) => WithheldCode::Malformed,
        }
    }

    /// The refusal of a request for such a device.
    #[must_use]
    pub fn refusal(self, device: Sbdf) -> Refusal {
        let rule = match self {
            Self::Malformed(_) => Rule::MalformedDevice,
            _ => Rule::Withheld,
        };
        Refusal::new(rule, u64::from(device.to_bits()))
    }
}

/// What answers where a device is known to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// The device.
    Same,
    /// Nothing.
    Gone,
    /// Another device, or one that is not ready.
    Other,
}

/// What is wrong with a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// Its header makes no sense.
    #[error("{0}")]
    Header(HeaderError),
    /// It stopped answering while it was examined.
    #[error("stopped answering")]
    Vanished,
    /// A capability list does not end properly.
    #[error("{0}")]
    List(WalkFault),
    /// A capability makes no sense.
    #[error("{0}")]
    Capability(CapabilityError),
    /// A BAR breaks a rule.
    #[error("{0}")]
    Bar(BarError),
    /// A BAR is larger than [`crate::MAX_BAR_BYTES`].
    #[error("BAR {0} is absurdly large")]
    BarTooLarge(u8),
    /// A memory BAR was not placed by firmware.
    #[error("BAR {0} has no address")]
    Unplaced(u8),
    /// A memory BAR lies outside the memory that the shard has.
    #[error("BAR {0} lies outside the shard's device memory")]
    OutsideMemory(u8),
    /// A memory BAR overlaps one of another function.
    #[error("BAR {bar} overlaps a BAR of {other}")]
    Overlap {
        /// Which BAR.
        bar: u8,
        /// The other function.
        other: Sbdf,
    },
    /// The MSI-X table is not inside a memory BAR.
    #[error("{0}")]
    Msix(MsixError),
    /// Bus mastering or decoding cannot be switched off.
    #[error("bus mastering or decoding stays on")]
    ControlStuck,
}

impl Malformed {
    /// The BAR that is wrong, if it is one.
    #[must_use]
    pub const fn bar(self) -> Option<u8> {
        match self {
            Self::BarTooLarge(bar)
            | Self::Unplaced(bar)
            | Self::OutsideMemory(bar)
            | Self::Overlap { bar, .. } => Some(bar),
            _ => None,
        }
    }
}

/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 1 << crate::bank::LARGE_BITS;

/// A BAR of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// What it is; [`BarKind::None`] where there is none.
    pub kind: BarKind,
    /// First address, as firmware placed it.
    pub base: u64,
    /// Bytes, a power of two unless it is fixed.
    pub bytes: u64,
    /// Reads have no side effects, and writes may be merged.
    pub prefetchable: bool,
    /// Its memory is the shard's, to be given out.
    pub served: bool,
    /// Its only page holds registers of another function too (BARs below 4 KiB).
    pub shared_page: bool,
    /// It is alone in large pages.
    pub alone: bool,
    /// Its address cannot be changed (Enhanced Allocation).
    pub fixed: bool,
}

impl Region {
    /// No BAR.
    pub const NONE: Self = Self {
        kind: BarKind::None,
        base: 0,
        bytes: 0,
        prefetchable: false,
        served: false,
        shared_page: false,
        alone: false,
        fixed: false,
    };

    /// Is it memory, of either width?
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self.kind, BarKind::Memory32 | BarKind::Memory64)
    }

    /// Last address, included.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.base.saturating_add(self.bytes.saturating_sub(1))
    }

    /// Bytes from [`Self::base`] on that nothing else may use.
    #[must_use]
    pub const fn hole(&self) -> u64 {
        if self.alone && self.bytes < LARGE_PAGE {
            LARGE_PAGE
        } else {
            self.bytes
        }
    }

    /// Has it an address?
    #[must_use]
    pub const fn is_placed(&self) -> bool {
        self.base != 0
    }

    /// Its memory, if frames of it may be given out.
    #[must_use]
    pub fn memory(&self) -> Option<RegionId> {
        let base = self.base & !0xfff;
        let end = self
            .base
            .checked_add(self.hole())?
            .checked_next_multiple_of(4096)?;
        (self.is_memory() && self.served && !self.shared_page && self.is_placed()).then_some(
            RegionId {
                base,
                bytes: end - base,
            },
        )
    }

    /// Pages of 4 KiB that it touches.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.bytes.div_ceil(4096)
    }
}

impl Region {
    /// A region as a register says; `bytes` is 0 where its size is not known.
    #[must_use]
    pub const fn of_size(space: Space, base: u64, bytes: u64) -> Self {
        let (kind, prefetchable) = match space {
            Space::Io => (BarKind::Io, false),
            Space::Memory32 { prefetchable } => (BarKind::Memory32, prefetchable),
            Space::Memory64 { prefetchable } => (BarKind::Memory64, prefetchable),
        };
        Self {
            kind,
            prefetchable,
            base,
            bytes,
            ..Self::NONE
        }
    }
}

impl From<&Bar> for Region {
    fn from(bar: &Bar) -> Self {
        Self::of_size(bar.space, bar.address, bar.size)
    }
}

/// Physical pages that hold an MSI-X table or its pending bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SecretPages {
    /// Number of the first page (address / 4096).
    pub first: u64,
    /// How many; 0: none.
    pub count: u64,
}

impl SecretPages {
    /// Is this page one of them?
    #[must_use]
    pub const fn contains(&self, page: u64) -> bool {
        page >= self.first && page - self.first < self.count
    }
}

/// Registers as they were at boot: what a device returns to when it is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Baseline {
    /// Command of a device without a holder: no decoding, no bus mastering, no INTx.
    pub command: u16,
    /// Cache line size and latency timer.
    pub cache_line: u16,
    /// Interrupt line.
    pub interrupt_line: u8,
    /// Expansion ROM register.
    pub rom: u32,
    /// PCI Express Device Control, without the bit that starts a reset.
    pub device_control: u16,
    /// PCI Express Link Control.
    pub link_control: u16,
    /// PCI Express Device Control 2.
    pub device_control2: u16,
}

/// A function's ACS Control as the shard wants it; a reset takes it away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessRegister {
    /// Where it is.
    pub offset: u16,
    /// What it has to be.
    pub value: u16,
}

impl AccessRegister {
    /// Writes it, unless it has its value.
    pub fn restore<C: ConfigSpace>(self, cfg: &mut C, at: Sbdf) {
        if cfg.read16(at, self.offset) != self.value {
            cfg.write16(at, self.offset, self.value);
        }
    }
}

/// A function of the shard.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its address.
    pub at: Sbdf,
    /// Its place among the others, and its isolation group.
    pub node: Node,
    /// Its cache of translations, where the description allows it.
    pub translation: Option<TranslationCache>,
    /// Its access control, where the shard has switched it on.
    pub access_control: Option<AccessRegister>,
    /// Device id << 16 | vendor id.
    pub ids: u32,
    /// Class << 16 | subclass << 8 | interface.
    pub class: u32,
    /// Its header as it was found; `None` for one that makes no sense.
    pub header: Option<Header>,
    /// Where it is in its life.
    pub state: DeviceState,
    /// Why nobody gets it, in state `Withheld`.
    pub withheld: Option<Withheld>,
    /// The clients that the description grants it to: one bit a client id. The table counts them.
    granted: u32,
    /// The assignment slot it is held through.
    pub assignment: Option<u16>,
    /// May it issue memory requests at all? Only looked at where no IOMMU confines it.
    pub can_master: bool,
    /// What it forwards, if it is a bridge.
    pub bridge: Option<Forwarding>,
    /// Addresses of the BARs of its virtual functions, where they were given by the shard.
    pub virtual_memory: Option<Range>,
    /// Its BARs; a 64-bit one is followed by an empty place.
    pub bars: [Region; 6],
    /// Pages that are never mapped into a client.
    pub secret: [SecretPages; 2],
    /// Its conventional capabilities, for the register policy.
    pub capabilities: Vec<Entry, MAX_CAPABILITIES>,
    /// Offset of Advanced Error Reporting, 0 for none.
    pub error_reporting: u16,
    /// Registers that are not shown: one bit for each four bytes of the first 256.
    pub hidden: u64,
    /// Bytes of configuration space: 256 or 4096.
    pub config_bytes: u16,
    /// MSI.
    pub msi: Option<Msi>,
    /// MSI-X.
    pub msix: Option<Msix>,
    /// Power management.
    pub power: Option<PowerManagement>,
    /// PCI Express.
    pub express: Option<Express>,
    /// Advanced Features.
    pub features: Option<AdvancedFeatures>,
    /// Which reset it has.
    pub reset: Option<ResetKind>,
    /// The bridge whose bus is reset in its place ([`ResetKind::Bus`]).
    pub reset_bridge: Option<Sbdf>,
    /// The physical function of a virtual one.
    pub physical: Option<Sbdf>,
    /// Where SR-IOV is, 0 for none.
    pub virtualization: u16,
    /// Its virtual functions that are enabled, and those of them that are held.
    pub virtual_count: u16,
    /// See there.
    pub virtual_held: u16,
    /// Its card is to be removed: nobody gets it.
    pub leaving: bool,
    /// Its bus is being reset: nobody touches it.
    pub in_bus_reset: bool,
    /// A way to it is left: it stays in quarantine, with its memory, even if it is pulled out.
    pub leaks: bool,
    /// It was entered while the shard serves, and not examined yet.
    pub is_new: bool,
    /// Registers to go back to.
    pub baseline: Baseline,
}

impl Device {
    /// A function of which nothing but the address and the header is known.
    #[must_use]
    pub const fn new(at: Sbdf, header: Option<Header>) -> Self {
        let (ids, class) = match header {
            Some(Header { ids, class, .. }) => (
                (ids.device as u32) << 16 | ids.vendor as u32,
                class.to_bits(),
            ),
            None => (u32::MAX, 0),
        };
        Self {
            at,
            node: Node::new(at),
            translation: None,
            access_control: None,
            ids,
            class,
            header,
            state: DeviceState::Quarantined,
            withheld: None,
            granted: 0,
            assignment: None,
            can_master: true,
            bridge: None,
            virtual_memory: None,
            bars: [Region::NONE; 6],
            secret: [SecretPages { first: 0, count: 0 }; 2],
            capabilities: Vec::new(),
            error_reporting: 0,
            hidden: 0,
            config_bytes: 256,
            msi: None,
            msix: None,
            power: None,
            express: None,
            features: None,
            reset: None,
            reset_bridge: None,
            physical: None,
            virtualization: 0,
            virtual_count: 0,
            virtual_held: 0,
            leaving: false,
            in_bus_reset: false,
            leaks: false,
            is_new: false,
            baseline: Baseline {
                command: 0,
                cache_line: 0,
                interrupt_line: 0,
                rom: 0,
                device_control: 0,
                link_control: 0,
                device_control2: 0,
            },
        }
    }

    /// Says of every BAR whether its memory is the shard's; gives the first of which it is not.
    pub(crate) fn serve(&mut self, memory: &ShardMemory<'_>) -> Option<u8> {
        let mut outside = None;
        for (bar, region) in (0..).zip(&mut self.bars) {
            if !region.is_memory() || !region.is_placed() {
                continue;
            }
            region.served = memory.holds(region.base, region.hole());
            if !region.served && !region.shared_page {
                outside = outside.or(Some(bar));
            }
        }
        outside
    }

    /// Notes which pages hold the MSI-X table and its pending bits, where the BARs are now.
    pub(crate) fn mark_secret(&mut self) {
        let Some(msix) = self.msix else {
            return;
        };
        let places = [
            (msix.table, msix.table_bytes()),
            (msix.pending, msix.pending_bytes()),
        ];
        for (secret, (place, bytes)) in self.secret.iter_mut().zip(places) {
            // A BAR below 4 KiB does not start at a page.
            let start = self.bars.get(usize::from(place.bar)).map_or(0, |region| {
                region.base.saturating_add(u64::from(place.offset))
            });
            let end = start.saturating_add(bytes);
            *secret = SecretPages {
                first: start / 4096,
                count: end.div_ceil(4096).saturating_sub(start / 4096),
            };
        }
    }

    /// Keeps it from everybody.
    pub fn withhold(&mut self, why: Withheld) {
        self.state = DeviceState::Withheld;
        self.withheld = Some(why);
    }

    /// The clients that it is granted to: one bit a client id.
    #[must_use]
    pub const fn granted(&self) -> u32 {
        self.granted
    }

    /// Says so, before it is entered in the table; gives what was said before. Afterwards it is
    /// for [`crate::Table::grant`].
    pub(crate) const fn set_granted(&mut self, clients: u32) -> u32 {
        core::mem::replace(&mut self.granted, clients)
    }

    /// Is it granted to this client?
    #[must_use]
    pub const fn is_granted(&self, client: u16) -> bool {
        client < 32 && self.granted >> client & 1 != 0
    }

    /// A refusal that is about this device.
    #[must_use]
    pub fn refusal(&self, rule: Rule) -> Refusal {
        Refusal::new(rule, u64::from(self.at.to_bits()))
    }

    /// What answers at its address?
    pub fn presence<C: ConfigSpace>(&self, cfg: &C) -> Presence {
        // The ids of a virtual function read all ones (PCIe 5.0, 9.3.4.1.1): its class does not.
        let (seen, known) = match self.physical {
            None => (cfg.read32(self.at, register::VENDOR_ID), self.ids),
            Some(_) => {
                let word = cfg.read32(self.at, register::REVISION);
                (word, self.class << 8 | word & 0xff)
            }
        };
        match seen {
            u32::MAX => Presence::Gone,
            seen if seen == known => Presence::Same,
            _ => Presence::Other,
        }
    }

    /// Can it say whether transactions are pending?
    #[must_use]
    pub const fn tells_pending(&self) -> bool {
        self.express.is_some()
            || matches!(
                self.features,
                Some(AdvancedFeatures {
                    transactions_pending: true,
                    ..
                })
            )
    }
}

impl fmt::Display for Device {
    /// `0000:00:03.0 1234:11e8 class 00ff00`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vendor, device) = (self.ids & 0xffff, self.ids >> 16);
        write!(
            f,
            "{} {vendor:04x}:{device:04x} class {:06x}",
            self.at, self.class
        )
    }
}
