//! The entry points.
//!
//! They come by macro, since each program has one of the two, and only the root task carries a stack.

use crate::memory;

/// Bytes of the root task's stack. The kernel gives it none.
pub const ROOT_STACK_BYTES: usize = 256 * 1024;

/// Tells the bindings where the IPC buffer is.
///
/// # Safety
/// To be called by the entry point only: `ipc_buffer` is what the program's creator passed, null or the
/// address of this thread's IPC buffer, and nothing has run before.
#[doc(hidden)]
pub unsafe fn prepare(ipc_buffer: *mut sel4::IpcBuffer) {
    if !ipc_buffer.is_null() && ipc_buffer.is_aligned() {
        // SAFETY: the creator mapped the buffer for the program's life and made it known to the kernel; a
        // protection domain has one thread.
        unsafe { sel4::init_ipc_buffer(ipc_buffer) }
    }
}

/// Makes everything that the program may write what it was at its first start: `kept` is where that is kept, null at
/// the first start itself. The stack needs nothing: what it holds is nobody's.
///
/// # Safety
/// To be called by the entry point only, before anything that is in a static: `kept` is what the program's creator
/// passed, null or the address of as many bytes as the program's file has for its writable segment.
#[doc(hidden)]
pub unsafe fn restore(kept: *const u8) {
    unsafe extern "C" {
        /// Set by the linker script.
        static mut _data: u8;
        /// Set by the linker script.
        static _edata: u8;
        /// Set by the linker script.
        static _end: u8;
    }
    if kept.is_null() {
        return;
    }
    let first = &raw mut _data;
    let filled = (&raw const _edata).addr() - first.addr();
    let zeros = (&raw const _end).addr() - (&raw const _edata).addr();
    // SAFETY: 1. the linker script puts these bytes side by side, all of them writable; 2. no reference to a static
    // exists yet, nor does any code that ran so far know what one holds; 3. `kept` by the caller's promise.
    unsafe {
        memory::copy_up(first, kept, filled);
        memory::fill(first.add(filled), 0, zeros);
    }
}

/// Tells the bindings where the root task's IPC buffer is: every supported kernel maps it on the page below the
/// boot information (`init_sys_state` of `src/arch/x86/kernel/boot.c`), so it is known even to a program that was
/// built for another kernel than the one it runs on.
///
/// # Safety
/// To be called by the entry point only: `bootinfo` is what the kernel passed, and nothing has run before.
#[doc(hidden)]
pub unsafe fn prepare_root(bootinfo: *const u8) {
    const PAGE_BYTES: usize = 4096;
    let buffer = bootinfo.wrapping_sub(PAGE_BYTES).cast::<sel4::IpcBuffer>();
    // SAFETY: the caller's promise, and the kernel's layout. The root task has one thread.
    unsafe { prepare(buffer.cast_mut()) }
}

/// Defines the entry point of a protection domain: `entry!(main)` with `fn main(argument: u64) -> !`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        ::core::arch::global_asm!(
            ".section .text._start, \"ax\", @progbits",
            ".globl _start",
            ".type _start, @function",
            "_start:",
            "xor ebp, ebp",
            "and rsp, -16",
            "call {start}",
            "ud2",
            ".size _start, . - _start",
            ".text",
            start = sym __sel4_rt_start,
        );

        extern "C" fn __sel4_rt_start(
            argument: u64,
            ipc_buffer: *mut $crate::__IpcBuffer,
            kept: *const u8,
        ) -> ! {
            // SAFETY: this is the entry point, and the creator passed the address (see the crate's documentation).
            unsafe { $crate::restore(kept) };
            // SAFETY: this is the entry point, and the creator passed the buffer (see the crate's documentation).
            unsafe { $crate::prepare(ipc_buffer) };
            let main: fn(u64) -> ! = $main;
            main(argument)
        }
    };
}

/// Defines the entry point of the root task: `root_entry!(main)` with `fn main(bootinfo: &'static [u8]) -> !`,
/// which gets the frame of the boot information, not checked yet (`sel4::parse_bootinfo`).
#[macro_export]
macro_rules! root_entry {
    ($main:path) => {
        ::core::arch::global_asm!(
            ".section .text._start, \"ax\", @progbits",
            ".globl _start",
            ".type _start, @function",
            "_start:",
            "lea rsp, [rip + {stack} + {bytes}]",
            "xor ebp, ebp",
            "call {start}",
            "ud2",
            ".size _start, . - _start",
            ".text",
            stack = sym __SEL4_RT_STACK,
            bytes = const $crate::__ROOT_STACK_BYTES,
            start = sym __sel4_rt_start,
        );

        static __SEL4_RT_STACK: $crate::__RootStack = $crate::__RootStack::new();

        extern "C" fn __sel4_rt_start(bootinfo: *const u8) -> ! {
            // SAFETY: this is the entry point, and the kernel passes the address of the boot information,
            // whose frame stays mapped and is written by nobody.
            let frame = unsafe { ::core::slice::from_raw_parts(bootinfo, $crate::__BOOTINFO_BYTES) };
            // SAFETY: this is the entry point; the kernel maps the IPC buffer on the page below.
            unsafe { $crate::prepare_root(bootinfo) };
            let main: fn(&'static [u8]) -> ! = $main;
            main(frame)
        }
    };
}

/// Memory for the root task's stack.
#[doc(hidden)]
#[repr(C, align(16))]
pub struct RootStack(core::cell::UnsafeCell<[u8; ROOT_STACK_BYTES]>);

// SAFETY: only the processor's stack pointer refers to it.
unsafe impl Sync for RootStack {}

impl RootStack {
    #[doc(hidden)]
    #[must_use]
    pub const fn new() -> Self {
        Self(core::cell::UnsafeCell::new([0; ROOT_STACK_BYTES]))
    }
}

impl Default for RootStack {
    fn default() -> Self {
        Self::new()
    }
}
