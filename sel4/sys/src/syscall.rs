//! The system calls, one function each.
//!
//! Registers (x86_64 `syscall`): rdx number, rdi capability in and badge out, rsi message tag, r10 r8 r9
//! r15 the first four message words; rcx and r11 are lost. The kernel keeps all others but rsp, which the
//! caller must keep in a register of its own: here r14, since the MCS kernels use r12 and r13.
//!
//! Nothing here reads or writes the IPC buffer: a message of up to four words without capabilities goes
//! through registers alone, which is what the kernel's fast path needs.

use crate::constants::syscall as number;
use crate::message::MessageInfo;
use crate::{CPtr, Word};

/// The message words that travel in registers.
pub type Registers = [Word; crate::message::REGISTER_WORDS];

/// What a system call left in the registers.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// The tag of the received message.
    pub info: MessageInfo,
    /// The badge of the capability the sender used, or of the notification.
    pub badge: Word,
    /// The first four words; those past the tag's length mean nothing.
    pub words: Registers,
}

#[inline(always)]
fn raw(number: i64, cap: CPtr, info: MessageInfo, words: Registers) -> Received {
    let (mut badge, mut tag) = (cap, info.word());
    let [mut w0, mut w1, mut w2, mut w3] = words;
    // SAFETY: every register the kernel changes is an output, rsp is put back, nothing is pushed.
    // Memory the kernel writes (the IPC buffer) is covered by the missing `nomem`.
    unsafe {
        core::arch::asm!(
            "mov r14, rsp",
            "syscall",
            "mov rsp, r14",
            in("rdx") number,
            inlateout("rdi") badge,
            inlateout("rsi") tag,
            inlateout("r10") w0,
            inlateout("r8") w1,
            inlateout("r9") w2,
            inlateout("r15") w3,
            out("r14") _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    Received {
        info: MessageInfo::from_word(tag),
        badge,
        words: [w0, w1, w2, w3],
    }
}

/// A system call that sends nothing: what is in the registers of a message does not matter before it.
#[inline(always)]
fn take(number: i64, cap: CPtr) -> Received {
    let mut badge = cap;
    let (tag, w0, w1, w2, w3): (Word, Word, Word, Word, Word);
    // SAFETY: as in `raw`; the kernel reads none of the registers that are outputs alone.
    unsafe {
        core::arch::asm!(
            "mov r14, rsp",
            "syscall",
            "mov rsp, r14",
            in("rdx") number,
            inlateout("rdi") badge,
            lateout("rsi") tag,
            lateout("r10") w0,
            lateout("r8") w1,
            lateout("r9") w2,
            lateout("r15") w3,
            out("r14") _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    Received {
        info: MessageInfo::from_word(tag),
        badge,
        words: [w0, w1, w2, w3],
    }
}

const NO_INFO: MessageInfo = MessageInfo::new(0, 0, 0);
const NO_WORDS: Registers = [0; 4];

/// Sends and waits for the reply (`seL4_Call`).
#[inline(always)]
pub fn call(cap: CPtr, info: MessageInfo, words: Registers) -> Received {
    raw(number::CALL, cap, info, words)
}

/// Sends, waiting until there is a receiver (`seL4_Send`).
#[inline(always)]
pub fn send(cap: CPtr, info: MessageInfo, words: Registers) {
    raw(number::SEND, cap, info, words);
}

/// Sends if a receiver waits, otherwise does nothing (`seL4_NBSend`).
#[inline(always)]
pub fn nb_send(cap: CPtr, info: MessageInfo, words: Registers) {
    raw(number::NB_SEND, cap, info, words);
}

/// Waits for a message (`seL4_Recv`).
#[inline(always)]
pub fn recv(cap: CPtr) -> Received {
    take(number::RECV, cap)
}

/// Takes a message if there is one; otherwise the badge is 0 (`seL4_NBRecv`).
#[inline(always)]
pub fn nb_recv(cap: CPtr) -> Received {
    take(number::NB_RECV, cap)
}

/// Replies to the last caller (`seL4_Reply`; not on MCS kernels).
#[inline(always)]
pub fn reply(info: MessageInfo, words: Registers) {
    raw(number::REPLY, 0, info, words);
}

/// Replies to the last caller and waits for the next message (`seL4_ReplyRecv`).
#[inline(always)]
pub fn reply_recv(cap: CPtr, info: MessageInfo, words: Registers) -> Received {
    raw(number::REPLY_RECV, cap, info, words)
}

/// Gives the processor to another thread of the same priority (`seL4_Yield`).
#[inline(always)]
pub fn yield_now() {
    raw(number::YIELD, 0, NO_INFO, NO_WORDS);
}

/// Prints one character on the kernel's console. Does nothing on a kernel without debug printing.
#[inline]
pub fn debug_put_char(byte: u8) {
    if let Some(number) = number::opt::DEBUG_PUT_CHAR {
        raw(number, Word::from(byte), NO_INFO, NO_WORDS);
    }
}
