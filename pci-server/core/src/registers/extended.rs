//! The extended capabilities: what a holder may do to each of their registers.
//!
//! Almost all of them set what others depend on, and are read-only.

use hw::capability::id::extended as id;

use super::{Field, Kind};
use Kind::WriteOneToClear;

/// Advanced Error Reporting (PCIe 5.0, 7.8.4): both status registers. Not masks and severity: they
/// outlive a reset, and the platform reports errors by them.
pub const ERROR_REPORTING: &[Field] = &[
    Field::many(0x04, 2, WriteOneToClear(0xffff)),
    Field::many(0x10, 2, WriteOneToClear(0xffff)),
];

/// The fields of a capability; `None` for an id that no specification gave out, all of which is
/// read-only.
///
/// The policy looks up [`ERROR_REPORTING`] alone: whoever gives another capability fields has to
/// note where it is.
#[must_use]
pub const fn fields(capability: u16) -> Option<&'static [Field]> {
    Some(match capability {
        id::ERROR_REPORTING => ERROR_REPORTING,
        // Isolation itself: who a request may reach, and whether the IOMMU sees it translated.
        id::ACCESS_CONTROL
        | id::ADDRESS_TRANSLATION
        | id::PAGE_REQUEST
        | id::PASID
        | id::ALTERNATIVE_ROUTING_ID
        | 0x0012 => &[],
        // New functions and their addresses: an operation. The shard places BARs.
        id::SR_IOV | 0x0011 | 0x0038 | id::RESIZABLE_BAR | id::VF_RESIZABLE_BAR => &[],
        // What a port does about errors, for everything behind it.
        id::PORT_CONTAINMENT => &[],
        // Their registers may do anything.
        id::VENDOR | id::DESIGNATED_VENDOR => &[],
        // Mailboxes to firmware, keys of a link, doors to other registers.
        0x002a | 0x002c | 0x002e | 0x0030 | 0x0036 => &[],
        // They say and do not set.
        0x0000
        | id::SERIAL_NUMBER
        | 0x0004..=0x0007
        | 0x000a
        | 0x0022
        | 0x0025
        | 0x0028
        | 0x002d
        | 0x003a => &[],
        // The link and what travels on it: virtual channels, power, precision time, equalization,
        // lanes, flits. Its other end is the platform's.
        0x0002
        | 0x0008
        | 0x0009
        | 0x000c
        | 0x0016..=0x001a
        | 0x001c
        | 0x001e..=0x0021
        | 0x0026
        | 0x0027
        | 0x0029
        | 0x002b
        | 0x002f
        | 0x0031..=0x0035
        | 0x0037
        | 0x0039 => &[],
        _ => return None,
    })
}
