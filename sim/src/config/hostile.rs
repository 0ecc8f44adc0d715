//! [`Misbehaviour`]: what a broken or malicious device does beyond having odd
//! values in its registers, which the builders can already give it.

use std::ops::Range;

/// A way to misbehave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Every read gives ones, every write is lost.
    AllOnes,
    /// Answers this many accesses, then is gone.
    VanishesAfter {
        /// Reads and writes that it still answers.
        accesses: u32,
    },
    /// Reads of these bytes give something else each time.
    Changing {
        /// Offsets.
        bytes: Range<u16>,
        /// Where the values start; the same seed gives the same values.
        seed: u64,
    },
    /// Bits of these bytes can be set and never cleared by a write.
    KeepsOnes {
        /// Offsets.
        bytes: Range<u16>,
    },
}

/// What a function does beyond its registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Mood {
    gone: bool,
    remaining: Option<u32>,
    changing: Option<(Range<u16>, u64)>,
    keeps: Option<Range<u16>>,
}

impl Mood {
    pub fn add(&mut self, how: Misbehaviour) {
        match how {
            Misbehaviour::AllOnes => self.gone = true,
            Misbehaviour::VanishesAfter { accesses } => self.remaining = Some(accesses),
            Misbehaviour::Changing { bytes, seed } => self.changing = Some((bytes, seed | 1)),
            Misbehaviour::KeepsOnes { bytes } => self.keeps = Some(bytes),
        }
    }

    /// Counts an access; false if the function is gone.
    fn answers(&mut self) -> bool {
        match &mut self.remaining {
            Some(0) => self.gone = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.gone
    }

    pub fn answers_write(&mut self) -> bool {
        self.answers()
    }

    pub fn read<const N: usize>(&mut self, offset: u16, honest: [u8; N]) -> [u8; N] {
        if !self.answers() {
            return [0xff; N];
        }
        let mut seen = honest;
        if let Some((bytes, state)) = &mut self.changing {
            for (at, byte) in (offset..).zip(&mut seen) {
                if bytes.contains(&at) {
                    *byte = next(state);
                }
            }
        }
        seen
    }

    /// Bits of the byte at `index` that a write must not clear.
    pub fn kept_bits(&self, index: usize, byte: u8) -> u8 {
        let kept = self
            .keeps
            .as_ref()
            .is_some_and(|bytes| bytes.contains(&(index as u16)));
        if kept { byte } else { 0 }
    }
}

/// A byte of Marsaglia's xorshift64.
fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}
