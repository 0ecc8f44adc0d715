//! [`Device`]: what the shard knows about a function, decoded once at boot and
//! trusted from then on; [`Withheld`] and [`Malformed`]: why nobody gets one;
//! [`Region`]: its BARs.

mod region;
mod withheld;

pub use region::{LARGE_PAGE, Region, SecretPages};
pub use withheld::{Malformed, Presence, Withheld};

use core::fmt;

use heapless::Vec;
use hw::capability::{
    AdvancedFeatures, Entry, Express, MAX_CAPABILITIES, Msi, Msix, PowerManagement,
};
use hw::header::{Header, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{DeviceState, Refusal, ResetKind, Rule};

use crate::bridge::Forwarding;
use crate::groups::Node;
use crate::space::{Range, ShardMemory};
use crate::translation::TranslationCache;

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

/// What a restart knows of a function that it has not examined, since it is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recall {
    /// Everything.
    Done,
    /// It does not answer: only what was noted.
    Unread,
    /// It is not what was noted.
    Wrong,
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
    /// Size of the expansion ROM: 2^bits bytes; 0 where there is none, or where it was not asked for. The ROM is kept
    /// off, never placed and never given out.
    pub rom_bits: u8,
    /// Pages that are never mapped into a client.
    pub secret: [SecretPages; 2],
    /// Its conventional capabilities, for the register policy.
    pub capabilities: Vec<Entry, MAX_CAPABILITIES, u8>,
    /// Offset of Advanced Error Reporting, 0 for none.
    pub error_reporting: u16,
    /// Registers that are not read from the device, one bit for each four bytes of the first 256:
    /// what is not shown, and BARs that say their size ([`crate::config::sizing`]).
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
    /// Is it known as it was before a restart?
    pub recall: Recall,
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
            rom_bits: 0,
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
            recall: Recall::Done,
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
