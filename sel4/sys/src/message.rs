//! The message tag: label, length and capability counts in one word.
//!
//! Layout: `libsel4/mode_include/64/sel4/shared_types.bf` (5.0.0: `libsel4/include/sel4/shared_types_64.bf`).

use crate::Word;

/// Words of a message at most, whether in registers or in the IPC buffer.
pub const MAX_WORDS: usize = 120;
/// Capabilities in a message at most.
pub const MAX_CAPS: usize = 3;
/// Words of a message that travel in registers.
pub const REGISTER_WORDS: usize = 4;
/// Bits of a label that every supported kernel passes on: 5.0.0 has 20, later ones 52.
pub const LABEL_BITS: u32 = 20;

const LENGTH_BITS: u32 = 7;
const CAPS_SHIFT: u32 = 7;
const UNWRAPPED_SHIFT: u32 = 9;
const LABEL_SHIFT: u32 = 12;

/// The tag word of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct MessageInfo(Word);

impl MessageInfo {
    /// A tag for sending. Label, capability count and length are cut to the bits they have
    /// ([`LABEL_BITS`], 2 and 7 bits); the kernel itself limits the length to [`MAX_WORDS`].
    #[inline(always)]
    #[must_use]
    pub const fn new(label: Word, extra_caps: usize, length: usize) -> Self {
        Self(
            (label & ((1 << LABEL_BITS) - 1)) << LABEL_SHIFT
                | (extra_caps as Word & MAX_CAPS as Word) << CAPS_SHIFT
                | (length as Word & ((1 << LENGTH_BITS) - 1)),
        )
    }

    /// The tag as the kernel gave it.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: Word) -> Self {
        Self(word)
    }

    /// The tag as the kernel takes it.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> Word {
        self.0
    }

    /// The sender's label; of a kernel reply the error, of a fault message the kind.
    #[inline(always)]
    #[must_use]
    pub const fn label(self) -> Word {
        self.0 >> LABEL_SHIFT & ((1 << LABEL_BITS) - 1)
    }

    /// Words in the message, never more than [`MAX_WORDS`].
    #[inline(always)]
    #[must_use]
    pub const fn length(self) -> usize {
        let length = (self.0 & ((1 << LENGTH_BITS) - 1)) as usize;
        if length > MAX_WORDS {
            MAX_WORDS
        } else {
            length
        }
    }

    /// Words in a message that is in registers alone; `None` for a longer one.
    #[inline(always)]
    #[must_use]
    pub const fn register_length(self) -> Option<usize> {
        let length = (self.0 & ((1 << LENGTH_BITS) - 1)) as usize;
        if length <= REGISTER_WORDS {
            Some(length)
        } else {
            None
        }
    }

    /// Capabilities sent (0..=3), or, in a received message, transferred.
    #[inline(always)]
    #[must_use]
    pub const fn extra_caps(self) -> usize {
        (self.0 >> CAPS_SHIFT) as usize & MAX_CAPS
    }

    /// Which of the capabilities were unwrapped, one bit each: their badge was given instead.
    #[inline(always)]
    #[must_use]
    pub const fn caps_unwrapped(self) -> u8 {
        (self.0 >> UNWRAPPED_SHIFT) as u8 & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_land_where_the_kernel_reads_them() {
        let info = MessageInfo::new(0xabcde, 3, 120);
        assert_eq!(info.word(), 0xabcde << 12 | 3 << 7 | 120);
        assert_eq!(
            (info.label(), info.extra_caps(), info.length()),
            (0xabcde, 3, 120)
        );
    }

    #[test]
    fn excess_bits_never_reach_a_neighbour() {
        let info = MessageInfo::new(Word::MAX, 7, 0x1ff);
        assert_eq!(info.caps_unwrapped(), 0);
        assert_eq!(info.word() >> (12 + LABEL_BITS), 0);
        assert_eq!(info.length(), MAX_WORDS);
    }

    #[test]
    fn a_short_message_is_in_registers() {
        for length in 0..=MAX_WORDS {
            let short = (length <= REGISTER_WORDS).then_some(length);
            assert_eq!(MessageInfo::new(5, 1, length).register_length(), short);
        }
        assert_eq!(MessageInfo::from_word(0x7f).register_length(), None);
    }

    #[test]
    fn unwrapped_bits_are_read_from_a_kernel_word() {
        let info = MessageInfo::from_word(0b101 << 9 | 3 << 7 | 1);
        assert_eq!(
            (info.caps_unwrapped(), info.extra_caps(), info.length()),
            (5, 3, 1)
        );
    }
}
