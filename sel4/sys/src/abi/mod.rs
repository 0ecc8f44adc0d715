//! Everything that differs between the supported kernels, behind one interface.
//!
//! Two back ends have the same items: `v5` (seL4 5.0.0) and `modern` (13 to 16, classic scheduling). The
//! build script picks one by the generated constants. Nothing outside this folder asks for the version.

use crate::bootinfo;
use crate::invocation::Outcome;
use crate::{CPtr, Word};

#[cfg(sel4_abi = "modern")]
mod modern;
#[cfg(sel4_abi = "v5")]
mod v5;

#[cfg(sel4_abi = "modern")]
use modern as backend;
#[cfg(sel4_abi = "v5")]
use v5 as backend;

pub use backend::{
    HUGE_PAGE, IO_PAGE_TABLE, USER_CONTEXT_WORDS, X86_IO_PAGE_TABLE_MAP, X86_IO_PAGE_TABLE_UNMAP,
    X86_PAGE_MAP_IO,
};

/// Bits of a badge that common code may use: what 5.0.0 has (later kernels have 64).
/// A debug build of 5.0.0 halts on a larger badge, so it must never be passed one.
pub const BADGE_BITS: u32 = 28;

/// Where the boot information's fields are.
pub const BOOTINFO: bootinfo::Layout = backend::BOOTINFO;

/// The right to send (bit of a rights word as this interface takes it).
pub const RIGHT_WRITE: Word = 1;
/// The right to receive, and of a frame to read.
pub const RIGHT_READ: Word = 2;
/// The right to send capabilities.
pub const RIGHT_GRANT: Word = 4;
/// The right to be replied to. 5.0.0 does not have it and wants [`RIGHT_GRANT`] of a caller instead.
pub const RIGHT_GRANT_REPLY: Word = 8;

/// Fault message labels (`seL4_Fault_tag`), the same in every classic kernel.
pub mod fault {
    /// No fault.
    pub const NULL: u64 = 0;
    /// A capability could not be found.
    pub const CAP: u64 = 1;
    /// A system call number the kernel does not know.
    pub const UNKNOWN_SYSCALL: u64 = 2;
    /// A processor exception other than a page fault.
    pub const USER_EXCEPTION: u64 = 3;
    /// Breakpoint or single step, where the kernel has the debug interface.
    pub const DEBUG_EXCEPTION: u64 = 4;
    /// A page fault.
    pub const VM: u64 = 5;
}

/// What `TCB_Configure` and the scheduling parameters need, whatever calls they take.
#[derive(Clone, Copy, Debug)]
pub struct TcbParameters {
    /// Fault endpoint, named in the configured thread's own CSpace; 0 for none.
    pub fault_endpoint: CPtr,
    /// A thread whose maximum controlled priority allows the two priorities.
    pub authority: CPtr,
    /// Priority, 0..=255.
    pub priority: u8,
    /// Highest priority the thread may give to others.
    pub max_controlled_priority: u8,
    /// CSpace root.
    pub cspace: CPtr,
    /// Guard word for the CSpace root, 0 to leave it.
    pub cspace_guard: Word,
    /// VSpace root.
    pub vspace: CPtr,
    /// Address of the IPC buffer, 0 for none.
    pub ipc_buffer: Word,
    /// Frame of the IPC buffer.
    pub ipc_buffer_frame: CPtr,
}

/// The rights word of this kernel for a set of `RIGHT_*` bits.
#[inline(always)]
#[must_use]
pub const fn rights(bits: Word) -> Word {
    backend::rights(bits)
}

/// The word that gives a CNode capability a guard of `size` bits with the value `guard`.
#[inline(always)]
#[must_use]
pub const fn guard(guard: Word, size: u8) -> Word {
    backend::guard(guard, size)
}

/// Makes a capability for the IO ports `first..=last` in the slot `dest` (root, index, depth), from the
/// authority over ports in the slot `control`, which must lie in the caller's own root CNode.
///
/// # Errors
/// The kernel's error number.
pub fn issue_io_ports(
    control: (CPtr, Word, u8),
    first: u16,
    last: u16,
    dest: (CPtr, Word, u8),
) -> Outcome {
    backend::issue_io_ports(control, first, last, dest)
}

/// Gives a thread its spaces, IPC buffer, fault endpoint and priorities.
///
/// # Errors
/// The kernel's error number. A kernel that needs two calls may have carried out the first.
pub fn configure_tcb(tcb: CPtr, parameters: &TcbParameters) -> Outcome {
    backend::configure_tcb(tcb, parameters)
}

/// Changes a thread's priority on the authority of another (which 5.0.0 takes to be the caller).
///
/// # Errors
/// The kernel's error number.
pub fn set_priority(tcb: CPtr, authority: CPtr, priority: u8) -> Outcome {
    backend::set_priority(tcb, authority, priority)
}

/// Unmaps a frame; one that is not mapped is no error.
///
/// # Errors
/// The kernel's error number.
#[inline(always)]
pub fn unmap_page(frame: CPtr) -> Outcome {
    backend::unmap_page(frame)
}
