//! [`Memory`]: the machine's memory as a processor and an IOMMU see it. What
//! the processor writes sits in its cache until it is written back, and then,
//! on machines with such a chipset, in a write buffer until that is flushed: a
//! driver that forgets either step makes the unit read old data here too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of a cache line.
const LINE: u64 = 64;

/// Words by their addresses, kept by lines.
#[derive(Clone, Debug, Default)]
struct Lines(BTreeMap<u64, Line>);

/// Which of a line's words are there, and what they are.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    there: u8,
    words: [u64; 8],
}

impl Line {
    fn get(&self, word: usize) -> Option<u64> {
        let there = self.there >> word & 1 != 0;
        there.then(|| self.words.get(word).copied())?
    }

    fn set(&mut self, word: usize, value: u64) {
        if let Some(place) = self.words.get_mut(word) {
            *place = value;
            self.there |= 1 << word;
        }
    }

    /// Takes over the words that `newer` has.
    fn take_over(&mut self, newer: &Self) {
        for word in 0..self.words.len() {
            if let Some(value) = newer.get(word) {
                self.set(word, value);
            }
        }
    }
}

/// The line of a word, and which of its words it is.
const fn place(address: u64) -> (u64, usize) {
    (address / LINE, (address % LINE / 8) as usize)
}

impl Lines {
    fn get(&self, address: u64) -> Option<u64> {
        let (line, word) = place(address);
        self.0.get(&line)?.get(word)
    }

    fn insert(&mut self, address: u64, value: u64) {
        let (line, word) = place(address);
        self.0.entry(line).or_default().set(word, value);
    }

    fn remove(&mut self, address: u64) {
        let (line, word) = place(address);
        if let Some(found) = self.0.get_mut(&line) {
            found.there &= !(1 << word);
        }
    }

    fn take_over(&mut self, line: u64, newer: &Line) {
        self.0.entry(line).or_default().take_over(newer);
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    /// What a unit that does not snoop reads.
    memory: Lines,
    /// Words in the chipset's write buffer.
    buffered: Lines,
    /// Words that only the processor's cache has.
    cached: Lines,
    write_buffer: bool,
}

/// Sparse memory of 64-bit words; zero where nothing was written. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Rc<RefCell<State>>);

impl Memory {
    /// Memory of zeros.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Other memory with the same in it.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Puts a write buffer between cache and memory.
    pub fn with_write_buffer(&self) {
        self.0.borrow_mut().write_buffer = true;
    }

    /// What the processor reads: its cache, the buffer, memory.
    #[must_use]
    pub fn read(&self, address: u64) -> u64 {
        let state = self.0.borrow();
        let found = state.cached.get(address).or(state.buffered.get(address));
        found.or(state.memory.get(address)).unwrap_or(0)
    }

    /// The processor writes a word.
    pub fn write(&self, address: u64, value: u64) {
        self.0.borrow_mut().cached.insert(address, value);
    }

    /// The processor writes the cache lines of `bytes` from `address` on back.
    pub fn write_back(&self, address: u64, bytes: u64) {
        let state = &mut *self.0.borrow_mut();
        let lines = address / LINE..(address + bytes).div_ceil(LINE);
        let written: Vec<u64> = state.cached.0.range(lines).map(|(at, _)| *at).collect();
        for at in written {
            if let Some(line) = state.cached.0.remove(&at) {
                let below = if state.write_buffer {
                    &mut state.buffered
                } else {
                    &mut state.memory
                };
                below.take_over(at, &line);
            }
        }
    }

    /// Flushes the chipset's write buffer.
    pub fn flush_write_buffer(&self) {
        let state = &mut *self.0.borrow_mut();
        for (at, line) in std::mem::take(&mut state.buffered.0) {
            state.memory.take_over(at, &line);
        }
    }

    /// What a unit reads: snooping the processor's cache or not. The write buffer is seen by nobody
    /// but the processor.
    #[must_use]
    pub fn unit_read(&self, address: u64, snoop: Snoop) -> u64 {
        let state = self.0.borrow();
        let cached = match snoop {
            Snoop::Yes => state.cached.get(address),
            Snoop::No => None,
        };
        cached.or(state.memory.get(address)).unwrap_or(0)
    }

    /// A unit writes the lower half of a word, coherently.
    pub fn unit_write32(&self, address: u64, value: u32) {
        let word = self.read(address & !7);
        let shift = (address & 4) * 8;
        let word = word & !(0xffff_ffff << shift) | u64::from(value) << shift;
        let state = &mut *self.0.borrow_mut();
        state.cached.remove(address & !7);
        state.buffered.remove(address & !7);
        state.memory.insert(address & !7, word);
    }
}

/// Whether a unit looks into the processor's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Snoop {
    /// It does.
    Yes,
    /// It reads memory only.
    No,
}
