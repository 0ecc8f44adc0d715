//! [`Records`]: records of a fixed size, each replaced by one store.

use core::num::NonZeroU32;

use crate::Words;

/// `count` records of `words` words in a row of [`Words`], from word `first` on.
///
/// A record is a tag, which is 0 for a free one, and its words. It takes twice its words and one more: the first says
/// the tag and which of the two copies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    first: usize,
    count: usize,
    words: usize,
}

/// Bit of the first word that says which copy counts. The tag is above.
const SECOND: u64 = 1;

impl Records {
    /// Records from word `first` on. All are free in memory that was never written.
    #[must_use]
    pub const fn new(first: usize, count: usize, words: usize) -> Self {
        Self {
            first,
            count,
            words,
        }
    }

    /// Words of one record.
    const fn stride(&self) -> usize {
        1 + 2 * self.words
    }

    /// One past the last word: where the next records can begin.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.first + self.count * self.stride()
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    fn place(&self, number: usize) -> Option<usize> {
        (number < self.count).then(|| self.first + number * self.stride())
    }

    /// First word of the copy that `head` says.
    const fn copy(&self, place: usize, head: u64) -> usize {
        if head & SECOND == 0 {
            place + 1
        } else {
            place + 1 + self.words
        }
    }

    /// Replaces record `number`: the tag and all words together. Words that `contents` does not have are as they were
    /// two writes ago; those it has too many are dropped. Nothing happens outside.
    #[inline(always)]
    pub fn write<W: Words>(
        &self,
        memory: &mut W,
        number: usize,
        tag: NonZeroU32,
        contents: &[u64],
    ) {
        let Some(place) = self.place(number) else {
            return;
        };
        let head = memory.load(place) & SECOND ^ SECOND;
        let copy = self.copy(place, head);
        for (at, word) in (copy..copy + self.words).zip(contents) {
            memory.store(at, *word);
        }
        memory.store(place, u64::from(tag.get()) << 1 | head);
    }

    /// Changes the tag of record `number` and leaves its words.
    #[inline(always)]
    pub fn mark<W: Words>(&self, memory: &mut W, number: usize, tag: NonZeroU32) {
        if let Some(place) = self.place(number) {
            let head = memory.load(place) & SECOND;
            memory.store(place, u64::from(tag.get()) << 1 | head);
        }
    }

    /// Frees record `number`.
    #[inline(always)]
    pub fn clear<W: Words>(&self, memory: &mut W, number: usize) {
        if let Some(place) = self.place(number) {
            let head = memory.load(place) & SECOND;
            memory.store(place, head);
        }
    }

    /// The tag of record `number`; `None` for a free one, and outside.
    #[must_use]
    pub fn tag<W: Words>(&self, memory: &W, number: usize) -> Option<NonZeroU32> {
        let head = memory.load(self.place(number)?);
        u32::try_from(head >> 1).ok().and_then(NonZeroU32::new)
    }

    /// Reads record `number`, as many words as `contents` takes; its tag. `None` for a free one, and outside.
    pub fn read<W: Words>(
        &self,
        memory: &W,
        number: usize,
        contents: &mut [u64],
    ) -> Option<NonZeroU32> {
        let tag = self.tag(memory, number)?;
        let place = self.place(number)?;
        let copy = self.copy(place, memory.load(place));
        for (at, word) in (copy..copy + self.words).zip(contents) {
            *word = memory.load(at);
        }
        Some(tag)
    }
}
