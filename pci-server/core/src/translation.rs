//! [`TranslationCache`]: a device's own cache of translated addresses (ATS). It is on only while the
//! device is attached to a context whose IOMMU promised to ask the cache back.

use hw::capability::{AddressTranslation, AtsControl};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::Switch;

/// The cache of a device that may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TranslationCache {
    control: u16,
    /// Invalidations that it takes at a time, 1 to 32.
    pub queue: u8,
}

impl TranslationCache {
    /// From the capability.
    #[must_use]
    pub const fn new(capability: &AddressTranslation) -> Self {
        Self {
            control: capability.control_register(),
            queue: capability.queue_depth,
        }
    }

    /// Lets the device ask for translations (of any 4 KiB page), or stops it. What it has cached it forgets only
    /// when it is asked to, or reset.
    pub fn switch<C: ConfigSpace>(self, cfg: &mut C, at: Sbdf, switch: Switch) {
        let value = match switch {
            Switch::On => AtsControl::enabled(0).bits(),
            Switch::Off => 0,
        };
        cfg.write16(at, self.control, value);
    }
}
