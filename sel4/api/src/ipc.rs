//! Messages and signals.
//!
//! A message is a tag ([`MessageInfo`]) and up to 120 words, four of which travel in registers. A message of
//! at most four words without capabilities touches no memory, which is what the kernel's fast path needs;
//! [`store_message`] and [`load_message`] are for longer ones.
//!
//! The right to reply is a value, [`Reply`]: on these kernels it stands for the caller that the kernel
//! remembers by itself, on an MCS kernel it would hold a reply object. Waiting for signals is kept apart
//! from receiving messages for the same reason.

use sel4_sys::syscall::{self, Registers};
use sel4_sys::{CPtr, Word, ipc_buffer};

use crate::{Endpoint, Notification, Result, Slot};

pub use sel4_sys::ipc_buffer::{
    load_message, set_cap, set_word, store_message, unwrapped_badge, word,
};
pub use sel4_sys::message::{MAX_CAPS, MAX_WORDS, MessageInfo, REGISTER_WORDS};
pub use sel4_sys::syscall::Received;

/// A reply: what a call gives back.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Label, length, capabilities.
    pub info: MessageInfo,
    /// The first four words; those past the length mean nothing.
    pub words: Registers,
}

/// The right to answer the message received last.
///
/// One a thread: on these kernels a later call or receive of the same thread forgets the caller, so what must
/// be answered later is to be saved before.
#[derive(Debug)]
pub struct Reply(());

impl Reply {
    /// The thread's reply right.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }

    /// Answers. Nothing happens if the caller is gone or was answered.
    #[inline(always)]
    pub fn send(&mut self, info: MessageInfo, words: Registers) {
        syscall::reply(info, words);
    }

    /// `CNode_SaveCaller`: keeps the right to answer in `dest`, an empty slot in the thread's own root CNode
    /// (whose index is its `CPtr`).
    ///
    /// If nobody waits for an answer the slot stays empty, and answering does nothing.
    ///
    /// # Errors
    /// `DeleteFirst` if the slot is occupied, `FailedLookup` if there is none.
    #[inline]
    pub fn save(&mut self, dest: Slot) -> Result<SavedReply> {
        dest.save_caller()?;
        Ok(SavedReply(dest.index))
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

/// The right to answer a message that was received earlier.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the caller waits until it is answered"]
pub struct SavedReply(CPtr);

impl SavedReply {
    /// The right in the slot at `cptr`.
    pub const fn at(cptr: CPtr) -> Self {
        Self(cptr)
    }

    /// Where it is.
    #[must_use]
    pub const fn cptr(&self) -> CPtr {
        self.0
    }

    /// Answers, which empties the slot. Nothing happens if the caller is gone.
    #[inline]
    pub fn send(self, info: MessageInfo, words: Registers) {
        syscall::nb_send(self.0, info, words);
    }
}

impl Endpoint {
    /// `Call`: sends and waits for the reply.
    ///
    /// At an empty slot the kernel itself replies, with the label of `InvalidCapability` (2); only a `CPtr` that
    /// resolves to no slot at all is a fault.
    #[inline(always)]
    #[must_use]
    pub fn call(self, info: MessageInfo, words: Registers) -> Message {
        let reply = syscall::call(self.cptr(), info, words);
        Message {
            info: reply.info,
            words: reply.words,
        }
    }

    /// `Send`: waits until there is a receiver.
    #[inline(always)]
    pub fn send(self, info: MessageInfo, words: Registers) {
        syscall::send(self.cptr(), info, words);
    }

    /// `NBSend`: sends if there is a receiver; nobody learns whether there was.
    #[inline(always)]
    pub fn nb_send(self, info: MessageInfo, words: Registers) {
        syscall::nb_send(self.cptr(), info, words);
    }

    /// `Recv`: waits for a message or a signal of the bound notification. `reply` then answers it.
    #[inline(always)]
    #[must_use]
    pub fn recv(self, reply: &mut Reply) -> Received {
        let Reply(()) = reply;
        syscall::recv(self.cptr())
    }

    /// `NBRecv`: takes a message if there is one; otherwise the badge is 0.
    #[inline(always)]
    #[must_use]
    pub fn nb_recv(self, reply: &mut Reply) -> Received {
        let Reply(()) = reply;
        syscall::nb_recv(self.cptr())
    }

    /// `ReplyRecv`: answers, then waits as [`Endpoint::recv`].
    #[inline(always)]
    #[must_use]
    pub fn reply_recv(self, reply: &mut Reply, info: MessageInfo, words: Registers) -> Received {
        let Reply(()) = reply;
        syscall::reply_recv(self.cptr(), info, words)
    }
}

impl Notification {
    /// `Signal`: adds the capability's badge to the word and wakes a waiter.
    #[inline(always)]
    pub fn signal(self) {
        syscall::send(self.cptr(), MessageInfo::new(0, 0, 0), [0; REGISTER_WORDS]);
    }

    /// `Wait`: the badges of all signals since the last wait, or of the next.
    #[inline(always)]
    #[must_use = "the badges are gone afterwards"]
    pub fn wait(self) -> Word {
        syscall::recv(self.cptr()).badge
    }

    /// `Poll`: the badges of all signals since the last wait; 0 if there were none.
    #[inline(always)]
    #[must_use = "the badges are gone afterwards"]
    pub fn poll(self) -> Word {
        syscall::nb_recv(self.cptr()).badge
    }
}

/// Names the empty slot that takes the next capability received.
#[inline]
pub fn set_receive_slot(slot: Slot) {
    ipc_buffer::set_receive_path(slot.root.cptr(), slot.index, slot.depth.into());
}
