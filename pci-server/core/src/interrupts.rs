//! MSI and MSI-X of a held device: [`enable`], [`restore`] after a reset, and
//! [`silence`], which needs no more than the capability registers.
//!
//! Only this module writes message addresses. Sequences: PCIe 5.0, 6.1.4.

use heapless::Vec;
use hw::capability::{Msi, Msix};
use hw::msi::entry;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{Mechanism, Refusal, Rule};

use crate::Device;
use crate::env::{BarMemory, VectorBlock};

/// Most blocks of vectors of a device: any number of table entries in powers of two.
pub const MAX_BLOCKS: usize = 12;

/// Vectors taken together, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Messages of them.
    pub vectors: VectorBlock,
    /// How many, a power of two.
    pub count: u16,
}

/// Messages of a device that are set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// With which mechanism.
    pub mechanism: Mechanism,
    /// First message in use: 0 with MSI, a table entry with MSI-X.
    pub first: u16,
    /// Vectors of the messages from there on; with MSI one block.
    pub blocks: Vec<Block, MAX_BLOCKS>,
}

impl Setup {
    /// How many messages.
    #[must_use]
    pub fn messages(&self) -> u16 {
        self.blocks
            .iter()
            .fold(0, |sum, block| sum.saturating_add(block.count))
    }
}

/// The device does not answer any more.
fn gone(device: &Device) -> Refusal {
    device.refusal(Rule::NoSuchDevice)
}

/// Turns MSI and MSI-X of a function off.
pub fn silence<C: ConfigSpace>(cfg: &mut C, at: Sbdf, msi: Option<Msi>, msix: Option<Msix>) {
    if let Some(msi) = msi {
        clear16(
            cfg,
            at,
            msi.control_register(),
            Msi::ENABLE | Msi::MULTIPLE_ENABLE_MASK,
        );
    }
    if let Some(msix) = msix {
        clear16(
            cfg,
            at,
            msix.control_register(),
            Msix::ENABLE | Msix::FUNCTION_MASK,
        );
    }
}

fn clear16<C: ConfigSpace>(cfg: &mut C, at: Sbdf, register: u16, bits: u16) {
    let value = cfg.read16(at, register);
    if value & bits != 0 && value != u16::MAX {
        cfg.write16(at, register, value & !bits);
    }
}

/// Programs messages and enables them. After an error nothing is enabled.
///
/// # Errors
/// `NoSuchMechanism`; `BadReply` when a message is none that the device can send; `NoSuchDevice`
/// when it does not answer; the environment's refusal to map the table.
pub fn enable<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &Setup,
) -> Result<(), Refusal> {
    let enabled = match (setup.mechanism, setup.blocks.first()) {
        (Mechanism::Msi, Some(block)) => enable_msi(env, device, block),
        (Mechanism::MsiX, Some(_)) => enable_msix(env, device, table, setup),
        (_, None) => Err(Rule::BadMessageCount.into()),
    };
    if enabled.is_err() {
        silence(env, device.at, device.msi, device.msix);
    }
    enabled
}

fn enable_msi<C: ConfigSpace>(cfg: &mut C, device: &Device, block: &Block) -> Result<(), Refusal> {
    let at = device.at;
    let msi = device.msi.ok_or(Rule::NoSuchMechanism)?;
    let VectorBlock { address, data } = block.vectors;
    // MSI puts the message's number into the low bits of 16 bits of data.
    let fits = u16::try_from(data).is_ok_and(|data| data & block.count.wrapping_sub(1) == 0);
    if !fits || (!msi.address64 && address >> 32 != 0) {
        return Err(Refusal::new(Rule::BadReply, address));
    }
    let enable = u8::try_from(block.count)
        .ok()
        .and_then(|count| msi.multiple_enable(count))
        .ok_or(Refusal::new(Rule::BadMessageCount, u64::from(msi.vectors)))?;
    let control = cfg.read16(at, msi.control_register());
    if control == u16::MAX {
        return Err(gone(device));
    }
    let control = control & !(Msi::ENABLE | Msi::MULTIPLE_ENABLE_MASK);
    cfg.write16(at, msi.control_register(), control);
    cfg.write32(at, msi.address_register(), address as u32);
    if let Some(upper) = msi.upper_address_register() {
        cfg.write32(at, upper, (address >> 32) as u32);
    }
    cfg.write16(at, msi.data_register(), data as u16);
    if let Some(mask) = msi.mask_register() {
        cfg.write32(
            at,
            mask,
            u32::MAX.checked_shl(u32::from(block.count)).unwrap_or(0),
        );
    }
    confirm(
        cfg,
        device,
        msi.control_register(),
        control | enable | Msi::ENABLE,
    )
}

fn enable_msix<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &Setup,
) -> Result<(), Refusal> {
    let at = device.at;
    let msix = device.msix.ok_or(Rule::NoSuchMechanism)?;
    let start = map_table(env, device, table, &msix)?;
    let control = env.read16(at, msix.control_register());
    if control == u16::MAX {
        return Err(gone(device));
    }
    // Enabled, so that the table can be written, but nothing is sent.
    let masked = control | Msix::ENABLE | Msix::FUNCTION_MASK;
    confirm(env, device, msix.control_register(), masked)?;
    // A table has at most 2,048 entries of 16 bytes.
    let entry_at = |index: u16| start.saturating_add(u32::from(index) * entry::BYTES as u32);
    for index in 0..msix.entries {
        env.write_table(
            table,
            entry_at(index) + entry::CONTROL as u32,
            entry::MASKED,
        );
    }
    let messages = setup.blocks.iter().flat_map(|block| {
        (0..block.count).map(move |n| {
            let VectorBlock { address, data } = block.vectors;
            (address, data.wrapping_add(u32::from(n)))
        })
    });
    for (index, (address, data)) in (setup.first..msix.entries).zip(messages) {
        let at = entry_at(index);
        env.write_table(table, at + entry::ADDRESS as u32, address as u32);
        env.write_table(
            table,
            at + entry::UPPER_ADDRESS as u32,
            (address >> 32) as u32,
        );
        env.write_table(table, at + entry::DATA as u32, data);
        env.write_table(table, at + entry::CONTROL as u32, 0);
    }
    confirm(
        env,
        device,
        msix.control_register(),
        masked & !Msix::FUNCTION_MASK,
    )
}

/// Maps the MSI-X table; gives the table's offset in what is mapped.
fn map_table<E: BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    msix: &Msix,
) -> Result<u32, Refusal> {
    let bar = usize::from(msix.table.bar);
    let region = device.bars.get(bar).ok_or(Rule::NoSuchMechanism)?;
    let memory = region.memory().ok_or(Rule::NoSuchMechanism)?;
    // A BAR below 4 KiB starts somewhere in its page.
    let offset = u64::from(msix.table.offset) + region.base % 4096;
    let end = offset + msix.table_bytes();
    let first = offset / 4096;
    let pages = end.div_ceil(4096) - first;
    // Offsets are below 2^32 and a table has at most 32 KiB.
    env.map_table(memory, table, first as u32, pages as u16)?;
    Ok((offset % 4096) as u32)
}

/// Writes a control register and sees that it holds.
fn confirm<C: ConfigSpace>(
    cfg: &mut C,
    device: &Device,
    register: u16,
    value: u16,
) -> Result<(), Refusal> {
    cfg.write16(device.at, register, value);
    match cfg.read16(device.at, register) {
        u16::MAX => Err(gone(device)),
        now if now == value => Ok(()),
        _ => Err(device.refusal(Rule::MalformedDevice)),
    }
}
