//! Functions that nobody built: every register is random, but lists, types and
//! sizes are such that decoders get far.

use std::fmt::Write as _;

/// Marsaglia's xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero is no state; the factor spreads seeds that differ by one.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: u64) -> usize {
        (self.next() % end) as usize
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64)]
    }

    /// A byte that has often few bits, or all.
    fn byte(&mut self) -> u8 {
        match self.below(8) {
            0..=2 => 0,
            3 => 0xff,
            4 => 1 << self.below(8),
            _ => self.next() as u8,
        }
    }
}

/// A dump of `count` functions.
pub fn dump(random: &mut Random, count: u64) -> String {
    let mut text = String::new();
    for index in 0..count {
        let (bus, slot) = (index >> 8, index & 0xff);
        let domain = if random.one_in(20) { "10001:" } else { "" };
        let (device, function) = (slot >> 3, slot & 7);
        let _ = writeln!(text, "{domain}{bus:02x}:{device:02x}.{function} of no kind");
        let bytes = self::function(random);
        for (row, bytes) in bytes.chunks(16).enumerate() {
            let _ = write!(text, "{:02x}:", 16 * row);
            for byte in bytes {
                let _ = write!(text, " {byte:02x}");
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

fn function(random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..4096).map(|_| random.byte()).collect();
    if !random.one_in(40) {
        bytes[0..2].copy_from_slice(&[0x86, 0x80]);
    }
    let kind = random.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 2]);
    bytes[0x0e] = if random.one_in(50) {
        random.byte()
    } else {
        kind
    };
    if kind == 0 && random.one_in(2) {
        // Firmware has often placed nothing.
        bytes[0x10..0x28].fill(0);
    }
    bytes[0x3d] = random.pick(&[0, 0, 1, 2, 3, 4, 4, 5]);
    let pointer = if kind == 2 { 0x14 } else { 0x34 };
    if !random.one_in(10) {
        bytes[0x06] |= 0x10;
        conventional(random, &mut bytes, pointer);
        extended(random, &mut bytes);
    }
    let length = random.pick(&[4096, 4096, 4096, 4096, 4096, 256, 256, 64, 128, 0]);
    let length = match length {
        0 => 16 * (1 + random.below(255)),
        length => length,
    };
    bytes.truncate(length);
    bytes
}

/// Puts capabilities one behind the other from 40h on.
fn conventional(random: &mut Random, bytes: &mut [u8], pointer: usize) {
    let mut link = pointer;
    let mut at = 0x40 + 4 * random.below(3);
    loop {
        let id = random.pick(&[
            0x01, 0x05, 0x05, 0x10, 0x10, 0x10, 0x11, 0x13, 0x14, 0x14, 0x0d, 0x03, 0x07, 0x09,
            0x00, 0xff, 0x02, 0x0a, 0x12, 0x15, 0x16,
        ]);
        // Random bodies would end most lists here.
        if id == 0xff && !random.one_in(8) {
            continue;
        }
        let size = match id {
            0x10 => 60,
            0x14 => 4 + 20 * random.below(4),
            0x05 => 24,
            _ => 12,
        };
        if at + size > 256 && !random.one_in(4) {
            break;
        }
        bytes[link] = at as u8 | random.below(4) as u8;
        bytes[at] = id;
        link = at + 1;
        if at + 4 <= 256 {
            let header = bytes[0x0e] & 0x7f;
            shape(random, &mut bytes[at..256], id, header);
        }
        at = (at + size).next_multiple_of(4) + 4 * random.below(2);
        if at >= 256 {
            break;
        }
    }
    bytes[link] = match random.below(12) {
        0 => random.byte(),
        1 => random.byte() & 0x3f,
        _ => random.below(4) as u8,
    };
}

fn shape(random: &mut Random, body: &mut [u8], id: u8, header: u8) {
    match id {
        // Values that are not reserved, mostly.
        0x05 if !random.one_in(8) => body[2] = random.byte() & 0x8b | random.pick(&[0, 0x10, 0x50]),
        0x10 if !random.one_in(8) => {
            let kind = random.pick(&[0, 1, 4, 4, 5, 6, 6, 7, 8, 9, 10]);
            body[2] = kind << 4 | random.pick(&[1, 2, 2, 2, 3]);
            if let Some(payload) = body.get_mut(4) {
                *payload = *payload & !7 | random.below(6) as u8;
            }
        }
        0x11 if !random.one_in(8) && body.len() >= 12 => {
            body[4] = body[4] & !7 | random.below(6) as u8;
            body[8] = body[8] & !7 | random.below(6) as u8;
        }
        0x14 => allocations(random, body, header),
        _ => {}
    }
}

/// Entries of the size that their addresses need.
fn allocations(random: &mut Random, body: &mut [u8], header: u8) {
    let count = random.below(4);
    body[2] = count as u8 | random.byte() & 0xc0;
    // A bridge's bus numbers come first.
    let mut at = if header == 1 { 8 } else { 4 };
    for _ in 0..count {
        let Some(entry) = body.get_mut(at..at + 24) else {
            body[2] = 0;
            return;
        };
        let wide = u8::from(entry[4] & 2 != 0) + u8::from(entry[8] & 2 != 0);
        let words = if random.one_in(300) {
            random.below(8) as u8
        } else {
            2 + wide
        };
        entry[0] = entry[0] & 0xf8 | words;
        if random.one_in(2) {
            entry[1] = random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 0xfd, 0xfe, 0xff]);
            entry[2] = random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 0xfd, 0xfe, 0xff]);
        }
        at += 4 + 4 * usize::from(words);
    }
}

/// Puts extended capabilities one behind the other from 100h on.
fn extended(random: &mut Random, bytes: &mut [u8]) {
    let mut at = 0x100;
    let mut last;
    let families = [
        0x01, 0x03, 0x0d, 0x0e, 0x0f, 0x10, 0x10, 0x13, 0x15, 0x1b, 0x1d, 0x23, 0x24,
    ];
    loop {
        let id = match random.below(3) {
            0 => random.below(0x3c) as u16,
            _ => random.pick(&families),
        };
        let size = match id {
            0x01 | 0x10 => 0x40,
            0x15 | 0x24 => 0x34,
            _ => 0x10 + 4 * random.below(8),
        };
        let next = at + size;
        bytes[at..at + 2].copy_from_slice(&id.to_le_bytes());
        if id == 0x15 || id == 0x24 {
            // Number of BARs, and one that is there.
            bytes[at + 8] = bytes[at + 8] & 0x1f | (random.below(7) as u8) << 5;
        }
        // What lspci reads as an array in bodies that hw leaves alone.
        if [0x02, 0x05, 0x07, 0x09].contains(&id) {
            bytes[at + 4..at + 8].fill(0);
        }
        last = at;
        if next + 0x40 > 4096 || random.one_in(12) {
            break;
        }
        link(
            bytes,
            at,
            next as u16 | random.below(4) as u16,
            random.byte(),
        );
        at = next;
    }
    let end = match random.below(12) {
        0 => random.next() as u16 & 0xfff,
        1 => random.next() as u16 & 0xff,
        _ => random.below(4) as u16,
    };
    link(bytes, last, end, random.byte());
}

fn link(bytes: &mut [u8], at: usize, to: u16, version: u8) {
    let word = to << 4 | u16::from(version & 0xf);
    bytes[at + 2..at + 4].copy_from_slice(&word.to_le_bytes());
}
