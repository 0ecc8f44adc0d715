//! Typed seL4 capabilities and their methods, a thin layer over `sel4-sys`.
//!
//! - [`cap`]: one type for each kind of capability, [`Slot`] for places in a CSpace, [`Rights`], [`CapData`];
//! - [`cnode`], [`object`], [`tcb`], [`vspace`], [`irq`], [`io`]: the kernel objects' methods, under the
//!   kernel's own names;
//! - [`ipc`]: endpoints, notifications, replies;
//! - [`fault`]: fault messages, decoded;
//! - [`check_kernel`]: whether the running kernel is the one this is built for; [`EmergencySerial`]: how to say that
//!   it is not;
//! - [`Error`]: the kernel's errors; [`debug_put_char`], [`yield_now`].
//!
//! A capability value is only a name (a `CPtr`); that it has the kind it claims is checked by the kernel
//! at every use, and an error of the kernel is an [`Error`] here. Nothing allocates, retries or logs.
//!
//! A thread with messages of more than four words or with capabilities needs its IPC buffer:
//! [`init_ipc_buffer`] tells where it is (the start code of `sel4-rt` does that).
#![no_std]

pub mod cap;
mod check;
pub mod cnode;
mod emergency;
mod error;
pub mod fault;
pub mod io;
pub mod ipc;
pub mod irq;
pub mod object;
pub mod tcb;
pub mod vspace;

pub use cap::{
    AsidControl, AsidPool, CNode, Endpoint, Frame, IoPageTable, IoPort, IoPortControl, IoSpace,
    IrqControl, IrqHandler, Notification, Null, PageDirectory, PageTable, Pdpt, Tcb, Untyped,
    VSpace,
};
pub use cap::{Badge, CPtr, CapData, Rights, Slot};
pub use check::{KernelMismatch, check_kernel};
pub use emergency::EmergencySerial;
pub use error::{Error, Result};
pub use fault::Fault;
pub use ipc::{Message, MessageInfo, Received, Reply, SavedReply};
pub use object::{FrameSize, ObjectType, Window};
pub use tcb::{TcbConfiguration, UserContext};
pub use vspace::Caching;

pub use sel4_sys::Word;
pub use sel4_sys::account::kernel_calls;
pub use sel4_sys::bootinfo::{self, BootInfo, BootInfoError, MemoryKind, UntypedDescriptor};
pub use sel4_sys::constants::{ABI, ABI_FINGERPRINT, KERNEL_VERSION, config};
pub use sel4_sys::ipc_buffer::{IpcBuffer, init as init_ipc_buffer};
pub use sel4_sys::syscall::{debug_put_char, yield_now};

/// Whether [`debug_put_char`] prints: only kernels with the debug console do.
pub const HAS_DEBUG_CONSOLE: bool = sel4_sys::constants::syscall::opt::DEBUG_PUT_CHAR.is_some();

/// Parses the boot information in the layout of the kernel this is built for.
///
/// `bytes` is the frame the kernel passes to the root task, [`bootinfo::FRAME_BYTES`] long.
///
/// # Errors
/// The first field that makes no sense.
pub fn parse_bootinfo(bytes: &[u8]) -> core::result::Result<BootInfo<'_>, BootInfoError> {
    BootInfo::parse(bytes, &sel4_sys::abi::BOOTINFO)
}
