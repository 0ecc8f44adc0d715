//! The header and the conventional capabilities: what a holder may do to each
//! of their registers.
//!
//! [`fields`] knows every id of `hw::capability::id`; an empty table says that all
//! of a capability is read-only, and its comment why.

use hw::capability::id;

use super::{Emulation, Field, Kind, Trap};
use Kind::{Emulated, Hidden, Trapped, Writable, WriteOneToClear};

/// The header of a function that is no bridge (PCIe 5.0, 7.5.1.1 and 7.5.1.2).
pub const HEADER: &[Field] = &[
    // Command: parity error response. Not SERR# enable, with which an untrusted driver could
    // raise a system error; not INTx disable, since nobody serves the line.
    Field::new(0x04, Writable(1 << 6)),
    // Bus mastering is the operation. Decoding stays as it is: the shard itself writes the
    // table of MSI-X through it, and IO ports are nobody's.
    Field::new(0x04, Trapped(0b111, Trap::Command)),
    // Status: the error bits.
    Field::new(0x06, WriteOneToClear(0xf900)),
    // BARs. The expansion ROM is read-only.
    Field::many(0x10, 12, Emulated(Emulation::Bar)),
];

/// Power management (PCIe 5.0, 7.5.2): PMCSR.
pub const POWER_MANAGEMENT: &[Field] = &[
    Field::new(0x04, Trapped(0b11, Trap::Power)),
    // PME status. Not PME enable: nobody serves the event.
    Field::new(0x04, WriteOneToClear(1 << 15)),
];

/// PCI Express (PCIe 5.0, 7.5.3).
pub const EXPRESS: &[Field] = &[
    // Device Control: relaxed ordering, no snoop, the largest read request. Not the payload
    // size, which must fit the path; nor error reporting, whose messages go to a port that
    // others share and could raise a system error.
    Field::new(0x08, Writable(1 << 4 | 1 << 11 | 7 << 12)),
    Field::new(0x08, Trapped(1 << 15, Trap::Reset)),
    // Device Status: errors detected.
    Field::new(0x0a, WriteOneToClear(0x000f)),
    // Link, slot and root registers and the second set of them are read-only: a link has
    // another end, which is the platform's.
];

/// Message control of MSI, without masks (PCIe 5.0, 7.7.1). The message itself is written by the
/// shard alone, and may be seen: it is of no use to anybody else.
const MSI: &[Field] = &[MSI_CONTROL];
/// With masks, and addresses of 32 bits.
const MSI_MASKS: &[Field] = &[MSI_CONTROL, Field::many(0x0c, 2, MASKS)];
/// With masks, and addresses of 64 bits.
const MSI_WIDE_MASKS: &[Field] = &[MSI_CONTROL, Field::many(0x10, 2, MASKS)];

// The enable bit; the number of messages, which is refused.
const MSI_CONTROL: Field = Field::new(0x02, Trapped(0x71, Trap::Msi));
const MASKS: Kind = Trapped(0xffff, Trap::MsiMasks);

/// MSI-X (PCIe 5.0, 7.7.2): enable and function mask.
const MSIX: &[Field] = &[Field::new(0x02, Trapped(0xc000, Trap::MsiX))];

/// Advanced Features (PCI ECN 2006): the bit that starts a reset.
const ADVANCED_FEATURES: &[Field] = &[Field::new(0x04, Trapped(1, Trap::Reset))];

/// Virtio's configuration access, a vendor specific capability (Virtio 1.2, 4.1.4.9): a read of its
/// data window reads a BAR.
pub const VIRTIO_ACCESS: &[Field] = &[Field::many(0x10, 2, Hidden)];

/// The fields of MSI in one of its shapes.
#[must_use]
pub const fn msi(address64: bool, maskable: bool) -> &'static [Field] {
    match (address64, maskable) {
        (_, false) => MSI,
        (false, true) => MSI_MASKS,
        (true, true) => MSI_WIDE_MASKS,
    }
}

/// The fields of a capability; `None` for an id that no specification gave out, all of which is
/// read-only.
#[must_use]
pub const fn fields(capability: u8) -> Option<&'static [Field]> {
    Some(match capability {
        id::POWER_MANAGEMENT => POWER_MANAGEMENT,
        id::EXPRESS => EXPRESS,
        // What every shape has; see `msi`.
        id::MSI => MSI,
        id::MSIX => MSIX,
        id::ADVANCED_FEATURES => ADVANCED_FEATURES,
        // It can be written for good: the next holder would find it changed. A read needs a
        // write of the same register.
        id::VITAL_PRODUCT_DATA => &[],
        // Its registers may do anything. Virtio's reach into BARs, among them the table of MSI-X.
        id::VENDOR => &[],
        // How much a function may have under way on a bus that it shares.
        id::PCI_X => &[],
        // They say and do not set.
        0x00 | id::BRIDGE_SUBSYSTEM | id::ENHANCED_ALLOCATION => &[],
        // A port to debug the host with, and an index into registers behind it (SATA).
        0x0a | 0x12 => &[],
        // Of bridges and slots: AGP, slot numbers, hot swap, HyperTransport, resource control,
        // hot-plug, AGP 8x, flattening portal bridge. The platform's.
        0x02 | 0x04 | 0x06 | 0x08 | 0x0b | 0x0c | 0x0e | 0x15 => &[],
        // An IOMMU (AMD's is one).
        0x0f => &[],
        _ => return None,
    })
}
