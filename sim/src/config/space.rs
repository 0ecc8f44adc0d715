//! [`Space`]: the registers of one function as bytes, with two masks a byte:
//! which bits a write sets, and which bits a write of one clears. The shape of
//! a register follows from its masks; only resets and resizable BARs have code.

use super::allocation::Resizable;
use super::hostile::{Misbehaviour, Mood};
use super::virtualization::Virtualization;

/// A register whose bit starts a function-level reset and reads as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResetTrigger {
    pub offset: u16,
    pub bit: u8,
}

/// Configuration space of one function.
#[derive(Clone, Debug)]
pub struct Space {
    bytes: Vec<u8>,
    /// Values after a reset.
    initial: Vec<u8>,
    writable: Vec<u8>,
    cleared_by_one: Vec<u8>,
    pub(super) reset_trigger: Option<ResetTrigger>,
    pub(super) virtualization: Option<Virtualization>,
    pub(super) resizable: Vec<Resizable>,
    pub(super) quiet_after_reset: u32,
    quiet: u32,
    resets: usize,
    mood: Mood,
}

impl Space {
    /// `length` bytes (64, 256 or 4096) that read zero and cannot be written.
    #[must_use]
    pub fn new(length: usize) -> Self {
        assert!(
            [64, 256, 4096].contains(&length),
            "configuration space has 64, 256 or 4096 bytes, not {length}"
        );
        Self::of(vec![0; length])
    }

    /// The registers of which `bytes` are known, at most 4,096: the others read ones. None can be
    /// written.
    #[must_use]
    pub fn known(bytes: &[u8]) -> Self {
        assert!(bytes.len() <= 4096, "{} bytes", bytes.len());
        Self::of(bytes.to_vec())
    }

    fn of(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self {
            initial: bytes.clone(),
            bytes,
            writable: vec![0; length],
            cleared_by_one: vec![0; length],
            reset_trigger: None,
            virtualization: None,
            resizable: Vec::new(),
            quiet_after_reset: 0,
            quiet: 0,
            resets: 0,
            mood: Mood::default(),
        }
    }

    /// Makes the function misbehave from now on; several misbehaviours add up.
    pub fn misbehave(&mut self, how: Misbehaviour) {
        self.mood.add(how);
    }

    /// All registers as the device has them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn resets(&self) -> usize {
        self.resets
    }

    /// Sets registers and the values that they have after a reset.
    pub fn set(&mut self, offset: u16, bytes: &[u8]) {
        copy(&mut self.bytes, offset, bytes);
        copy(&mut self.initial, offset, bytes);
    }

    /// Sets registers as firmware or the device would: a reset takes it back.
    pub fn poke(&mut self, offset: u16, bytes: &[u8]) {
        copy(&mut self.bytes, offset, bytes);
    }

    /// Says which bits can be written.
    pub fn allow(&mut self, offset: u16, mask: &[u8]) {
        copy(&mut self.writable, offset, mask);
    }

    /// Says which bits a write of one clears.
    pub fn allow_clear(&mut self, offset: u16, mask: &[u8]) {
        copy(&mut self.cleared_by_one, offset, mask);
    }

    pub(super) fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial);
        self.resets += 1;
        self.quiet = self.quiet_after_reset;
    }

    pub(super) fn read<const N: usize>(&mut self, offset: u16) -> [u8; N] {
        if self.quiet > 0 {
            self.quiet -= 1;
            return [0xff; N];
        }
        let start = usize::from(offset);
        let honest = self
            .bytes
            .get(start..start + N)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0xff; N]);
        self.mood.read(offset, honest)
    }

    pub(super) fn write<const N: usize>(&mut self, offset: u16, value: [u8; N]) {
        if self.quiet > 0 || !self.mood.answers_write() {
            return;
        }
        let mut reset = false;
        for (index, value) in (usize::from(offset)..).zip(value) {
            let (Some(byte), Some(&writable), Some(&cleared)) = (
                self.bytes.get_mut(index),
                self.writable.get(index),
                self.cleared_by_one.get(index),
            ) else {
                continue;
            };
            let kept = self.mood.kept_bits(index, *byte);
            *byte = (*byte & !writable) | (value & writable) | (kept & writable);
            *byte &= !(value & cleared);
            let trigger = ResetTrigger {
                offset: index as u16,
                bit: value,
            };
            reset |= self
                .reset_trigger
                .is_some_and(|set| set.offset == trigger.offset && set.bit & trigger.bit != 0);
        }
        if reset {
            self.reset();
        }
        if !self.resizable.is_empty() {
            self.resize();
        }
    }
}

fn copy(to: &mut [u8], offset: u16, bytes: &[u8]) {
    let start = usize::from(offset);
    let end = start + bytes.len();
    let size = to.len();
    match to.get_mut(start..end) {
        Some(place) => place.copy_from_slice(bytes),
        None => panic!("registers {start:#x} to {end:#x} do not fit {size:#x} bytes"),
    }
}
