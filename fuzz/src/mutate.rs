//! Breaks a table: mutations that know where records begin, and some that do not.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;

use crate::corpus::Corpus;
use crate::tables::seal;

/// Longest table that is made.
const MAX_BYTES: usize = 16 * 1024;
/// Bytes of a table's header.
const HEADER: usize = 36;
/// Where a table's header has its length.
const LENGTH: usize = 4;
/// Where a table's header has its checksum.
const CHECKSUM: usize = 9;

/// A source of randomness.
pub struct Random(ChaCha8Rng);

impl Random {
    /// The numbers for input `index` of a seed, apart from those of all other inputs.
    #[must_use]
    pub fn new(base: &ChaCha8Rng, index: u64) -> Self {
        let mut own = base.clone();
        own.set_stream(index);
        Self(own)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        match limit {
            0 => 0,
            limit => (self.any() % limit as u64) as usize,
        }
    }

    /// One of a few.
    fn of<T: Copy + Default>(&mut self, list: &[T]) -> T {
        let index = self.below(list.len());
        list.get(index).copied().unwrap_or_default()
    }

    /// Once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number that is at the edge of something, or any.
    fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] = [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            0xfff,
            0x1000,
            0x7fff,
            0xffff,
            0xffff_ffff,
            u64::MAX - 0xfff,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.any(),
            1 => 1u64 << self.below(64),
            2 => self.of(&EDGES).wrapping_add(self.any() % 3).wrapping_sub(1),
            _ => self.of(&EDGES),
        }
    }
}

/// How a table's records say what they are.
#[derive(Clone, Copy)]
struct Shape {
    /// Where the first begins.
    first: usize,
    /// Bytes of their type, after which the length follows; 0: they have neither.
    kind: usize,
    /// Bytes of their length.
    length: usize,
    /// Where the length is.
    length_at: usize,
}

fn shape(signature: &[u8]) -> Shape {
    let (first, kind, length, length_at) = match signature {
        b"DMAR" => (48, 2, 2, 2),
        // Type, flags, length.
        b"IVRS" => (48, 1, 2, 2),
        b"APIC" => (44, 1, 1, 1),
        b"SRAT" => (48, 1, 1, 1),
        b"MCFG" => (44, 0, 16, 0),
        _ => (HEADER, 0, 8, 0),
    };
    Shape {
        first,
        kind,
        length,
        length_at,
    }
}

/// A number of one or two bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    let low = usize::from(bytes.get(at).copied().unwrap_or(0));
    match width {
        2 => low | usize::from(bytes.get(at + 1).copied().unwrap_or(0)) << 8,
        _ => low,
    }
}

fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    for (byte, new) in bytes
        .iter_mut()
        .skip(at)
        .take(width)
        .zip(value.to_le_bytes())
    {
        *byte = new;
    }
}

/// Where the records of a table begin and end, as far as they make sense.
fn records(bytes: &[u8]) -> Vec<(usize, usize)> {
    let shape = shape(bytes.get(..4).unwrap_or_default());
    let mut found = Vec::new();
    let mut at = shape.first;
    while at < bytes.len() && found.len() < 4096 {
        let length = match shape.kind {
            0 => shape.length,
            _ => number(bytes, at + shape.length_at, shape.length),
        };
        if length == 0 || at + length > bytes.len() {
            break;
        }
        found.push((at, at + length));
        at += length;
    }
    found
}

/// Input `index` of a seed.
#[must_use]
pub fn input(corpus: &Corpus, random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus.pick(random.any()).to_vec();
    // A few with one change, which reach deep; some with many.
    let changes = 1 + random.below(3) * random.below(5);
    for _ in 0..changes {
        change(&mut bytes, corpus, random);
        bytes.truncate(MAX_BYTES);
    }
    // Without a right length and checksum nothing behind the header is read.
    if !random.once_in(16) && bytes.len() >= HEADER {
        let length = bytes.len() as u64;
        put(&mut bytes, LENGTH, 4, length);
    }
    if !random.once_in(16) && bytes.len() >= HEADER {
        seal(&mut bytes, CHECKSUM);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, corpus: &Corpus, random: &mut Random) {
    let length = bytes.len();
    match random.below(16) {
        0..3 => {
            let (at, value) = (random.below(length), random.any());
            put(bytes, at, 1, value);
        }
        3 => {
            let (at, bit) = (random.below(length), random.below(8));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        4..6 => {
            let width = random.of(&[1, 2, 4, 8]);
            let (at, value) = (random.below(length), random.edge());
            put(bytes, at, width, value);
        }
        6 => bytes.truncate(random.below(length + 1)),
        7 => {
            let extra = random.below(64);
            let value = random.edge() as u8;
            bytes.extend(std::iter::repeat_n(value, extra));
        }
        8 => {
            let value = match random.below(3) {
                0 => random.edge(),
                1 => random.below(64) as u64,
                _ => (length as u64)
                    .wrapping_add(random.any() % 5)
                    .wrapping_sub(2),
            };
            put(bytes, LENGTH, 4, value);
        }
        9 => put(bytes, 8, 1, random.any() % 4),
        _ => change_record(bytes, corpus, random),
    }
}

fn change_record(bytes: &mut Vec<u8>, corpus: &Corpus, random: &mut Random) {
    let found = records(bytes);
    let Some(&(at, end)) = found.get(random.below(found.len())) else {
        return;
    };
    let shape = shape(bytes.get(..4).unwrap_or_default());
    match random.below(8) {
        // Its length.
        0 => {
            let own = (end - at) as u64;
            let value = match random.below(4) {
                0 => random.below(4) as u64,
                1 => own.wrapping_add(random.any() % 9).wrapping_sub(4),
                2 => (bytes.len() - at) as u64 + random.any() % 3,
                _ => random.edge(),
            };
            put(bytes, at + shape.length_at, shape.length, value);
        }
        // Its type.
        1 => {
            const KINDS: [u64; 12] = [0, 1, 2, 3, 4, 5, 6, 9, 0x10, 0x11, 0x21, 0x40];
            let value = match random.below(4) {
                0 => random.any(),
                _ => random.of(&KINDS),
            };
            put(bytes, at, shape.kind.max(1), value);
        }
        2 => {
            bytes.drain(at..end);
        }
        3 => {
            let record = bytes.get(at..end).unwrap_or_default().to_vec();
            let most = if random.once_in(8) { 400 } else { 3 };
            let times = 1 + random.below(most);
            for _ in 0..times {
                if bytes.len() > MAX_BYTES {
                    break;
                }
                bytes.splice(end..end, record.iter().copied());
            }
        }
        // A record of another table, of whatever kind.
        4 => {
            let other = corpus.pick(random.any());
            let theirs = records(other);
            if let Some(&(from, to)) = theirs.get(random.below(theirs.len())) {
                let record = other.get(from..to).unwrap_or_default();
                bytes.splice(at..at, record.iter().copied());
            }
        }
        // Bytes within grow or shrink, and the length follows, so that what is nested moves.
        5 => {
            let place = at + random.below(end - at + 1);
            if random.once_in(2) {
                let count = random.below(9);
                let value = random.edge() as u8;
                bytes.splice(place..place, std::iter::repeat_n(value, count));
                put(
                    bytes,
                    at + shape.length_at,
                    shape.length,
                    (end - at + count) as u64,
                );
            } else {
                let to = end.min(place + random.below(9));
                bytes.drain(place..to);
                put(
                    bytes,
                    at + shape.length_at,
                    shape.length,
                    (end - at - (to - place)) as u64,
                );
            }
        }
        // A nested entry: types and lengths of scopes, types of device entries.
        _ => {
            let place = at + random.below(end - at);
            const BYTES: [u8; 20] = [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 22, 0x20, 0x40, 0x42, 0x43, 0x46, 0x47, 0x48, 0xf0,
                0xff,
            ];
            let value = random.of(&BYTES);
            put(bytes, place, 1, u64::from(value));
        }
    }
}
