//! The kernel's errors.

use core::fmt;

use sel4_sys::Word;
use sel4_sys::invocation::Outcome;

/// What an invocation gives. Generic in the error too, so that a glob import does not hide the prelude's.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// Why the kernel refused an invocation (`seL4_Error`, `libsel4/include/sel4/errors.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Error {
    /// An argument has no meaning for this method.
    InvalidArgument,
    /// The invoked capability, or one given as argument, has the wrong kind.
    InvalidCapability,
    /// The method is not allowed on this object in its state.
    IllegalOperation,
    /// An argument is beyond its bounds.
    RangeError,
    /// An address is not aligned.
    AlignmentError,
    /// A slot, or the page table for an address, was not found.
    FailedLookup,
    /// The message has too few words or capabilities.
    TruncatedMessage,
    /// The slot or address is occupied.
    DeleteFirst,
    /// The object still has descendants, or the interrupt is in use.
    RevokeFirst,
    /// The untyped has not that much left.
    NotEnoughMemory,
    /// The kernel of this build does not have the method (another configuration or version).
    Unsupported,
    /// A number that is not one of the kernel's errors.
    Unknown(Word),
}

impl Error {
    /// The error of a reply label, which is not 0.
    #[must_use]
    pub const fn from_label(label: Word) -> Self {
        match label {
            1 => Self::InvalidArgument,
            2 => Self::InvalidCapability,
            3 => Self::IllegalOperation,
            4 => Self::RangeError,
            5 => Self::AlignmentError,
            6 => Self::FailedLookup,
            7 => Self::TruncatedMessage,
            8 => Self::DeleteFirst,
            9 => Self::RevokeFirst,
            10 => Self::NotEnoughMemory,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidArgument => "invalid argument",
            Self::InvalidCapability => "invalid capability",
            Self::IllegalOperation => "illegal operation",
            Self::RangeError => "argument out of range",
            Self::AlignmentError => "address not aligned",
            Self::FailedLookup => "slot or page table not found",
            Self::TruncatedMessage => "message too short",
            Self::DeleteFirst => "already occupied",
            Self::RevokeFirst => "still in use, revoke first",
            Self::NotEnoughMemory => "not enough untyped memory",
            Self::Unsupported => "not a method of this kernel",
            Self::Unknown(number) => return write!(f, "kernel error {number}"),
        })
    }
}

impl core::error::Error for Error {}

/// Drops an outcome's words.
#[inline(always)]
pub(crate) fn done(outcome: Outcome) -> Result {
    match outcome {
        Ok(_) => Ok(()),
        Err(label) => Err(Error::from_label(label)),
    }
}

/// Takes an outcome's first word.
#[inline(always)]
pub(crate) fn first(outcome: Outcome) -> Result<Word> {
    match outcome {
        Ok([word, ..]) => Ok(word),
        Err(label) => Err(Error::from_label(label)),
    }
}
