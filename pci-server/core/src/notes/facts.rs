//! What is known of a held device and cannot be read from it as long as somebody holds it: [`note`] and [`read`].
//!
//! Sizes of its BARs, whatever a reset of it forgets, and who it is, in case that it does not answer.

use hw::header::{Header, Ids, Layout};
use hw::{ClassCode, Sbdf};
use ipc_proto::{BarKind, ClientId};
use ledger::Words;

use super::Word;
use crate::Device;
use crate::device::{Baseline, Region};

/// Words of a device.
pub const WORDS: usize = 11;

/// Which of them has the sizes.
const SIZES: usize = 8;

/// In place of an address.
const NO_ADDRESS: u32 = u32::MAX;

/// Bits 63:60 of a BAR's word.
const KIND: u32 = 60;
const PREFETCHABLE: u64 = 1 << 62;
const FIXED: u64 = 1 << 63;
const BASE: u64 = (1 << KIND) - 1;
/// Bits of the word with the sizes, beside six bits for each BAR and the ROM.
const CAN_MASTER: u64 = 1 << 42;
const MULTI_FUNCTION: u64 = 1 << 43;
/// And its holder, as the slot's own word says it too: of two that differ neither is believed.
const HOLDER: u32 = 44;
/// And what changed words, or another slot's, would not have.
const CHECK: u32 = 52;
const CHECK_MASK: u64 = 0xfff << CHECK;

/// Notes a device for assignment slot `at`, and whose it becomes.
#[inline]
pub fn note<W: Words>(ledger: &mut W, at: u16, device: &Device, holder: ClientId) {
    for word in [Word::Sizing, Word::Frames, Word::Virtual] {
        ledger.store(word.of(at), 0);
    }
    let mut sizes =
        u64::from(device.rom_bits & 0x3f) << 36 | if device.can_master { CAN_MASTER } else { 0 };
    sizes |= u64::from(holder.0 & 0xff) << HOLDER;
    let mut words = [0u64; WORDS];
    let mut places = words.iter_mut();
    let mut put = |word: u64| {
        if let Some(place) = places.next() {
            *place = word;
        }
    };
    let physical = device.physical.map_or(NO_ADDRESS, Sbdf::to_bits);
    put(u64::from(device.at.to_bits()) | u64::from(physical) << 32);
    let revision = match device.header {
        Some(header) => {
            if header.multi_function {
                sizes |= MULTI_FUNCTION;
            }
            header.revision
        }
        None => 0,
    };
    put(u64::from(device.ids)
        | u64::from(device.class & 0xff_ffff) << 32
        | u64::from(revision) << 56);
    for (region, shift) in device.bars.iter().zip((0u32..).step_by(6)) {
        put(bar(region));
        if region.bytes != 0 {
            sizes |= u64::from(region.bytes.next_power_of_two().trailing_zeros()) << shift;
        }
    }
    put(sizes);
    let Baseline {
        command,
        cache_line,
        interrupt_line,
        rom,
        device_control,
        link_control,
        device_control2,
    } = device.baseline;
    put(u64::from(command)
        | u64::from(cache_line) << 16
        | u64::from(device_control) << 32
        | u64::from(link_control) << 48);
    put(u64::from(rom) | u64::from(device_control2) << 32 | u64::from(interrupt_line) << 48);
    let check = check(&words, at);
    for (n, word) in words.into_iter().enumerate() {
        let check = if n == SIZES { check } else { 0 };
        ledger.store(Word::Facts.of(at) + n, word | check);
    }
}

/// What the bits for it are to be. Neighbouring words count differently, and slots.
fn check(words: &[u64; WORDS], at: u16) -> u64 {
    let folded = words
        .iter()
        .enumerate()
        .fold(u64::from(at), |all, (n, word)| {
            let word = if n == SIZES {
                word & !CHECK_MASK
            } else {
                *word
            };
            // Odd, so that no changed bit is lost; the upper bits are those that all others tell on.
            (all ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        });
    folded & CHECK_MASK
}

/// Could these be the facts of assignment slot `at`, of a device of this client?
#[must_use]
pub fn are_of<W: Words>(ledger: &W, at: u16, client: ClientId) -> bool {
    let words = core::array::from_fn(|n| ledger.load(Word::Facts.of(at) + n));
    let sizes = words[SIZES];
    sizes & CHECK_MASK == check(&words, at) && sizes >> HOLDER & 0xff == u64::from(client.0)
}

const fn bar(region: &Region) -> u64 {
    let kind = region.kind as u64;
    let mut word = region.base & BASE | (kind & 3) << KIND;
    if region.prefetchable {
        word |= PREFETCHABLE;
    }
    if region.fixed {
        word |= FIXED;
    }
    word
}

fn region(word: u64, bits: u64) -> Region {
    let kind = match word >> KIND & 3 {
        1 => BarKind::Io,
        2 => BarKind::Memory32,
        3 => BarKind::Memory64,
        _ => return Region::NONE,
    };
    let bytes = if bits == 0 {
        0
    } else {
        1u64.checked_shl(bits as u32).unwrap_or(0)
    };
    Region {
        kind,
        base: word & BASE,
        bytes,
        prefetchable: word & PREFETCHABLE != 0,
        fixed: word & FIXED != 0,
        ..Region::NONE
    }
}

/// The device that is noted for assignment slot `at`, as far as it is noted: alleged, like what a stranger says.
#[must_use]
pub fn read<W: Words>(ledger: &W, at: u16) -> Device {
    let word = |n: usize| ledger.load(Word::Facts.of(at) + n);
    let (who, what, sizes) = (word(0), word(1), word(SIZES));
    let ids = what as u32;
    let header = Header {
        ids: Ids {
            vendor: ids as u16,
            device: (ids >> 16) as u16,
        },
        class: ClassCode::from_bits((what >> 32) as u32 & 0xff_ffff),
        revision: (what >> 56) as u8,
        layout: Layout::Endpoint,
        multi_function: sizes & MULTI_FUNCTION != 0,
    };
    let mut device = Device::new(Sbdf::from_bits(who as u32), Some(header));
    device.physical = match (who >> 32) as u32 {
        NO_ADDRESS => None,
        physical => Some(Sbdf::from_bits(physical)),
    };
    for (n, place) in device.bars.iter_mut().enumerate() {
        *place = region(word(2 + n), sizes >> (6 * n) & 0x3f);
    }
    device.rom_bits = (sizes >> 36 & 0x3f) as u8;
    device.can_master = sizes & CAN_MASTER != 0;
    let (first, second) = (word(9), word(10));
    device.baseline = Baseline {
        command: first as u16,
        cache_line: (first >> 16) as u16,
        device_control: (first >> 32) as u16,
        link_control: (first >> 48) as u16,
        rom: second as u32,
        device_control2: (second >> 32) as u16,
        interrupt_line: (second >> 48) as u8,
    };
    device
}
