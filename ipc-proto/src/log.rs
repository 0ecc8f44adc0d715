//! [`LogRing`]: one page-aligned ring of bytes a PD, written by the PD and
//! drained by the console service. The writer never waits: what does not fit
//! is dropped and counted, and the reader says so.
//!
//! Either side may be hostile to the other: positions are taken modulo the
//! size, so a wrong one garbles that PD's own text and nothing else.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Bytes of shared memory that a ring takes (a power of two, whole pages).
pub const RING_BYTES: usize = 16 * 1024;
/// Bytes of text that fit.
pub const RING_TEXT: usize = RING_BYTES / 2;

/// The ring as it lies in shared memory. All bytes zero is an empty ring.
#[repr(C, align(4096))]
pub struct LogRing {
    written: AtomicU32,
    read: AtomicU32,
    dropped: AtomicU32,
    text: [AtomicU8; RING_TEXT],
}

const _: () = assert!(RING_TEXT.is_power_of_two() && core::mem::size_of::<LogRing>() <= RING_BYTES);

impl LogRing {
    /// An empty ring (for tests; in an image the memory starts as zeros).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            written: AtomicU32::new(0),
            read: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            text: [const { AtomicU8::new(0) }; RING_TEXT],
        }
    }

    /// Bytes that wait to be read.
    #[must_use]
    pub fn pending(&self) -> usize {
        let pending = self
            .written
            .load(Ordering::Acquire)
            .wrapping_sub(self.read.load(Ordering::Acquire)) as usize;
        pending.min(RING_TEXT)
    }

    /// Writer: appends the bytes, or drops them all when they do not fit.
    /// Returns whether they were taken.
    pub fn write(&self, bytes: &[u8]) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        if bytes.len() > RING_TEXT - self.pending() {
            self.dropped.fetch_add(
                u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                Ordering::Relaxed,
            );
            return false;
        }
        let mut at = written;
        for &byte in bytes {
            if let Some(cell) = self.text.get(at as usize % RING_TEXT) {
                cell.store(byte, Ordering::Relaxed);
            }
            at = at.wrapping_add(1);
        }
        self.written.store(at, Ordering::Release);
        true
    }

    /// Reader: moves up to `into.len()` bytes out and returns how many.
    pub fn read(&self, into: &mut [u8]) -> usize {
        // Loaded once: what is written meanwhile is for the next time.
        let written = self.written.load(Ordering::Acquire);
        let mut at = self.read.load(Ordering::Relaxed);
        let mut pending = written.wrapping_sub(at);
        if pending > RING_TEXT as u32 {
            // Only a hostile writer claims more than there is room for.
            pending = RING_TEXT as u32;
            at = written.wrapping_sub(pending);
        }
        let count = (pending as usize).min(into.len());
        for byte in into.iter_mut().take(count) {
            *byte = self
                .text
                .get(at as usize % RING_TEXT)
                .map_or(0, |cell| cell.load(Ordering::Relaxed));
            at = at.wrapping_add(1);
        }
        self.read.store(at, Ordering::Release);
        count
    }

    /// Reader: bytes dropped since the last call.
    pub fn take_dropped(&self) -> u32 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Default for LogRing {
    fn default() -> Self {
        Self::new()
    }
}

/// Most bytes of a line in a ring, its newline included.
pub const LINE_BYTES: usize = 256;
/// What stands at the end of a line that was cut.
const CUT: &[u8] = b"...";

/// One line on its way into a ring: what does not fit is cut off and `...`
/// stands in its place.
#[derive(Clone, Debug)]
pub struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; LINE_BYTES],
            len: 0,
        }
    }

    /// Ends the line and gives its bytes, newline included.
    pub fn finish(&mut self) -> &[u8] {
        if self.len >= LINE_BYTES {
            let end = LINE_BYTES - 1;
            if let Some(tail) = self.bytes.get_mut(end - CUT.len()..end) {
                tail.copy_from_slice(CUT);
            }
            self.len = end;
        }
        if let Some(byte) = self.bytes.get_mut(self.len) {
            *byte = b'\n';
        }
        self.bytes.get(..=self.len).unwrap_or(&[])
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Write for Line {
    /// Never fails: what does not fit is dropped.
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_as_it_went_in_across_the_wrap() {
        let ring = LogRing::new();
        let line = [b'x'; 1000];
        let mut out = [0; 1000];
        for _ in 0..50 {
            assert!(ring.write(&line));
            assert_eq!(ring.read(&mut out), 1000);
            assert_eq!(out, line);
        }
        assert_eq!(ring.take_dropped(), 0);
    }

    #[test]
    fn a_full_ring_drops_whole_lines_and_counts_them() {
        let ring = LogRing::new();
        while ring.write(b"0123456789") {}
        assert_eq!(ring.take_dropped(), 10);
        assert_eq!(ring.pending(), RING_TEXT / 10 * 10);
    }

    #[test]
    fn a_hostile_writer_cannot_make_the_reader_run_on() {
        let ring = LogRing::new();
        ring.written.store(u32::MAX, Ordering::Relaxed);
        let mut out = [0; RING_TEXT];
        assert_eq!(ring.read(&mut out), RING_TEXT);
        assert_eq!(ring.read(&mut out), 0);
        ring.written.store(5, Ordering::Relaxed);
        assert!(ring.read(&mut out) <= RING_TEXT);
    }

    #[test]
    fn a_line_longer_than_its_buffer_says_so() {
        use core::fmt::Write;
        for length in [0, 1, LINE_BYTES - 2, LINE_BYTES - 1] {
            let mut line = Line::new();
            for _ in 0..length {
                line.write_str("a").unwrap();
            }
            let bytes = line.finish();
            assert_eq!(bytes.len(), length + 1);
            assert!(bytes[..length].iter().all(|byte| *byte == b'a'));
            assert_eq!(bytes.last(), Some(&b'\n'));
        }
        for length in [LINE_BYTES, LINE_BYTES + 1, 1000] {
            let mut line = Line::new();
            write!(line, "{:a<length$}", "").unwrap();
            let bytes = line.finish();
            assert_eq!(bytes.len(), LINE_BYTES);
            assert!(bytes.ends_with(b"aaa...\n"));
        }
    }
}
