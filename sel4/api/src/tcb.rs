//! Threads.

use sel4_sys::abi::{self, TcbParameters, USER_CONTEXT_WORDS};
use sel4_sys::constants::label;
use sel4_sys::invocation::invoke;
use sel4_sys::{CPtr, Word, ipc_buffer};

use crate::error::done;
use crate::{CNode, CapData, Error, Frame, Notification, Result, Tcb, VSpace};

/// What a new thread needs.
#[derive(Clone, Copy, Debug)]
pub struct TcbConfiguration {
    /// Where its faults go: an endpoint capability in *the thread's own* CSpace; 0 for nowhere.
    pub fault_endpoint: CPtr,
    /// Its CSpace root.
    pub cspace: CNode,
    /// Guard for the CSpace root, [`CapData::NONE`] to leave the one the capability has.
    pub cspace_data: CapData,
    /// Its address space.
    pub vspace: VSpace,
    /// Where in that address space its IPC buffer is (1024-byte aligned), and the frame. Neither: no buffer.
    pub ipc_buffer: Option<(Word, Frame)>,
    /// A thread, usually the caller's own, whose maximum controlled priority covers the next two.
    pub authority: Tcb,
    /// Priority, higher runs first.
    pub priority: u8,
    /// Highest priority the thread may give to others.
    pub max_controlled_priority: u8,
}

/// A thread's registers, in the kernel's order (`seL4_UserContext`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the processor's own names")]
pub struct UserContext {
    pub rip: Word,
    pub rsp: Word,
    pub rflags: Word,
    pub rax: Word,
    pub rbx: Word,
    pub rcx: Word,
    pub rdx: Word,
    pub rsi: Word,
    pub rdi: Word,
    pub rbp: Word,
    pub r8: Word,
    pub r9: Word,
    pub r10: Word,
    pub r11: Word,
    pub r12: Word,
    pub r13: Word,
    pub r14: Word,
    pub r15: Word,
    pub fs_base: Word,
}

/// Registers in a [`UserContext`]. Kernels with a GS base have it after these, and it stays as it is.
const CONTEXT_WORDS: usize = 19;
const _: () = assert!(CONTEXT_WORDS <= USER_CONTEXT_WORDS);

impl UserContext {
    /// The words in the kernel's order.
    #[must_use]
    pub const fn words(&self) -> [Word; CONTEXT_WORDS] {
        [
            self.rip,
            self.rsp,
            self.rflags,
            self.rax,
            self.rbx,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.rbp,
            self.r8,
            self.r9,
            self.r10,
            self.r11,
            self.r12,
            self.r13,
            self.r14,
            self.r15,
            self.fs_base,
        ]
    }

    /// The registers of words in the kernel's order.
    #[must_use]
    pub const fn from_words(w: &[Word; CONTEXT_WORDS]) -> Self {
        Self {
            rip: w[0],
            rsp: w[1],
            rflags: w[2],
            rax: w[3],
            rbx: w[4],
            rcx: w[5],
            rdx: w[6],
            rsi: w[7],
            rdi: w[8],
            rbp: w[9],
            r8: w[10],
            r9: w[11],
            r10: w[12],
            r11: w[13],
            r12: w[14],
            r13: w[15],
            r14: w[16],
            r15: w[17],
            fs_base: w[18],
        }
    }
}

/// What becomes of a thread whose registers are read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// It stays as it is.
    Leave,
    /// It runs (after writing), or is stopped (before reading).
    Switch,
}

impl Tcb {
    /// `TCB_Configure`, with the priorities where the kernel sets them apart.
    ///
    /// # Errors
    /// `IllegalOperation` if a root is of the wrong kind or the IPC buffer's frame is device memory;
    /// `AlignmentError` for its address; `RangeError` if the authority does not cover a priority.
    pub fn configure(self, configuration: &TcbConfiguration) -> Result {
        // A null buffer needs no frame, but the message needs a third capability: any will do.
        let (address, frame) = match configuration.ipc_buffer {
            Some((address, frame)) => (address, frame.cptr()),
            None => (0, configuration.vspace.cptr()),
        };
        done(abi::configure_tcb(
            self.cptr(),
            &TcbParameters {
                fault_endpoint: configuration.fault_endpoint,
                authority: configuration.authority.cptr(),
                priority: configuration.priority,
                max_controlled_priority: configuration.max_controlled_priority,
                cspace: configuration.cspace.cptr(),
                cspace_guard: configuration.cspace_data.word(),
                vspace: configuration.vspace.cptr(),
                ipc_buffer: address,
                ipc_buffer_frame: frame,
            },
        ))
    }

    /// `TCB_WriteRegisters`. With [`Then::Switch`] the thread runs afterwards.
    ///
    /// # Errors
    /// `IllegalOperation` on the caller's own thread.
    pub fn write_registers(self, context: &UserContext, then: Then) -> Result {
        let mut args = [0; CONTEXT_WORDS + 2];
        let [flags, count, registers @ ..] = &mut args;
        *flags = Word::from(then == Then::Switch);
        *count = CONTEXT_WORDS as Word;
        *registers = context.words();
        done(invoke(self.cptr(), label::TCB_WRITE_REGISTERS, args, []))
    }

    /// `TCB_ReadRegisters`. With [`Then::Switch`] the thread is suspended first.
    ///
    /// # Errors
    /// `IllegalOperation` on the caller's own thread.
    pub fn read_registers(self, then: Then) -> Result<UserContext> {
        let args = [Word::from(then == Then::Switch), CONTEXT_WORDS as Word];
        let registers =
            invoke(self.cptr(), label::TCB_READ_REGISTERS, args, []).map_err(Error::from_label)?;
        let mut words = [0; CONTEXT_WORDS];
        ipc_buffer::load_message(&registers, &mut words);
        Ok(UserContext::from_words(&words))
    }

    /// `TCB_Resume`: runs, repeating the system call it was stopped in.
    ///
    /// # Errors
    /// Only for a capability of another kind.
    #[inline]
    pub fn resume(self) -> Result {
        done(invoke(self.cptr(), label::TCB_RESUME, [], []))
    }

    /// `TCB_Suspend`: stops, leaving any queue it waits in.
    ///
    /// # Errors
    /// Only for a capability of another kind.
    #[inline]
    pub fn suspend(self) -> Result {
        done(invoke(self.cptr(), label::TCB_SUSPEND, [], []))
    }

    /// `TCB_SetPriority`, on the authority of another thread (5.0.0: of the caller).
    ///
    /// # Errors
    /// `RangeError` if the authority does not cover the priority.
    #[inline]
    pub fn set_priority(self, authority: Tcb, priority: u8) -> Result {
        done(abi::set_priority(self.cptr(), authority.cptr(), priority))
    }

    /// `TCB_SetAffinity`: moves the thread to another core.
    ///
    /// # Errors
    /// `IllegalOperation` if there is no such core; `Unsupported` on a single-core kernel, for any core but 0.
    #[inline]
    pub fn set_affinity(self, core: Word) -> Result {
        match label::opt::TCB_SET_AFFINITY {
            Some(label) => done(invoke(self.cptr(), label, [core], [])),
            None if core == 0 => Ok(()),
            None => Err(Error::Unsupported),
        }
    }

    /// `TCB_BindNotification`: its signals arrive also while the thread waits on an endpoint.
    ///
    /// # Errors
    /// `IllegalOperation` if either is bound already or threads wait on the notification.
    #[inline]
    pub fn bind_notification(self, notification: Notification) -> Result {
        done(invoke(
            self.cptr(),
            label::TCB_BIND_NOTIFICATION,
            [],
            [notification.cptr()],
        ))
    }

    /// `TCB_UnbindNotification`.
    ///
    /// # Errors
    /// `IllegalOperation` if none is bound.
    #[inline]
    pub fn unbind_notification(self) -> Result {
        done(invoke(self.cptr(), label::TCB_UNBIND_NOTIFICATION, [], []))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_keep_their_places() {
        let words: [Word; CONTEXT_WORDS] = core::array::from_fn(|i| i as Word);
        let context = UserContext::from_words(&words);
        assert_eq!(
            (
                context.rip,
                context.rsp,
                context.rdi,
                context.rbp,
                context.fs_base
            ),
            (0, 1, 8, 9, 18)
        );
        assert_eq!(context.words(), words);
    }
}
