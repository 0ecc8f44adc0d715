//! Messages that go to another core while they are enabled: [`to_core`], where nothing remaps them.
//!
//! Only the address changes, and of it bits 19:12. A message that may be masked is masked meanwhile, so that it is sent
//! whole, to the old core or to the new one (PCIe 5.0, 6.1.4.2); one that may not changes in one write.

use hw::ConfigSpace;
use hw::msi::entry;
use ipc_proto::{Mechanism, Messages, Refusal, Rule};

use super::{MAX_MOVED, Masks, Setup, map_table};
use crate::Device;
use crate::env::BarMemory;

/// Sends messages that are set up to the local APIC that `address` names. They lie in one block, and with MSI are all of
/// it.
///
/// # Errors
/// `NoSuchMechanism`; the environment's refusal to map the table. Nothing is moved then.
pub fn to_core<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &mut Setup,
    masks: &Masks,
    messages: Messages,
    address: u64,
) -> Result<(), Refusal> {
    match setup.mechanism {
        Mechanism::Msi => move_msi(env, device, address)?,
        Mechanism::MsiX => move_entries(env, device, table, masks, messages, address)?,
    }
    remember(setup, messages, address);
    Ok(())
}

fn move_msi<C: ConfigSpace>(cfg: &mut C, device: &Device, address: u64) -> Result<(), Refusal> {
    let msi = device.msi.ok_or(Rule::NoSuchMechanism)?;
    let masks = msi
        .mask_register()
        .map(|register| (register, cfg.read32(device.at, register)));
    if let Some((register, _)) = masks {
        cfg.write32(device.at, register, u32::MAX);
    }
    cfg.write32(device.at, msi.address_register(), address as u32);
    if let Some((register, before)) = masks {
        cfg.write32(device.at, register, before);
    }
    Ok(())
}

fn move_entries<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    masks: &Masks,
    messages: Messages,
    address: u64,
) -> Result<(), Refusal> {
    let msix = device.msix.ok_or(Rule::NoSuchMechanism)?;
    let start = map_table(env, device, table, &msix)?;
    for message in messages.first..messages.first.saturating_add(messages.count) {
        let at = start.saturating_add(u32::from(message) * entry::BYTES as u32);
        env.write_table(table, at + entry::CONTROL as u32, entry::MASKED);
        env.write_table(table, at + entry::ADDRESS as u32, address as u32);
        if !masks.contains(message) {
            env.write_table(table, at + entry::CONTROL as u32, 0);
        }
    }
    Ok(())
}

/// After a reset they go there again.
fn remember(setup: &mut Setup, messages: Messages, address: u64) {
    let apic = |address: u64| (address >> 12) as u8;
    if setup.cores.is_empty() {
        let blocks = setup.blocks.iter();
        let each = blocks.flat_map(|block| (0..block.count).map(|_| apic(block.vectors.address)));
        setup.cores = each.take(MAX_MOVED).collect();
    }
    let skipped = usize::from(messages.first.saturating_sub(setup.first));
    let cores = setup.cores.iter_mut().skip(skipped);
    cores
        .take(messages.count.into())
        .for_each(|core| *core = apic(address));
}

/// Sends messages where they are known to go, after a restart in the middle of a move.
///
/// # Errors
/// As [`to_core`].
pub fn again<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &Setup,
    masks: &Masks,
) -> Result<(), Refusal> {
    match setup.mechanism {
        Mechanism::Msi => {
            let msi = device.msi.ok_or(Rule::NoSuchMechanism)?;
            let block = setup.blocks.first().ok_or(Rule::NoSuchMechanism)?;
            let address = setup.address(0, block.vectors.address);
            env.write32(device.at, msi.address_register(), address as u32);
            if let Some(register) = msi.mask_register() {
                let unused = u32::MAX.checked_shl(setup.messages().into()).unwrap_or(0);
                let masked = (0..setup.messages().min(32))
                    .filter(|message| masks.contains(*message))
                    .fold(unused, |bits, message| bits | 1 << message);
                env.write32(device.at, register, masked);
            }
            Ok(())
        }
        Mechanism::MsiX => {
            let blocks = setup.blocks.iter();
            let each = blocks.flat_map(|block| (0..block.count).map(|_| block.vectors.address));
            for (n, (message, block)) in (setup.first..).zip(each).enumerate() {
                let messages = Messages {
                    first: message,
                    count: 1,
                };
                let address = setup.address(n, block);
                move_entries(env, device, table, masks, messages, address)?;
            }
            Ok(())
        }
    }
}
