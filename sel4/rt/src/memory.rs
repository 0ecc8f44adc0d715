//! Copying, filling and comparing memory: what the compiler calls as `memcpy` and so on.
//!
//! By 8-byte words in general registers. Not `rep movsb`, because an instruction-counting run (the benchmarks)
//! counts every iteration; not SSE, because a thread's first use of it after a switch traps into the kernel.
//! Blocks are copied by inline assembly, since the compiler turns a loop that copies back into a call of `memcpy`.

use core::arch::asm;
use core::ptr;

const WORD: usize = size_of::<u64>();

/// Copies upwards. Right for regions that do not overlap, and for `to` at or below `from`.
///
/// # Safety
/// `from` is readable and `to` writable for `bytes` bytes.
#[inline(always)]
pub unsafe fn copy_up(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: all accesses below are within `bytes`; the last word is read before anything is written, so an
    // overlap cannot change it.
    unsafe {
        if bytes < WORD {
            return copy_less_than_a_word(to, from, bytes);
        }
        let tail = from.add(bytes - WORD).cast::<u64>().read_unaligned();
        let whole = bytes & !(WORD - 1);
        let blocks = bytes & !(8 * WORD - 1);
        if blocks != 0 {
            asm!(
                "2:",
                "mov {w}, [{from} + {i}]",
                "mov [{to} + {i}], {w}",
                "mov {w}, [{from} + {i} + 8]",
                "mov [{to} + {i} + 8], {w}",
                "mov {w}, [{from} + {i} + 16]",
                "mov [{to} + {i} + 16], {w}",
                "mov {w}, [{from} + {i} + 24]",
                "mov [{to} + {i} + 24], {w}",
                "mov {w}, [{from} + {i} + 32]",
                "mov [{to} + {i} + 32], {w}",
                "mov {w}, [{from} + {i} + 40]",
                "mov [{to} + {i} + 40], {w}",
                "mov {w}, [{from} + {i} + 48]",
                "mov [{to} + {i} + 48], {w}",
                "mov {w}, [{from} + {i} + 56]",
                "mov [{to} + {i} + 56], {w}",
                "add {i}, 64",
                "jnz 2b",
                w = out(reg) _,
                from = in(reg) from.wrapping_add(blocks),
                to = in(reg) to.wrapping_add(blocks),
                i = inout(reg) blocks.wrapping_neg() => _,
                options(nostack),
            );
        }
        if whole != blocks {
            asm!(
                "2:",
                "mov {w}, [{from} + {i}]",
                "mov [{to} + {i}], {w}",
                "add {i}, 8",
                "jnz 2b",
                w = out(reg) _,
                from = in(reg) from.wrapping_add(whole),
                to = in(reg) to.wrapping_add(whole),
                i = inout(reg) blocks.wrapping_sub(whole) => _,
                options(nostack),
            );
        }
        to.add(bytes - WORD).cast::<u64>().write_unaligned(tail);
    }
}

/// Copies downwards. Right for regions that do not overlap, and for `to` above `from`.
///
/// # Safety
/// `from` is readable and `to` writable for `bytes` bytes.
#[inline(always)]
pub unsafe fn copy_down(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: as in `copy_up`; here the first word is kept.
    unsafe {
        if bytes < WORD {
            return copy_less_than_a_word(to, from, bytes);
        }
        let head = from.cast::<u64>().read_unaligned();
        let rest = bytes % WORD;
        asm!(
            "2:",
            "mov {w}, [{from} + {i} - 8]",
            "mov [{to} + {i} - 8], {w}",
            "sub {i}, 8",
            "jnz 2b",
            w = out(reg) _,
            from = in(reg) from.add(rest),
            to = in(reg) to.add(rest),
            i = inout(reg) bytes - rest => _,
            options(nostack),
        );
        to.cast::<u64>().write_unaligned(head);
    }
}

/// Reads all before it writes, so overlaps do not matter.
#[inline(always)]
unsafe fn copy_less_than_a_word(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the accesses at either end are of a size that `bytes` covers.
    unsafe {
        if bytes >= 4 {
            let first = from.cast::<u32>().read_unaligned();
            let last = from.add(bytes - 4).cast::<u32>().read_unaligned();
            to.cast::<u32>().write_unaligned(first);
            to.add(bytes - 4).cast::<u32>().write_unaligned(last);
        } else if bytes >= 2 {
            let first = from.cast::<u16>().read_unaligned();
            let last = from.add(bytes - 1).read();
            to.cast::<u16>().write_unaligned(first);
            to.add(bytes - 1).write(last);
        } else if bytes == 1 {
            to.write(from.read());
        }
    }
}

/// Fills memory with one byte.
///
/// # Safety
/// `to` is writable for `bytes` bytes.
#[inline(always)]
pub unsafe fn fill(to: *mut u8, byte: u8, bytes: usize) {
    let pattern = u64::from(byte).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: all accesses are within `bytes`.
    unsafe {
        if bytes < WORD {
            if bytes >= 4 {
                to.cast::<u32>().write_unaligned(pattern as u32);
                to.add(bytes - 4)
                    .cast::<u32>()
                    .write_unaligned(pattern as u32);
            } else if bytes >= 1 {
                to.write(byte);
                to.add(bytes / 2).write(byte);
                to.add(bytes - 1).write(byte);
            }
            return;
        }
        let whole = bytes & !(WORD - 1);
        let blocks = bytes & !(8 * WORD - 1);
        if blocks != 0 {
            asm!(
                "2:",
                "mov [{to} + {i}], {w}",
                "mov [{to} + {i} + 8], {w}",
                "mov [{to} + {i} + 16], {w}",
                "mov [{to} + {i} + 24], {w}",
                "mov [{to} + {i} + 32], {w}",
                "mov [{to} + {i} + 40], {w}",
                "mov [{to} + {i} + 48], {w}",
                "mov [{to} + {i} + 56], {w}",
                "add {i}, 64",
                "jnz 2b",
                w = in(reg) pattern,
                to = in(reg) to.wrapping_add(blocks),
                i = inout(reg) blocks.wrapping_neg() => _,
                options(nostack),
            );
        }
        if whole != blocks {
            asm!(
                "2:",
                "mov [{to} + {i}], {w}",
                "add {i}, 8",
                "jnz 2b",
                w = in(reg) pattern,
                to = in(reg) to.wrapping_add(whole),
                i = inout(reg) blocks.wrapping_sub(whole) => _,
                options(nostack),
            );
        }
        to.add(bytes - WORD).cast::<u64>().write_unaligned(pattern);
    }
}

/// Compares bytes as unsigned numbers from the first on: negative, zero or positive.
///
/// # Safety
/// `left` and `right` are readable for `bytes` bytes.
#[inline(always)]
pub unsafe fn compare(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    let mut done = 0;
    // SAFETY: all accesses are below `bytes`.
    unsafe {
        let word = |from: *const u8, at: usize| from.add(at).cast::<u64>().read_unaligned();
        let differ = |at: usize| word(left, at) ^ word(right, at);
        // Four words at a time as long as they are equal, then word by word.
        let blocks = bytes & !(4 * WORD - 1);
        while done != blocks {
            let last = done.wrapping_add(3 * WORD);
            if differ(done)
                | differ(done.wrapping_add(8))
                | differ(done.wrapping_add(16))
                | differ(last)
                != 0
            {
                break;
            }
            done = done.wrapping_add(4 * WORD);
        }
        let whole = bytes & !(WORD - 1);
        while done != whole {
            let (l, r) = (
                word(left, done).swap_bytes(),
                word(right, done).swap_bytes(),
            );
            if l != r {
                return if l < r { -1 } else { 1 };
            }
            done = done.wrapping_add(WORD);
        }
        while done != bytes {
            // Volatile, or the compiler would call this very function.
            let l = ptr::read_volatile(left.add(done));
            let r = ptr::read_volatile(right.add(done));
            if l != r {
                return i32::from(l) - i32::from(r);
            }
            done = done.wrapping_add(1);
        }
    }
    0
}
