//! A single message that is switched off because it comes too often: masked where it can be, else all messages of the device with
//! it ([`switch_off`]).

use hw::ConfigSpace;
use ipc_proto::{Mechanism, Refusal, Switch};

use super::{Bits, Masks, Setup, mask, switch};
use crate::Device;
use crate::env::BarMemory;

/// Can single messages be masked?
pub fn has_masks(device: &Device, mechanism: Mechanism) -> bool {
    match mechanism {
        Mechanism::Msi => device.msi.is_some_and(|msi| msi.mask_register().is_some()),
        Mechanism::MsiX => true,
    }
}

/// Switches a message off.
///
/// # Errors
/// As [`mask`] and [`switch`]. It is noted as off all the same, for the next reset.
pub fn switch_off<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &mut Setup,
    masks: &mut Masks,
    message: u16,
) -> Result<(), Refusal> {
    note(device, setup, masks, message);
    if has_masks(device, setup.mechanism) {
        mask(env, device, table, setup, masks, (message, 1), Switch::On)
    } else {
        switch(env, device, setup.mechanism, setup.bits)
    }
}

/// Notes a message as off, as what comes back after a reset.
pub fn note(device: &Device, setup: &mut Setup, masks: &mut Masks, message: u16) {
    if has_masks(device, setup.mechanism) {
        masks.set(message, Switch::On);
    } else {
        setup.bits = Bits {
            enable: Switch::Off,
            ..setup.bits
        };
    }
}
