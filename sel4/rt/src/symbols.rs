//! Symbols that compiled code refers to and nobody else provides: there is no C library.

use crate::memory;

/// C's `memcpy`.
///
/// # Safety
/// As in C: the regions are valid for `bytes` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { memory::copy_up(to, from, bytes) };
    to
}

/// C's `memmove`.
///
/// # Safety
/// As in C: the regions are valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // `to` less than `bytes` above `from`: only then do the words have to be moved from the end.
    if (to as usize).wrapping_sub(from as usize) < bytes {
        // SAFETY: the caller's promise, and the direction for this overlap.
        unsafe { memory::copy_down(to, from, bytes) };
    } else {
        // SAFETY: the caller's promise, and the direction for any other case.
        unsafe { memory::copy_up(to, from, bytes) };
    }
    to
}

/// C's `memset`.
///
/// # Safety
/// As in C: the region is valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { memory::fill(to, byte as u8, bytes) };
    to
}

/// C's `memcmp`.
///
/// # Safety
/// As in C: the regions are valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memory::compare(left, right, bytes) }
}

/// C's `bcmp`: zero if equal.
///
/// # Safety
/// As in C: the regions are valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memory::compare(left, right, bytes) }
}

/// Referred to by the precompiled `core`, which was built for unwinding. Never called: a panic aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {}
