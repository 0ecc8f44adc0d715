//! Messages that are set up, masks, what a reset brings back: what belongs to a hold beside its
//! [`State`](super::State).
//!
//! Messages are taken in powers of two, the largest first: their number says how many each block has.

use heapless::Vec;
use ipc_proto::{Mechanism, Switch};
use ledger::Words;

use super::Word;
use crate::env::VectorBlock;
use crate::interrupts::{Bits, Block, MAX_BLOCKS, MAX_MOVED, Masks, Setup};
use crate::reset::Kept;

/// Most messages together: 2^this ([`crate::shard`] takes them so).
pub const MOST_TOGETHER: u32 = 5;

/// How many messages come in one block when `left` are to be had; `None` for none.
#[must_use]
pub const fn block_of(left: u16) -> Option<u16> {
    match left.checked_ilog2() {
        Some(bit) if bit < MOST_TOGETHER => Some(1 << bit),
        Some(_) => Some(1 << MOST_TOGETHER),
        None => None,
    }
}

const MSIX: u64 = 1;
const ENABLE: u64 = 1 << 1;
const MASK: u64 = 1 << 2;
const MOVED: u64 = 1 << 3;
const FIRST: u32 = 16;
const COUNT: u32 = 32;

/// Notes messages for assignment slot `at`.
pub fn note<W: Words>(ledger: &mut W, at: u16, setup: &Setup) {
    for (place, block) in (Word::Blocks.of(at)..).zip(&setup.blocks) {
        // Where an interrupt is written to is below 4 GiB (Intel SDM volume 3, 11.11.1).
        let word = block.vectors.address & 0xffff_ffff | u64::from(block.vectors.data) << 32;
        ledger.store(place, word);
    }
    for (place, cores) in (Word::Cores.of(at)..).zip(setup.cores.chunks(8)) {
        let word = cores
            .iter()
            .rev()
            .fold(0, |word, core| word << 8 | u64::from(*core));
        ledger.store(place, word);
    }
    note_bits(ledger, at, setup);
}

/// Notes what of them one word says.
pub fn note_bits<W: Words>(ledger: &mut W, at: u16, setup: &Setup) {
    let bit = |bit: u64, is: bool| if is { bit } else { 0 };
    let word = bit(MSIX, setup.mechanism == Mechanism::MsiX)
        | bit(ENABLE, setup.bits.enable == Switch::On)
        | bit(MASK, setup.bits.mask == Switch::On)
        | bit(MOVED, !setup.cores.is_empty())
        | u64::from(setup.first) << FIRST
        | u64::from(setup.messages()) << COUNT;
    ledger.store(Word::Setup.of(at), word);
}

/// The messages that are noted for assignment slot `at`: alleged. `None` where they cannot be any.
#[must_use]
pub fn read<W: Words>(ledger: &W, at: u16) -> Option<Setup> {
    let word = ledger.load(Word::Setup.of(at));
    let switch = |bit: u64| {
        if word & bit != 0 {
            Switch::On
        } else {
            Switch::Off
        }
    };
    let (first, count) = ((word >> FIRST) as u16, (word >> COUNT) as u16);
    let mut blocks: Vec<Block, MAX_BLOCKS> = Vec::new();
    let mut left = count;
    while let Some(count) = block_of(left) {
        let word = ledger.load(Word::Blocks.of(at) + blocks.len());
        let vectors = VectorBlock {
            address: word & 0xffff_ffff,
            data: (word >> 32) as u32,
        };
        // An interrupt, and nothing else.
        if vectors.address >> 20 != 0xfee {
            return None;
        }
        blocks.push(Block { vectors, count }).ok()?;
        left -= count;
    }
    let mut cores: Vec<u8, MAX_MOVED> = Vec::new();
    if word & MOVED != 0 {
        for n in 0..usize::from(count) {
            let word = ledger.load(Word::Cores.of(at) + n / 8);
            cores.push((word >> (n % 8 * 8)) as u8).ok()?;
        }
    }
    (!blocks.is_empty()).then_some(Setup {
        mechanism: if word & MSIX != 0 {
            Mechanism::MsiX
        } else {
            Mechanism::Msi
        },
        first,
        blocks,
        cores,
        bits: Bits {
            enable: switch(ENABLE),
            mask: switch(MASK),
        },
    })
}

/// Notes which of the messages in use are masked.
pub fn note_masks<W: Words>(ledger: &mut W, at: u16, setup: &Setup, masks: &Masks) {
    for half in 0..2u16 {
        let numbers = 0..setup.messages().saturating_sub(64 * half).min(64);
        let word = numbers
            .filter(|n| masks.contains(setup.first.saturating_add(64 * half + n)))
            .fold(0u64, |word, n| word | 1 << n);
        ledger.store(Word::Masks.of(at) + usize::from(half), word);
    }
}

/// Nothing is masked.
pub fn clear_masks<W: Words>(ledger: &mut W, at: u16) {
    ledger.store(Word::Masks.of(at), 0);
    ledger.store(Word::Masks.of(at) + 1, 0);
}

/// Which messages are masked.
pub fn read_masks<W: Words>(ledger: &W, at: u16, setup: &Setup, masks: &mut Masks) {
    masks.clear();
    for n in 0..setup.messages().min(128) {
        let word = ledger.load(Word::Masks.of(at) + usize::from(n / 64));
        if word >> (n % 64) & 1 != 0 {
            masks.set(setup.first.saturating_add(n), Switch::On);
        }
    }
}

/// Notes what a reset of the device in assignment slot `at` brings back.
pub fn note_kept<W: Words>(ledger: &mut W, at: u16, kept: Kept) {
    let word = u64::from(kept.command) | u64::from(kept.device_control) << 16;
    ledger.store(Word::Kept.of(at), word);
}

/// What a reset is to bring back.
#[must_use]
pub fn read_kept<W: Words>(ledger: &W, at: u16) -> Kept {
    let word = ledger.load(Word::Kept.of(at));
    Kept {
        command: word as u16,
        device_control: (word >> 16) as u16,
    }
}
