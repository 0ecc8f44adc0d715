//! The two capability lists of a function: a bounded walk over each, and one
//! file a family for what a capability says.
//!
//! [`CapabilityList::read`] walks both lists once; [`CapabilityList::find`]
//! decodes one family from it. A broken list is an allegation proved false: the
//! walk stops with a [`WalkFault`] and keeps what it had found.
//!
//! To add a family: a file with its type and an implementation of
//! [`Capability`] (or [`ExtendedCapability`]), nothing else.

mod access_control;
mod address_translation;
mod advanced_features;
mod alternative_routing;
mod containment;
mod designated_vendor;
mod enhanced_allocation;
mod error_reporting;
mod express;
pub mod id;
mod list;
mod msi;
mod msix;
mod page_request;
mod pasid;
mod power;
mod resizable;
mod serial_number;
mod sr_iov;
mod subsystem;
mod vital_product;

pub use access_control::{AccessControl, AcsServices};
pub use address_translation::{AddressTranslation, AtsControl};
pub use advanced_features::AdvancedFeatures;
pub use alternative_routing::{AlternativeRouting, AriFlags};
pub use containment::{Containment, DpcCapabilities, DpcControl, DpcStatus};
pub use designated_vendor::DesignatedVendor;
pub use enhanced_allocation::{
    Allocation, AllocationProperty, AllocationTarget, Allocations, EnhancedAllocation,
};
pub use error_reporting::{
    CorrectableErrors, ErrorControl, ErrorReporting, RootErrorCommand, RootErrorStatus, RootErrors,
    UncorrectableErrors,
};
pub use express::{
    Device2Registers, DeviceCapabilities, DeviceCapabilities2, DeviceControl, DeviceControl2,
    DeviceRegisters, DeviceStatus, Express, Link2Registers, LinkCapabilities, LinkCapabilities2,
    LinkControl, LinkControl2, LinkRegisters, LinkStatus, LinkStatus2, PhysicalSlot, PortType,
    PowerLimit, RootCapabilities, RootControl, RootRegisters, RootStatus, SlotCapabilities,
    SlotControl, SlotRegisters, SlotStatus,
};
pub use list::{
    CapabilityList, Entry, ExtendedEntry, ExtendedWalk, MAX_CAPABILITIES,
    MAX_EXTENDED_CAPABILITIES, Walk, WalkFault,
};
pub use msi::{Msi, MsiMessage};
pub use msix::{InBar, Msix, MsixError, PageRange};
pub use page_request::{PageRequest, PriControl, PriStatus};
pub use pasid::{Pasid, PasidFlags};
pub use power::{PowerCapabilities, PowerControl, PowerManagement, PowerState};
pub use resizable::{Resizable, ResizableBars, VfResizableBars};
pub use serial_number::SerialNumber;
pub use sr_iov::{SrIov, SrIovCapabilities, SrIovControl};
pub use subsystem::BridgeSubsystem;
pub use vital_product::VitalProductData;

use thiserror::Error;

use crate::{ConfigSpace, Sbdf};

/// Bytes of the configuration space that conventional capabilities live in.
pub const CONVENTIONAL_BYTES: u16 = 256;
/// Bytes of the configuration space of a PCI Express function.
pub const EXTENDED_BYTES: u16 = 4096;

/// Why a capability that is in the list cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum CapabilityError {
    /// Its registers pass the end of the space that its list lives in.
    #[error("capability {id:#x} at {offset:#x} needs {needed} bytes, which pass the end")]
    BeyondEnd {
        /// Capability id.
        id: u16,
        /// Where it starts.
        offset: u16,
        /// Bytes its registers take.
        needed: u16,
    },
    /// A field has a value that the specification reserves.
    #[error("capability {id:#x} at {offset:#x}: {field} has the reserved value {value:#x}")]
    Reserved {
        /// Capability id.
        id: u16,
        /// Where it starts.
        offset: u16,
        /// The field, as the specification names it.
        field: &'static str,
        /// What it reads.
        value: u32,
    },
}

/// A family of conventional capabilities (list at 34h), decoded from its registers.
pub trait Capability: Sized {
    /// The id that heads such a capability.
    const ID: u8;

    /// Decodes the capability that starts at `offset`.
    ///
    /// # Errors
    /// Its registers pass the end of the space, or say what cannot be.
    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError>;
}

/// A family of extended capabilities (list at 100h), decoded from its registers.
pub trait ExtendedCapability: Sized {
    /// The id that heads such a capability.
    const ID: u16;

    /// Decodes the capability that starts at `offset`.
    ///
    /// # Errors
    /// Its registers pass the end of the space, or say what cannot be.
    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError>;
}

/// Refuses a conventional capability whose `needed` bytes pass the end of its 256.
fn check_extent(id: u8, offset: u8, needed: u16) -> Result<(), CapabilityError> {
    if u16::from(offset) + needed > CONVENTIONAL_BYTES {
        return Err(CapabilityError::BeyondEnd {
            id: u16::from(id),
            offset: u16::from(offset),
            needed,
        });
    }
    Ok(())
}

/// Refuses an extended capability whose `needed` bytes pass the end of configuration space.
fn check_extended_extent(id: u16, offset: u16, needed: u16) -> Result<(), CapabilityError> {
    if u32::from(offset) + u32::from(needed) > u32::from(EXTENDED_BYTES) {
        return Err(CapabilityError::BeyondEnd { id, offset, needed });
    }
    Ok(())
}
