//! What a shard notes in its ledger for its next start, and where: [`State`], [`facts`], [`setup`].
//!
//! Noted is what cannot be found out again without harm to a device that is held: sizes of its BARs, what it is
//! brought back to, whose it is, with which generation, what of it is set up, and what is under way. Everything else
//! is read from hardware. A held device's words are by its assignment slot; each [`State`] is one word, so that it
//! changes as a whole, and words that it vouches for are written before it.
//!
//! Everything here is input for the next start ([`crate::shard`]'s recovery): no word is believed unchecked.

pub mod facts;
pub mod setup;
pub mod state;

pub use state::{Intent, Phase, State, Work};

use ledger::Words;

use crate::bank::MAX_NODES;
use crate::shard::MAX_VIEWS;
use crate::{MAX_ASSIGNMENTS, MAX_FUNCTIONS};

/// Says that the first start was complete. Another layout has another number.
const COMPLETE: u64 = 0x0001_5043_495f_4c47;
const COMPLETE_AT: usize = 0;
/// Clients that are being taken down, one bit each.
pub(crate) const GONE_AT: usize = 1;
/// Frames that are being placed ([`crate::bank`]).
pub(crate) const PLACING_AT: usize = 2;
/// For which assignment slot, and how many frames of it were placed before. Says whether the former counts.
const PLACING_FOR_AT: usize = 3;
/// Says that there was a start.
const BEGUN_AT: usize = 4;
/// The function whose BARs are being sized.
const SIZING_AT: usize = 5;
/// Words of each assignment slot.
const SLOTS_AT: usize = 8;
const SLOT_WORDS: usize = 64;
/// Narrowed capabilities, a word each, by number.
const VIEWS_AT: usize = SLOTS_AT + SLOT_WORDS * MAX_ASSIGNMENTS;
/// What device memory has been split into.
pub(crate) const NODES_AT: usize = VIEWS_AT + MAX_VIEWS + 1;
/// Functions that nobody gets any more.
const BROKEN_AT: usize = NODES_AT + MAX_NODES;
/// Resets of buses.
pub(crate) const BUS_RESETS_AT: usize = BROKEN_AT + MAX_FUNCTIONS;
/// Words of each.
pub(crate) const BUS_RESET_WORDS: usize = 512;
/// Splits of device memory that were made for frames that are being placed, by the number of their word.
pub(crate) const MADE_AT: usize = BUS_RESETS_AT + 4 * BUS_RESET_WORDS;
/// BARs of the function that is being sized.
const SIZED_AT: usize = MADE_AT + MAX_NODES;
/// Words of a shard's ledger.
pub const WORDS: usize = SIZED_AT + 4;

/// A word of an assignment slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    State,
    /// Functions of the device that say its size, and others: see [`setup::sizing`].
    Sizing,
    /// What a reset brings back.
    Kept,
    Setup,
    /// Frames that were placed.
    Frames,
    /// BARs of the virtual functions of the device, as they were sized.
    Virtual,
    /// Two: messages that are masked.
    Masks,
    /// [`facts::WORDS`].
    Facts,
    /// A word each.
    Blocks,
    /// A byte each message.
    Cores,
}

impl Word {
    const fn offset(self) -> usize {
        match self {
            Self::State => 0,
            Self::Sizing => 1,
            Self::Kept => 2,
            Self::Setup => 3,
            Self::Frames => 4,
            Self::Virtual => 5,
            Self::Masks => 6,
            Self::Facts => 8,
            Self::Blocks => 24,
            Self::Cores => 40,
        }
    }

    /// Where it is for assignment slot `at`.
    #[inline(always)]
    pub const fn of(self, at: u16) -> usize {
        SLOTS_AT + SLOT_WORDS * at as usize + self.offset()
    }
}

/// Where the word of a view is.
pub(crate) const fn view(number: u16) -> usize {
    VIEWS_AT + number as usize
}

/// Was the first start complete?
pub fn is_complete<W: Words>(ledger: &W) -> bool {
    ledger.load(COMPLETE_AT) == COMPLETE
}

/// Says that it is.
pub fn complete<W: Words>(ledger: &mut W) {
    ledger.store(COMPLETE_AT, COMPLETE);
}

const PLACING: u64 = 1 << 63;

/// Notes that frames are about to be placed for assignment slot `at`, of which `frames` were placed before.
pub(crate) fn placing<W: Words>(ledger: &mut W, at: u16, frames: u32) {
    let word = PLACING | u64::from(at) << 32 | u64::from(frames);
    ledger.store(PLACING_FOR_AT, word);
}

/// They are placed, or taken back.
pub(crate) fn placed<W: Words>(ledger: &mut W) {
    ledger.store(PLACING_FOR_AT, 0);
    ledger.store(PLACING_AT, 0);
}

/// For whom frames were being placed, and how many he had.
pub(crate) fn was_placing<W: Words>(ledger: &W) -> Option<(u16, u32)> {
    let word = ledger.load(PLACING_FOR_AT);
    (word & PLACING != 0).then_some(((word >> 32 & 0xff) as u16, word as u32))
}

/// Says that there is a start; whether there was one before.
pub fn begin<W: Words>(ledger: &mut W) -> bool {
    let before = ledger.load(BEGUN_AT) != 0;
    ledger.store(BEGUN_AT, 1);
    before
}

/// Nothing is noted any more, but that there was a start.
pub fn wipe<W: Words>(ledger: &mut W) {
    for at in 0..WORDS.min(ledger.count()) {
        let stays = at == BEGUN_AT || at == SIZING_AT || at >= SIZED_AT;
        if !stays && ledger.load(at) != 0 {
            ledger.store(at, 0);
        }
    }
}

/// BARs that are being sized: while it lasts they do not say where they are.
pub(crate) mod sizing {
    use hw::header::register;
    use hw::{ConfigSpace, Sbdf};
    use ledger::Words;

    use super::{SIZED_AT, SIZING_AT};

    const VALID: u64 = 1 << 63;
    /// The registers, two a word: BARs and the ROM.
    const REGISTERS: [u16; 7] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, register::ROM_ENDPOINT];

    /// Notes what the registers of an endpoint say.
    pub fn begin<C: ConfigSpace + Words>(cfg: &mut C, at: Sbdf) {
        for (place, pair) in (SIZED_AT..).zip(REGISTERS.chunks(2)) {
            let word = pair.iter().rev().fold(0, |word, offset| {
                word << 32 | u64::from(cfg.read32(at, *offset))
            });
            cfg.store(place, word);
        }
        cfg.store(SIZING_AT, VALID | u64::from(at.to_bits()));
    }

    /// They say it again.
    pub fn end<C: Words>(ledger: &mut C) {
        ledger.store(SIZING_AT, 0);
    }

    /// The function whose BARs were being sized when an earlier life ended.
    pub fn whose<C: Words>(ledger: &C) -> Option<Sbdf> {
        let word = ledger.load(SIZING_AT);
        (word & VALID != 0).then(|| Sbdf::from_bits(word as u32))
    }

    /// Puts back what the registers said. It does not decode.
    pub fn undo<C: ConfigSpace + Words>(cfg: &mut C, at: Sbdf) {
        for (n, offset) in REGISTERS.into_iter().enumerate() {
            let word = cfg.load(SIZED_AT + n / 2) >> (n % 2 * 32);
            if cfg.read32(at, offset) != word as u32 {
                cfg.write32(at, offset, word as u32);
            }
        }
    }
}

/// Functions that nobody gets any more: how they are noted.
pub(crate) mod broken {
    use hw::Sbdf;
    use ledger::Words;

    use super::BROKEN_AT;
    use crate::MAX_FUNCTIONS;

    const VALID: u64 = 1 << 63;
    const LEAKS: u64 = 1 << 32;

    fn places() -> core::ops::Range<usize> {
        BROKEN_AT..BROKEN_AT + MAX_FUNCTIONS
    }

    /// Notes that nobody gets the function. `leaks`: a way to it is left.
    pub fn note<W: Words>(ledger: &mut W, at: Sbdf, leaks: bool) {
        let word = VALID | u64::from(leaks) << 32 | u64::from(at.to_bits());
        let place = find(ledger, at).or_else(|| places().find(|place| ledger.load(*place) == 0));
        if let Some(place) = place {
            ledger.store(place, word);
        }
    }

    /// It is out of the table.
    pub fn forget<W: Words>(ledger: &mut W, at: Sbdf) {
        if let Some(place) = find(ledger, at) {
            ledger.store(place, 0);
        }
    }

    fn find<W: Words>(ledger: &W, at: Sbdf) -> Option<usize> {
        places().find(|place| read(ledger, *place).is_some_and(|(known, _)| known == at))
    }

    fn read<W: Words>(ledger: &W, place: usize) -> Option<(Sbdf, bool)> {
        let word = ledger.load(place);
        (word & VALID != 0).then(|| (Sbdf::from_bits(word as u32), word & LEAKS != 0))
    }

    /// The `n`-th word: a function, and whether a way to it is left.
    pub fn nth<W: Words>(ledger: &W, n: usize) -> Option<(Sbdf, bool)> {
        (n < MAX_FUNCTIONS).then(|| read(ledger, BROKEN_AT + n))?
    }
}
