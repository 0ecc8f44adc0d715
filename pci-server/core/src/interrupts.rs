//! MSI and MSI-X of a held device: [`enable`], [`mask`], [`restore`] after a reset, and
//! [`silence`], which needs no more than the capability registers.
//!
//! Only this module and [`moving`] write message addresses. Sequences: PCIe 5.0, 6.1.4.

pub mod moving;
pub mod reading;
pub mod silencing;

use heapless::Vec;
use hw::capability::{Msi, Msix};
use hw::msi::entry;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{Mechanism, Refusal, Rule, Switch, Width};

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
    /// Where each message goes that does not go where its block's address says, by number among the messages in use:
    /// none until one is moved, then all.
    pub cores: Vec<u8, MAX_MOVED>,
    /// What its holder has written to the bits of message control.
    pub bits: Bits,
}

/// Most messages of a device of which some can be moved: there are no more vectors.
pub const MAX_MOVED: usize = 128;

/// Message control of a device whose messages are set up, as far as it is the holder's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bits {
    /// Messages are sent.
    pub enable: Switch,
    /// All are masked (MSI-X).
    pub mask: Switch,
}

impl Bits {
    /// As messages are set up.
    pub const SET_UP: Self = Self {
        enable: Switch::On,
        mask: Switch::Off,
    };
}

/// Sets the bits of message control that are the holder's.
///
/// # Errors
/// `NoSuchMechanism`, `NoSuchDevice`, `MalformedDevice`.
pub fn switch<C: ConfigSpace>(
    cfg: &mut C,
    device: &Device,
    mechanism: Mechanism,
    bits: Bits,
) -> Result<(), Refusal> {
    let none = || device.refusal(Rule::NoSuchMechanism);
    let (register, enable, mask) = match mechanism {
        Mechanism::Msi => {
            let msi = device.msi.ok_or_else(none)?;
            (msi.control_register(), Msi::ENABLE, 0)
        }
        Mechanism::MsiX => {
            let msix = device.msix.ok_or_else(none)?;
            (msix.control_register(), Msix::ENABLE, Msix::FUNCTION_MASK)
        }
    };
    let now = cfg.read16(device.at, register);
    if now == u16::MAX {
        return Err(gone(device));
    }
    let chosen = |bit: u16, switch: Switch| if switch == Switch::On { bit } else { 0 };
    let value = now & !(enable | mask) | chosen(enable, bits.enable) | chosen(mask, bits.mask);
    confirm(cfg, device, register, value)
}

impl Setup {
    /// How many messages.
    #[must_use]
    pub fn messages(&self) -> u16 {
        self.blocks
            .iter()
            .fold(0, |sum, block| sum.saturating_add(block.count))
    }

    /// The address of the `n`-th message in use, whose block has this one.
    fn address(&self, n: usize, block: u64) -> u64 {
        match self.cores.get(n) {
            Some(core) => moved(block, *core),
            None => block,
        }
    }
}

/// A message address with another local APIC's id (Intel SDM volume 3, 11.11.1: bits 19:12).
const fn moved(address: u64, apic: u8) -> u64 {
    address & !(0xff << 12) | (apic as u64) << 12
}

/// Messages that the holder has masked: one bit each, by number of the message.
#[derive(Debug)]
pub struct Masks {
    words: [u64; MAX_MESSAGES / 64],
}

/// Messages that a device can have: 2,048 with MSI-X.
const MAX_MESSAGES: usize = 2048;

impl Masks {
    /// Nothing is masked.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            words: [0; MAX_MESSAGES / 64],
        }
    }

    pub(crate) fn set(&mut self, message: u16, switch: Switch) {
        let bit = 1 << (message % 64);
        if let Some(word) = self.words.get_mut(usize::from(message / 64)) {
            match switch {
                Switch::On => *word |= bit,
                Switch::Off => *word &= !bit,
            }
        }
    }

    pub(crate) fn contains(&self, message: u16) -> bool {
        self.words
            .get(usize::from(message / 64))
            .is_some_and(|word| word >> (message % 64) & 1 != 0)
    }

    /// Nothing is masked any more.
    pub const fn clear(&mut self) {
        *self = Self::new();
    }
}

impl Default for Masks {
    fn default() -> Self {
        Self::new()
    }
}

/// Masks or unmasks messages of a device whose messages are enabled. One that is raised while it is masked is
/// pending in the device, and sent when it is unmasked (PCIe 5.0, 6.1.4.5).
///
/// # Errors
/// `MessageNotEnabled` with the first one that is not; `NoSuchMechanism` for MSI without masks; `NoSuchDevice`; the
/// environment's refusal to map the table.
pub fn mask<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &Setup,
    masks: &mut Masks,
    (first, count): (u16, u16),
    switch: Switch,
) -> Result<(), Refusal> {
    let enabled = u32::from(setup.first)..u32::from(setup.first) + u32::from(setup.messages());
    let wanted = u32::from(first)..u32::from(first) + u32::from(count);
    if let Some(message) = wanted.clone().find(|message| !enabled.contains(message)) {
        return Err(Refusal::new(Rule::MessageNotEnabled, message.into()));
    }
    // Below 2^16, as what is enabled.
    let wanted = wanted.map(|message| message as u16);
    match setup.mechanism {
        Mechanism::Msi => {
            let register = device
                .msi
                .and_then(|msi| msi.mask_register())
                .ok_or_else(|| device.refusal(Rule::NoSuchMechanism))?;
            let before = env.read32(device.at, register);
            let bits = wanted.clone().fold(0u32, |bits, message| {
                bits | 1u32.checked_shl(message.into()).unwrap_or(0)
            });
            let value = match switch {
                Switch::On => before | bits,
                Switch::Off => before & !bits,
            };
            env.write32(device.at, register, value);
        }
        Mechanism::MsiX => {
            let msix = device.msix.ok_or(Rule::NoSuchMechanism)?;
            let start = map_table(env, device, table, &msix)?;
            let value = match switch {
                Switch::On => entry::MASKED,
                Switch::Off => 0,
            };
            for message in wanted.clone() {
                let offset = u32::from(message) * entry::BYTES as u32 + entry::CONTROL as u32;
                env.write_table(table, start.saturating_add(offset), value);
            }
        }
    }
    wanted.for_each(|message| masks.set(message, switch));
    Ok(())
}

/// Enables messages again after a reset, those that the holder has masked as masked.
///
/// # Errors
/// As [`enable`].
pub fn restore<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    setup: &Setup,
    masks: &mut Masks,
) -> Result<(), Refusal> {
    enable(env, device, table, setup)?;
    let end = setup.first.saturating_add(setup.messages());
    for message in setup.first..end {
        if masks.contains(message) {
            mask(env, device, table, setup, masks, (message, 1), Switch::On)?;
        }
    }
    if setup.bits != Bits::SET_UP {
        switch(env, device, setup.mechanism, setup.bits)?;
    }
    Ok(())
}

/// Pending bits of up to 64 messages of a device.
///
/// # Errors
/// `BadMessageCount` with the number of messages it has; `NoSuchMechanism` where they have no pending bits; the
/// environment's refusal to map them.
pub fn pending<E: ConfigSpace + BarMemory>(
    env: &mut E,
    device: &Device,
    table: u16,
    mechanism: Mechanism,
    (first, count): (u16, u16),
) -> Result<u64, Refusal> {
    let most = match mechanism {
        Mechanism::Msi => device.msi.map(|msi| u16::from(msi.vectors)),
        Mechanism::MsiX => device.msix.map(|msix| msix.entries),
    };
    let most = most.ok_or_else(|| device.refusal(Rule::NoSuchMechanism))?;
    if count > 64 || u32::from(first) + u32::from(count) > u32::from(most) {
        return Err(Refusal::new(Rule::BadMessageCount, most.into()));
    }
    let mut bits = 0;
    match (mechanism, device.msi, device.msix) {
        (Mechanism::Msi, Some(msi), _) => {
            let register = msi
                .pending_register()
                .ok_or_else(|| device.refusal(Rule::NoSuchMechanism))?;
            let word = u64::from(env.read32(device.at, register));
            bits = word.checked_shr(first.into()).unwrap_or(0);
        }
        (Mechanism::MsiX, _, Some(msix)) => {
            let region = device.bars.get(usize::from(msix.pending.bar));
            let region = region.ok_or(Rule::NoSuchMechanism)?;
            let memory = region.memory().ok_or(Rule::NoSuchMechanism)?;
            let start = u64::from(msix.pending.offset) + region.base % 4096;
            let mut mapped = None;
            // 64 bits that begin anywhere touch three words.
            for word in first / 32..=(first + count.max(1) - 1) / 32 {
                let place = start.saturating_add(u64::from(word) * 4);
                let page = u32::try_from(place / 4096).map_err(|_| Rule::NoSuchMechanism)?;
                if mapped != Some(page) {
                    env.map_page(memory, table, page)?;
                    mapped = Some(page);
                }
                let value = env.read_page(table, (place % 4096) as u16, Width::Dword);
                let shift = i32::from(word) * 32 - i32::from(first);
                let value = u128::from(value);
                bits |= if shift < 0 {
                    (value >> -shift) as u64
                } else {
                    (value << shift) as u64
                };
            }
        }
        _ => {}
    }
    let within = 1u64.checked_shl(count.into()).unwrap_or(0).wrapping_sub(1);
    Ok(bits & within)
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
        // What the device sent before comes before this answer (PCIe 5.0, 2.4.1).
        let _ = cfg.read16(at, register);
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
        (Mechanism::Msi, Some(block)) => {
            let mut block = *block;
            block.vectors.address = setup.address(0, block.vectors.address);
            enable_msi(env, device, &block)
        }
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
    for (n, (index, (address, data))) in (setup.first..msix.entries).zip(messages).enumerate() {
        let at = entry_at(index);
        let address = setup.address(n, address);
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
