//! A message as the device's registers have it ([`message`]): for a dump, and to compare with what was programmed.

use hw::ConfigSpace;
use hw::capability::{Msi, Msix};
use hw::msi::entry;
use ipc_proto::{Mechanism, Refusal, Rule};

use super::{Setup, map_table, pending};
use crate::Device;
use crate::env::{BarMemory, VectorBlock};

/// What a device would send, and whether.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Programmed {
    /// Address and data.
    pub message: VectorBlock,
    /// Something keeps it from being sent.
    pub masked: bool,
    /// It waits to be sent.
    pub pending: bool,
}

/// Reads a message that is set up.
///
/// # Errors
/// `MessageNotEnabled`; `NoSuchMechanism`; the environment's refusal to map table or pending bits.
pub fn message<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &Setup,
    number: u16,
) -> Result<Programmed, Refusal> {
    let enabled = u32::from(setup.first)..u32::from(setup.first) + u32::from(setup.messages());
    if !enabled.contains(&u32::from(number)) {
        return Err(Refusal::new(Rule::MessageNotEnabled, number.into()));
    }
    let at = device.at;
    let (message, masked) = match setup.mechanism {
        Mechanism::Msi => {
            let msi = device.msi.ok_or(Rule::NoSuchMechanism)?;
            let upper = msi.upper_address_register();
            let upper = upper.map_or(0, |register| env.read32(at, register));
            let message = VectorBlock {
                address: u64::from(env.read32(at, msi.address_register())) | u64::from(upper) << 32,
                data: u32::from(env.read16(at, msi.data_register())).wrapping_add(number.into()),
            };
            let masks = msi.mask_register();
            let masks = masks.map_or(0, |register| env.read32(at, register));
            let off = env.read16(at, msi.control_register()) & Msi::ENABLE == 0;
            let masked = masks.checked_shr(number.into()).unwrap_or(0) & 1 != 0;
            (message, off || masked)
        }
        Mechanism::MsiX => {
            let msix = device.msix.ok_or(Rule::NoSuchMechanism)?;
            let start = map_table(env, device, table, &msix)?;
            let place = start.saturating_add(u32::from(number) * entry::BYTES as u32);
            let field = |offset: usize| env.read_table(table, place.saturating_add(offset as u32));
            let upper = field(entry::UPPER_ADDRESS);
            let message = VectorBlock {
                address: u64::from(field(entry::ADDRESS)) | u64::from(upper) << 32,
                data: field(entry::DATA),
            };
            let masked = field(entry::CONTROL) & entry::MASKED != 0;
            let control = env.read16(at, msix.control_register());
            let off = control & Msix::ENABLE == 0 || control & Msix::FUNCTION_MASK != 0;
            (message, off || masked)
        }
    };
    let pending = match pending(env, device, table, setup.mechanism, (number, 1)) {
        Ok(bits) => bits != 0,
        Err(refusal) if refusal.rule == Rule::NoSuchMechanism => false,
        Err(refusal) => return Err(refusal),
    };
    Ok(Programmed {
        message,
        masked,
        pending,
    })
}
