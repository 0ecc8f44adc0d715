//! What a program needs before and beside its `main`: the entry point, the panic handler, memory routines.
//!
//! - [`entry!`]: the entry point of a protection domain; [`root_entry!`]: of the root task;
//! - [`set_panic_sink`], [`set_panic_hook`]: where a panic's text goes and who is told;
//! - [`DebugConsole`]: the kernel's console, on kernels that have one.
//!
//! # How a program must be built
//!
//! For the target `x86_64-unknown-linux-gnu` on stable Rust, as `no_std`, `no_main`, with the target named
//! explicitly (then `RUSTFLAGS` do not reach build scripts) and the profile `pd`:
//!
//! ```text
//! cargo build --profile pd --target x86_64-unknown-linux-gnu -p <package>
//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS =
//!     -C relocation-model=static
//!     -C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-static -C link-arg=-no-pie
//!     -C link-arg=-Wl,--build-id=none -C link-arg=-T<tree>/sel4/rt/pd.ld
//!     -C target-cpu=k8 -C no-vectorize-loops -C no-vectorize-slp
//! SEL4_CONSTANTS = <absolute path of the constants.rs that sel4-gen wrote for this kernel>
//! ```
//!
//! `pd.ld` lays out the program from 0x400000; the FS and GS bases are not used.
//!
//! The last line of flags is for speed. Floating point and SSE are free to use, but 5.0.0 switches their
//! registers at a thread's first use after another thread's: a call between two programs that both use them costs
//! 648 instead of 431 instructions. So the compiler should not use them of its own accord to copy structures:
//! `k8` is the plain instruction set of x86-64 (any processor will do), tuned for a machine on which unaligned
//! 16-byte accesses do not pay.
//!
//! # How a protection domain is started
//!
//! Its creator writes the registers rip = the ELF's entry, rsp = one past the top of the stack, rdi = the
//! argument, rsi = address of the IPC buffer (0 for none), rdx = 0, and nothing else. The stack needs no content and is
//! aligned here; the page below it should not be mapped.
//!
//! # How it is started again
//!
//! With the same registers, but rdx = address of a copy of what the file has for the writable segment (readable
//! by the domain, never written). The entry code makes that segment what it was, zeros included, before anything else. So
//! the creator needs no access to the domain's memory, and the domain, not its creator, spends the time.
//!
//! # How it ends
//!
//! A panic prints `panic: <message> at <file>:<line>` to the sink, calls the hook, and then makes the system
//! call number [`PANIC_SYSCALL`], which no kernel knows: the supervisor receives the fault
//! `UnknownSyscall { number: PANIC_SYSCALL, .. }`. Should that return, an invalid instruction follows.
#![no_std]
// A test harness brings std, which has a panic handler of its own: then there is nothing here.
#![cfg(not(test))]

mod console;
mod memory;
mod panic;
mod start;
mod symbols;

pub use console::DebugConsole;
pub use panic::{PANIC_SYSCALL, set_panic_hook, set_panic_sink};

// For the expansion of the entry macros only.
#[doc(hidden)]
pub use sel4::{IpcBuffer as __IpcBuffer, bootinfo::FRAME_BYTES as __BOOTINFO_BYTES};
#[doc(hidden)]
pub use start::{
    ROOT_STACK_BYTES as __ROOT_STACK_BYTES, RootStack as __RootStack, prepare, prepare_root,
    restore,
};
