//! Which registers of configuration space a holder may write: one table for
//! the header and one for each capability. Whatever no table names is read-only.
//!
//! A row is 16 bits wide, the unit in which a register can be written without
//! touching its neighbour (Command and Status, for one). Where capabilities
//! overlap, as only a malformed device has them, what each of them forbids is
//! forbidden.

use hw::capability::{Entry, id};

use crate::Device;

/// What may be done to 16 bits of configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Bits that may be written.
    pub write: u16,
    /// Bits that are cleared by writing ones, and may be.
    pub clear: u16,
    /// Bits with an operation of their own: a write that would change one is refused.
    pub trapped: u16,
}

impl Policy {
    /// Nothing may be written.
    pub const READ_ONLY: Self = Self {
        write: 0,
        clear: 0,
        trapped: 0,
    };

    /// Can a write have any effect?
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        self.write | self.clear == 0
    }

    /// Only what both allow.
    #[must_use]
    const fn and(self, other: Self) -> Self {
        Self {
            write: self.write & other.write,
            clear: self.clear & other.clear,
            trapped: self.trapped | other.trapped,
        }
    }
}

/// A row: the policy of the 16 bits at an offset from the structure's start.
struct Row {
    offset: u16,
    policy: Policy,
}

const fn row(offset: u16, write: u16, clear: u16, trapped: u16) -> Row {
    Row {
        offset,
        policy: Policy {
            write,
            clear,
            trapped,
        },
    }
}

/// The header (PCIe 5.0, 7.5.1.1).
const HEADER: &[Row] = &[
    // Command: parity error response. Not SERR# enable, with which an untrusted driver could
    // raise a system error; not INTx disable, since nobody serves the line. The decoding bits
    // and bus mastering have operations of their own.
    row(0x04, 1 << 6, 0, 0b111),
    // Status: the error bits.
    row(0x06, 0, 0xf900, 0),
];

/// PMCSR (PCIe 5.0, 7.5.2.2): PME status. The power state is trapped: D3hot to D0 is a reset.
const POWER_MANAGEMENT: &[Row] = &[row(0x04, 0, 1 << 15, 0b11)];

/// PCI Express (PCIe 5.0, 7.5.3).
const EXPRESS: &[Row] = &[
    // Device Control: relaxed ordering, no snoop. Not the payload sizes, which must fit the
    // path, nor error reporting, which could raise a system error. Bit 15 starts a reset.
    row(0x08, 1 << 4 | 1 << 11, 0, 1 << 15),
    // Device Status: errors detected.
    row(0x0a, 0, 0x000f, 0),
];

/// Advanced Error Reporting (PCIe 5.0, 7.8.4): both status registers.
const ERROR_REPORTING: &[Row] = &[
    row(0x04, 0, 0xffff, 0),
    row(0x06, 0, 0xffff, 0),
    row(0x10, 0, 0xffff, 0),
    row(0x12, 0, 0xffff, 0),
];

/// The rows of a conventional capability. MSI and MSI-X have none: interrupts are set up by
/// operations. Vendor specific ones have none: virtio's reaches into BARs, among them the
/// MSI-X table (Virtio 1.2, 4.1.4.9). Vital product data has none: it can be written for good.
const fn rows(capability: u8) -> &'static [Row] {
    match capability {
        id::POWER_MANAGEMENT => POWER_MANAGEMENT,
        id::EXPRESS => EXPRESS,
        _ => &[],
    }
}

/// Bytes of a conventional capability, where they are known: inside them nothing else may
/// be allowed by another capability's table.
fn extent(device: &Device, entry: Entry) -> u16 {
    match entry.id {
        id::POWER_MANAGEMENT => 8,
        id::MSI => device.msi.map_or(24, |msi| msi.bytes()),
        id::VENDOR => 20,
        // Version 1 ends after what an endpoint has (7.5.3.1).
        id::EXPRESS if device.express.is_some_and(|express| express.version < 2) => 20,
        id::EXPRESS => 60,
        id::MSIX => 12,
        id::ADVANCED_FEATURES => 6,
        _ => 4,
    }
}

/// The policy of the 16 bits at `offset` (even) of the device's configuration space.
#[must_use]
pub fn policy(device: &Device, offset: u16) -> Policy {
    if offset < 0x40 {
        return find(HEADER, offset);
    }
    if offset >= 0x100 {
        return match device.error_reporting {
            0 => Policy::READ_ONLY,
            start => offset
                .checked_sub(start)
                .map_or(Policy::READ_ONLY, |offset| find(ERROR_REPORTING, offset)),
        };
    }
    device
        .capabilities
        .iter()
        .filter_map(|&entry| {
            let within = offset.checked_sub(u16::from(entry.offset))?;
            (within < extent(device, entry)).then(|| find(rows(entry.id), within))
        })
        .reduce(Policy::and)
        .unwrap_or(Policy::READ_ONLY)
}

fn find(rows: &[Row], offset: u16) -> Policy {
    rows.iter()
        .find(|row| row.offset == offset)
        .map_or(Policy::READ_ONLY, |row| row.policy)
}

/// Bytes from the start of virtio's configuration access capability to its data window, where
/// a read acts on a BAR (Virtio 1.2, 4.1.4.9).
const VIRTIO_WINDOW: u8 = 16;

/// The bit of [`Device::hidden`] for a virtio configuration access capability at `offset`.
#[must_use]
pub const fn virtio_window(offset: u8) -> u64 {
    match offset.checked_add(VIRTIO_WINDOW) {
        Some(window) => 1 << (window / 4),
        None => 0,
    }
}
