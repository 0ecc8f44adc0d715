//! A port's own interrupt: [`program`] sets MSI or MSI-X up with the message that
//! signals the shard. All ports send the same one, all their vectors too: the
//! shard looks at every port.

use hw::capability::{CapabilityList, Msi, Msix};
use hw::header::{Command, register};
use hw::msi::entry;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{Refusal, Rule};

use crate::MAX_ASSIGNMENTS;
use crate::env::{BarMemory, RegionId, VectorBlock};
use crate::interrupts::silence;

/// The number of a port's MSI-X table in [`BarMemory`], for the moment that it takes to fill it.
pub const PORT_TABLE: u16 = MAX_ASSIGNMENTS as u16;

/// Lets the port at `at` send `message`.
///
/// # Errors
/// `NoSuchMechanism`: it has neither MSI nor MSI-X that can be used; `MalformedDevice`: a register does
/// not hold its value; what the environment refuses. Its messages are off then.
pub fn program<E: ConfigSpace + BarMemory>(
    env: &mut E,
    at: Sbdf,
    list: &CapabilityList,
    message: VectorBlock,
) -> Result<(), Refusal> {
    let msi = list.find::<Msi, E>(env, at).ok().flatten();
    let msix = list.find::<Msix, E>(env, at).ok().flatten();
    silence(env, at, msi, msix);
    // A message is a write: the port must be allowed to, and its registers to answer.
    let command = Command::from_bits_retain(env.read16(at, register::COMMAND));
    let wanted = command | Command::BUS_MASTER | Command::MEMORY_SPACE;
    if wanted != command {
        env.write16(at, register::COMMAND, wanted.bits());
    }
    let programmed = match (msi, msix) {
        (Some(msi), _) if fits(&msi, message) => program_msi(env, at, &msi, message),
        (_, Some(msix)) => program_msix(env, at, &msix, message),
        _ => Err(refuse(at, Rule::NoSuchMechanism)),
    };
    if programmed.is_err() {
        silence(env, at, msi, msix);
    }
    programmed
}

fn refuse(at: Sbdf, rule: Rule) -> Refusal {
    Refusal::new(rule, u64::from(at.to_bits()))
}

fn fits(msi: &Msi, message: VectorBlock) -> bool {
    u16::try_from(message.data).is_ok() && (msi.address64 || message.address >> 32 == 0)
}

/// One message for all its vectors (PCIe 5.0, 7.7.1.2).
fn program_msi<C: ConfigSpace>(
    cfg: &mut C,
    at: Sbdf,
    msi: &Msi,
    message: VectorBlock,
) -> Result<(), Refusal> {
    cfg.write32(at, msi.address_register(), message.address as u32);
    if let Some(upper) = msi.upper_address_register() {
        cfg.write32(at, upper, (message.address >> 32) as u32);
    }
    cfg.write16(at, msi.data_register(), message.data as u16);
    if let Some(mask) = msi.mask_register() {
        cfg.write32(at, mask, 0);
    }
    let control = cfg.read16(at, msi.control_register()) & !Msi::MULTIPLE_ENABLE_MASK;
    switch_on(cfg, at, msi.control_register(), control | Msi::ENABLE)
}

/// The same message in every entry of the table's first page.
fn program_msix<E: ConfigSpace + BarMemory>(
    env: &mut E,
    at: Sbdf,
    msix: &Msix,
    message: VectorBlock,
) -> Result<(), Refusal> {
    const PAGE: u64 = 4096;
    let base = bar_address(env, at, msix.table.bar).ok_or(refuse(at, Rule::NoSuchMechanism))?;
    let table = base.saturating_add(u64::from(msix.table.offset));
    let control = env.read16(at, msix.control_register());
    let masked = control | Msix::ENABLE | Msix::FUNCTION_MASK;
    switch_on(env, at, msix.control_register(), masked)?;
    let region = RegionId {
        base: table & !(PAGE - 1),
        bytes: PAGE,
    };
    env.map_table(region, PORT_TABLE, 0, 1)?;
    let start = table % PAGE;
    let room = (PAGE - start) / entry::BYTES as u64;
    for index in 0..room.min(u64::from(msix.entries)) {
        // Inside a page.
        let place = (start + index * entry::BYTES as u64) as u32;
        let mut write = |field: usize, value| {
            env.write_table(PORT_TABLE, place + field as u32, value);
        };
        write(entry::ADDRESS, message.address as u32);
        write(entry::UPPER_ADDRESS, (message.address >> 32) as u32);
        write(entry::DATA, message.data);
        write(entry::CONTROL, 0);
    }
    // Nobody needs the page any more.
    env.revoke_frames(region, PORT_TABLE)?;
    switch_on(
        env,
        at,
        msix.control_register(),
        masked & !Msix::FUNCTION_MASK,
    )
}

/// Where a memory BAR of a port is; `None` if it has no address.
fn bar_address<C: ConfigSpace>(cfg: &C, at: Sbdf, bar: u8) -> Option<u64> {
    // Ports have two.
    let offset = register::BAR0 + 4 * u16::from(bar).min(1);
    let low = cfg.read32(at, offset);
    let high = match (low & 0x7, bar) {
        (0x0, _) => 0,
        (0x4, 0) => cfg.read32(at, offset + 4),
        _ => return None,
    };
    let address = u64::from(high) << 32 | u64::from(low & !0xf);
    (address != 0 && low != u32::MAX).then_some(address)
}

fn switch_on<C: ConfigSpace>(
    cfg: &mut C,
    at: Sbdf,
    register: u16,
    value: u16,
) -> Result<(), Refusal> {
    cfg.write16(at, register, value);
    if cfg.read16(at, register) == value {
        Ok(())
    } else {
        Err(refuse(at, Rule::MalformedDevice))
    }
}
