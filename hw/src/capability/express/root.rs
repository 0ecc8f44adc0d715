//! Registers of the PCI Express capability that root ports and event collectors
//! have: [`RootRegisters`] (PCIe 5.0, 7.5.3.12 to 7.5.3.14).

use bitflags::bitflags;

bitflags! {
    /// Root Control.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RootControl: u16 {
        /// Correctable errors below raise a system error.
        const CORRECTABLE = 1 << 0;
        /// Non-fatal errors below raise a system error.
        const NON_FATAL = 1 << 1;
        /// Fatal errors below raise a system error.
        const FATAL = 1 << 2;
        /// Interrupts when a function below signals PME.
        const PME_INTERRUPT = 1 << 3;
        /// Software sees that a function is not ready instead of waiting for it.
        const RETRY_VISIBLE = 1 << 4;
        const _ = !0;
    }
}

bitflags! {
    /// Root Capabilities.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RootCapabilities: u16 {
        /// Can show software that a function is not ready.
        const RETRY_VISIBLE = 1 << 0;
        const _ = !0;
    }
}

bitflags! {
    /// Root Status; bits 15:0 requester id.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RootStatus: u32 {
        /// A function signals PME; cleared by writing one.
        const PME = 1 << 16;
        /// Another one waits.
        const PME_PENDING = 1 << 17;
        const _ = !0;
    }
}

impl RootStatus {
    /// Requester id of the function that signals PME.
    #[must_use]
    pub const fn pme_requester(self) -> u16 {
        self.bits() as u16
    }
}

/// Root registers at the time of reading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RootRegisters {
    /// Root Control.
    pub control: RootControl,
    /// Root Capabilities.
    pub capabilities: RootCapabilities,
    /// Root Status.
    pub status: RootStatus,
}
