//! [`Port`]: the transport of a stub over an endpoint capability; [`Below`]: the same, counted.
//!
//! A message of at most four words without a capability touches no memory that the kernel would have to
//! read: it goes through registers, on the kernel's fast path. Everything is inlined into the stub, so
//! that the compiler keeps a short [`Message`] in registers too.

use ipc_proto::{MAX_WORDS, Message, Rule, Transport};
use sel4::ipc::{self, MessageInfo, REGISTER_WORDS};
use sel4::{CPtr, Endpoint};

use crate::turns;

/// An endpoint capability that can be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Port(Endpoint);

impl Port {
    /// The endpoint at this address of the PD's CSpace.
    #[inline(always)]
    #[must_use]
    pub const fn at(cptr: CPtr) -> Self {
        Self(Endpoint::at(cptr))
    }

    /// Its address.
    #[inline(always)]
    #[must_use]
    pub const fn cptr(self) -> CPtr {
        self.0.cptr()
    }
}

impl Transport for Port {
    #[inline(always)]
    fn call(&self, request: &Message) -> Message {
        let caps = match request.cap {
            Some(cap) => {
                ipc::set_cap(0, cap);
                1
            }
            None => 0,
        };
        let (info, registers) = outgoing(request, caps);
        let reply = self.0.call(info, registers);
        incoming(reply.info, &reply.words).unwrap_or_else(|| {
            // No server of this contract answers at such length.
            Message::new(Rule::BadReply as u64)
        })
    }
}

/// [`Port`] to a server below this one: requests are counted ([`crate::turns`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Below(pub Port);

impl Transport for Below {
    #[inline(always)]
    fn call(&self, request: &Message) -> Message {
        turns::ask();
        self.0.call(request)
    }
}

/// The tag and registers that send `message`; what does not fit registers goes into the IPC buffer.
#[inline(always)]
pub(crate) fn outgoing(message: &Message, caps: usize) -> (MessageInfo, [u64; REGISTER_WORDS]) {
    let words = message.words();
    let length = words.len();
    let registers = if length <= REGISTER_WORDS {
        let [first, second, third, fourth, ..] = *message.block();
        [first, second, third, fourth]
    } else {
        ipc::store_message(words)
    };
    (MessageInfo::new(message.label, caps, length), registers)
}

/// The message that arrived with this tag and these registers, without its capabilities; `None` if it is
/// longer than the contract allows.
#[inline(always)]
pub(crate) fn incoming(info: MessageInfo, registers: &[u64; REGISTER_WORDS]) -> Option<Message> {
    let mut block = [0; MAX_WORDS];
    match info.register_length() {
        Some(length) => {
            block[..REGISTER_WORDS].copy_from_slice(registers);
            Message::received(info.label(), block, length)
        }
        None => {
            ipc::load_message(registers, &mut block);
            Message::received(info.label(), block, info.length())
        }
    }
}
