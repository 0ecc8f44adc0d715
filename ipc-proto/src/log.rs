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
        let read = self.read.load(Ordering::Relaxed);
        let count = self.pending().min(into.len());
        let mut at = read;
        for byte in into.iter_mut().take(count) {
            *byte = self
                .text
                .get(at as usize % RING_TEXT)
                .map_or(0, |cell| cell.load(Ordering::Relaxed));
            at = at.wrapping_add(1);
        }
        // What a hostile writer claims beyond the ring's size is skipped.
        self.read.store(
            if count == into.len() {
                at
            } else {
                self.written.load(Ordering::Acquire)
            },
            Ordering::Release,
        );
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

#[cfg(test)]
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
        assert_eq!(ring.read(&mut out), RING_TEXT);
        ring.written.store(5, Ordering::Relaxed);
        assert!(ring.read(&mut out) <= RING_TEXT);
    }
}
