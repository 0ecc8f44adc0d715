//! Calling a method of a kernel object: a `Call` whose reply's label is the error.

use crate::message::{MAX_CAPS, MAX_WORDS, MessageInfo, REGISTER_WORDS};
use crate::syscall::{self, Registers};
use crate::{CPtr, Word, account, ipc_buffer};

/// The kernel's answer: the words it returned, or its error number (`seL4_Error`, never 0).
pub type Outcome = Result<Registers, Word>;

/// Invokes `label` on `cap` with `args` as message words and `caps` as capability arguments.
///
/// The IPC buffer is touched only for arguments past the fourth and for capabilities.
///
/// # Errors
/// The label of the kernel's reply, when it is not 0.
#[inline(always)]
pub fn invoke<const ARGS: usize, const CAPS: usize>(
    cap: CPtr,
    label: Word,
    args: [Word; ARGS],
    caps: [CPtr; CAPS],
) -> Outcome {
    const { assert!(ARGS <= MAX_WORDS && CAPS <= MAX_CAPS) };
    let mut words = [0; REGISTER_WORDS];
    for (index, arg) in args.into_iter().enumerate() {
        match words.get_mut(index) {
            Some(word) => *word = arg,
            None => ipc_buffer::set_word(index, arg),
        }
    }
    for (index, argument) in caps.into_iter().enumerate() {
        ipc_buffer::set_cap(index, argument);
    }
    let reply = account::counted(|| syscall::call(cap, MessageInfo::new(label, CAPS, ARGS), words));
    match reply.info.label() {
        0 => Ok(reply.words),
        error => Err(error),
    }
}
