//! The thread's IPC buffer: message words beyond the fourth, capabilities, and where to put received ones.
//!
//! 5.0.0 points GS at the buffer, later kernels leave GS to the user: so its address is kept in a static,
//! set once by [`init`]. Until then a private dummy takes the accesses, so that none is ever wild.
//! One static means one thread a protection domain. A second thread in the same address space must keep to messages in
//! registers, or be above the first in priority on the same core and make its own buffer the one used as long as
//! it runs: then the first cannot run in between.

use core::cell::UnsafeCell;
use core::mem::{offset_of, size_of};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::message::{MAX_CAPS, MAX_WORDS, REGISTER_WORDS};
use crate::{CPtr, Word};

/// The memory the kernel reads and writes: `seL4_IPCBuffer` of `libsel4/include/sel4/shared_types.h`.
#[repr(C, align(1024))]
#[derive(Debug)]
pub struct IpcBuffer {
    tag: Word,
    words: [Word; MAX_WORDS],
    user_data: Word,
    caps_or_badges: [Word; MAX_CAPS],
    receive_cnode: CPtr,
    receive_index: Word,
    receive_depth: Word,
}

const _: () = {
    assert!(size_of::<IpcBuffer>() == 1024);
    assert!(offset_of!(IpcBuffer, words) == 8);
    assert!(offset_of!(IpcBuffer, user_data) == 121 * 8);
    assert!(offset_of!(IpcBuffer, caps_or_badges) == 122 * 8);
    assert!(offset_of!(IpcBuffer, receive_depth) == 127 * 8);
};

impl IpcBuffer {
    /// A buffer of zeroes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tag: 0,
            words: [0; MAX_WORDS],
            user_data: 0,
            caps_or_badges: [0; MAX_CAPS],
            receive_cnode: 0,
            receive_index: 0,
            receive_depth: 0,
        }
    }
}

impl Default for IpcBuffer {
    fn default() -> Self {
        Self::new()
    }
}

struct Dummy(UnsafeCell<IpcBuffer>);

// SAFETY: accesses are plain words of a thread that has not called `init`; see the module's rule of one thread.
unsafe impl Sync for Dummy {}

static DUMMY: Dummy = Dummy(UnsafeCell::new(IpcBuffer::new()));
static CURRENT: AtomicPtr<IpcBuffer> = AtomicPtr::new(DUMMY.0.get());

/// Makes `buffer` the one this crate uses.
///
/// # Safety
/// 1. `buffer` is the IPC buffer the kernel knows for this thread, 1024-byte aligned, mapped readable
///    and writable for as long as the thread runs.
/// 2. No Rust reference to it exists, and no other thread of this address space uses this module until that
///    thread's own buffer is set again.
pub unsafe fn init(buffer: *mut IpcBuffer) {
    CURRENT.store(buffer, Ordering::Relaxed);
}

#[inline(always)]
fn current() -> *mut IpcBuffer {
    CURRENT.load(Ordering::Relaxed)
}

/// Writes one message word. `index` must be below [`MAX_WORDS`]; others are ignored.
#[inline(always)]
pub fn set_word(index: usize, value: Word) {
    if index < MAX_WORDS {
        // SAFETY: `current()` is valid for writes (`init`, or the dummy) and the index was checked.
        unsafe {
            (&raw mut (*current()).words)
                .cast::<Word>()
                .add(index)
                .write(value)
        }
    }
}

/// Reads one message word; 0 past [`MAX_WORDS`].
#[inline(always)]
#[must_use]
pub fn word(index: usize) -> Word {
    if index >= MAX_WORDS {
        return 0;
    }
    // SAFETY: `current()` is valid for reads (`init`, or the dummy) and the index was checked.
    unsafe {
        (&raw const (*current()).words)
            .cast::<Word>()
            .add(index)
            .read()
    }
}

/// Writes what of `words` does not fit registers and returns the part that does.
/// Words past [`MAX_WORDS`] are ignored.
#[inline]
#[must_use]
pub fn store_message(words: &[Word]) -> [Word; REGISTER_WORDS] {
    let mut registers = [0; REGISTER_WORDS];
    for (register, value) in registers.iter_mut().zip(words) {
        *register = *value;
    }
    if let Some(rest) = words.get(REGISTER_WORDS..) {
        let count = rest.len().min(MAX_WORDS - REGISTER_WORDS);
        // SAFETY: `current()` is valid for writes, `count` ends within `words`, and the source is a
        // Rust slice, which cannot overlap the buffer (`init`, condition 2).
        unsafe {
            let to = (&raw mut (*current()).words)
                .cast::<Word>()
                .add(REGISTER_WORDS);
            ptr::copy_nonoverlapping(rest.as_ptr(), to, count);
        }
    }
    registers
}

/// Fills `out` with a received message: the words from registers, then those from the buffer.
/// At most [`MAX_WORDS`] words are written; returns how many.
#[inline]
pub fn load_message(registers: &[Word; REGISTER_WORDS], out: &mut [Word]) -> usize {
    let count = out.len().min(MAX_WORDS);
    for (value, register) in out.iter_mut().zip(registers) {
        *value = *register;
    }
    if let Some(rest) = out.get_mut(REGISTER_WORDS..count) {
        // SAFETY: `current()` is valid for reads, `rest` ends within `words`, no overlap (`init`, condition 2).
        unsafe {
            let from = (&raw const (*current()).words)
                .cast::<Word>()
                .add(REGISTER_WORDS);
            ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), rest.len());
        }
    }
    count
}

/// Puts a capability into the message to send, `index` 0..=2; others are ignored.
#[inline(always)]
pub fn set_cap(index: usize, cap: CPtr) {
    if index < MAX_CAPS {
        // SAFETY: `current()` is valid for writes and the index was checked.
        unsafe {
            (&raw mut (*current()).caps_or_badges)
                .cast::<Word>()
                .add(index)
                .write(cap)
        }
    }
}

/// The badge of the unwrapped capability `index` of the message received last; 0 past the third.
#[inline(always)]
#[must_use]
pub fn unwrapped_badge(index: usize) -> Word {
    if index >= MAX_CAPS {
        return 0;
    }
    // SAFETY: `current()` is valid for reads and the index was checked.
    unsafe {
        (&raw const (*current()).caps_or_badges)
            .cast::<Word>()
            .add(index)
            .read()
    }
}

/// Names the slot that takes the next received capability: `index` resolved to `depth` bits in the
/// CSpace whose root is the CNode capability `cnode`.
#[inline]
pub fn set_receive_path(cnode: CPtr, index: Word, depth: Word) {
    let buffer = current();
    // SAFETY: `current()` is valid for writes.
    unsafe {
        (&raw mut (*buffer).receive_cnode).write(cnode);
        (&raw mut (*buffer).receive_index).write(index);
        (&raw mut (*buffer).receive_depth).write(depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, since the buffer is the process's only one.
    #[test]
    fn messages_go_through_the_buffer_and_stay_in_bounds() {
        let long: [Word; 130] = core::array::from_fn(|i| i as Word + 1);
        let registers = store_message(&long);
        assert_eq!(registers, [1, 2, 3, 4]);
        assert_eq!((word(4), word(119), word(120)), (5, 120, 0));
        let mut out = [0; 130];
        assert_eq!(load_message(&registers, &mut out), MAX_WORDS);
        assert_eq!(out[..120], long[..120]);
        assert_eq!(out[120], 0);

        let mut short = [0; 2];
        assert_eq!(load_message(&[7, 8, 9, 10], &mut short), 2);
        assert_eq!(short, [7, 8]);
        assert_eq!(store_message(&[6]), [6, 0, 0, 0]);

        set_word(120, 99);
        set_cap(3, 99);
        set_cap(2, 5);
        set_receive_path(1, 2, 3);
        assert_eq!(
            (unwrapped_badge(2), unwrapped_badge(3), word(119)),
            (5, 0, 120)
        );
    }
}
