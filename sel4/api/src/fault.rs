//! Fault messages: what a supervisor receives when a thread cannot go on.
//!
//! A message is a fault because of the endpoint it arrives at (its badge), never because of its label alone:
//! a client can send any label. Sources: `libsel4/include/sel4/shared_types.h`,
//! `libsel4/sel4_arch_include/x86_64/sel4/sel4_arch/constants.h`, `src/api/faults.c`.

use core::fmt;

use sel4_sys::abi::fault as label;
use sel4_sys::{Word, ipc_buffer};

use crate::ipc::Received;

/// What a page fault was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Fetching an instruction.
    Fetch,
}

/// Why a capability was not found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookupFailure {
    /// The CSpace root is not a CNode.
    InvalidRoot,
    /// An empty slot, with so many bits left to resolve.
    MissingCapability {
        /// Bits left.
        bits_left: Word,
    },
    /// A CNode resolved more or fewer bits than there were.
    DepthMismatch {
        /// Bits left.
        bits_left: Word,
        /// Bits the CNode has.
        bits_found: Word,
    },
    /// A guard did not match.
    GuardMismatch {
        /// Bits left.
        bits_left: Word,
        /// The guard's value.
        guard: Word,
        /// The guard's size.
        guard_bits: Word,
    },
    /// A number that is none of the kernel's.
    Unknown(Word),
}

/// What happened to the thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It used an address that is not mapped so.
    Page {
        /// Instruction.
        ip: Word,
        /// Address.
        address: Word,
        /// What it tried.
        access: Access,
        /// The processor's error code (Intel SDM volume 3, 4.7).
        error_code: Word,
    },
    /// It named a capability that is not there.
    Capability {
        /// Instruction after the system call.
        ip: Word,
        /// The `CPtr`.
        cptr: Word,
        /// While receiving (the receive slot or endpoint) instead of sending.
        receiving: bool,
        /// Why it was not found.
        failure: LookupFailure,
    },
    /// It used a system call number that the kernel does not know.
    UnknownSyscall {
        /// Instruction after the system call.
        ip: Word,
        /// Stack pointer.
        sp: Word,
        /// The number (rdx).
        number: Word,
    },
    /// It raised a processor exception; 6 is an invalid instruction.
    Exception {
        /// Instruction.
        ip: Word,
        /// Stack pointer.
        sp: Word,
        /// Exception vector.
        number: Word,
        /// The processor's error code.
        code: Word,
    },
    /// It met a breakpoint (kernels with the debug interface).
    Debug {
        /// Instruction.
        ip: Word,
        /// Kind of breakpoint.
        reason: Word,
        /// Address that triggered, for data breakpoints.
        address: Word,
        /// Number of the breakpoint.
        breakpoint: Word,
    },
}

impl Fault {
    /// Decodes a message that arrived at a fault endpoint; `None` if its label is no fault's.
    ///
    /// Reads the IPC buffer, so it must come before the next message.
    #[must_use]
    pub fn from_message(message: &Received) -> Option<Self> {
        let words = message.words;
        let word = |index| {
            words
                .get(index)
                .copied()
                .unwrap_or_else(|| ipc_buffer::word(index))
        };
        Self::decode(message.info.label(), word)
    }

    /// The fault of a label and a way to get message word n.
    #[must_use]
    pub fn decode(label: Word, word: impl Fn(usize) -> Word) -> Option<Self> {
        Some(match label {
            label::VM => Self::Page {
                ip: word(0),
                address: word(1),
                access: access(&word),
                error_code: word(3),
            },
            label::CAP => Self::Capability {
                ip: word(0),
                cptr: word(1),
                receiving: word(2) != 0,
                failure: lookup_failure(word(3), [word(4), word(5), word(6)]),
            },
            label::UNKNOWN_SYSCALL => Self::UnknownSyscall {
                ip: word(15),
                sp: word(16),
                number: word(18),
            },
            label::USER_EXCEPTION => Self::Exception {
                ip: word(0),
                sp: word(1),
                number: word(3),
                code: word(4),
            },
            label::DEBUG_EXCEPTION => Self::Debug {
                ip: word(0),
                reason: word(1),
                address: word(2),
                breakpoint: word(3),
            },
            _ => return None,
        })
    }

    /// The instruction it stopped at.
    #[must_use]
    pub const fn ip(&self) -> Word {
        match *self {
            Self::Page { ip, .. }
            | Self::Capability { ip, .. }
            | Self::UnknownSyscall { ip, .. }
            | Self::Exception { ip, .. }
            | Self::Debug { ip, .. } => ip,
        }
    }
}

/// Bit 1 of the error code is a write, bit 4 a fetch. But the processor tells a fetch apart only where it can
/// forbid one (NX), which 5.0.0 never does: then a read of the very instruction was a fetch.
fn access(word: &impl Fn(usize) -> Word) -> Access {
    let (ip, address, instruction_fault, error_code) = (word(0), word(1), word(2), word(3));
    if instruction_fault != 0 || error_code & 0x10 != 0 {
        Access::Fetch
    } else if error_code & 2 != 0 {
        Access::Write
    } else if ip == address {
        Access::Fetch
    } else {
        Access::Read
    }
}

fn lookup_failure(kind: Word, [bits_left, second, third]: [Word; 3]) -> LookupFailure {
    match kind {
        1 => LookupFailure::InvalidRoot,
        2 => LookupFailure::MissingCapability { bits_left },
        3 => LookupFailure::DepthMismatch {
            bits_left,
            bits_found: second,
        },
        4 => LookupFailure::GuardMismatch {
            bits_left,
            guard: second,
            guard_bits: third,
        },
        other => LookupFailure::Unknown(other),
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Fetch => "fetch",
        })
    }
}

impl fmt::Display for LookupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRoot => f.write_str("the CSpace root is no CNode"),
            Self::MissingCapability { bits_left } => write!(f, "empty slot, {bits_left} bits left"),
            Self::DepthMismatch {
                bits_left,
                bits_found,
            } => {
                write!(f, "{bits_left} bits left, the CNode has {bits_found}")
            }
            Self::GuardMismatch {
                bits_left,
                guard,
                guard_bits,
            } => {
                write!(
                    f,
                    "guard {guard:#x} of {guard_bits} bits does not match, {bits_left} bits left"
                )
            }
            Self::Unknown(kind) => write!(f, "lookup failure {kind}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page {
                ip,
                address,
                access,
                error_code,
            } => {
                write!(
                    f,
                    "page fault: {access} of {address:#x} at {ip:#x} (error code {error_code:#x})"
                )
            }
            Self::Capability {
                ip,
                cptr,
                receiving,
                failure,
            } => {
                let phase = if *receiving { "receive" } else { "send" };
                write!(
                    f,
                    "capability fault: {phase} with {cptr:#x} at {ip:#x}: {failure}"
                )
            }
            Self::UnknownSyscall { ip, number, .. } => {
                write!(f, "unknown system call {} at {ip:#x}", *number as i64)
            }
            Self::Exception {
                ip, number, code, ..
            } => {
                write!(f, "exception {number} at {ip:#x} (error code {code:#x})")
            }
            Self::Debug {
                ip,
                reason,
                address,
                breakpoint,
            } => write!(
                f,
                "debug exception {reason} at {ip:#x} (breakpoint {breakpoint}, address {address:#x})"
            ),
        }
    }
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
