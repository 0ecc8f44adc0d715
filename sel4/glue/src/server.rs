//! [`Server`]: the receiving end of a PD's endpoint.
//!
//! One receive yields either a request or the flags of the PD's bound notification:
//!
//! ```text
//! let mut server = Server::new(pd);
//! let mut incoming = server.receive();
//! loop {
//!     let reply = match incoming {
//!         Incoming::Request { badge, message } => pci::dispatch(&mut core, badge, &message),
//!         Incoming::Events(flags) => { core.on_events(flags); None }
//!     };
//!     incoming = server.reply_and_receive(reply);
//! }
//! ```
//! `None` replies to nobody: after an event, or after a request that was parked ([`crate::Parking`]).

use ipc_proto::{Arrival, Badge, MAX_WORDS, Message, PLAIN_WORDS, Refusal, Rule};
use sel4::ipc::{self, MessageInfo, REGISTER_WORDS, Received};
use sel4::{CNode, Endpoint, Reply, Slot};
use system::layout::slot;

use crate::Pd;
use crate::port::{incoming, outgoing};
use crate::turns;

/// What a receive yields.
#[derive(Clone, Copy, Debug)]
pub enum Incoming {
    /// A request. Its sender waits for the reply, if it called.
    Request {
        /// Badge of the capability that was invoked, for `dispatch`.
        badge: u64,
        /// The request. Capabilities that came along are counted in it and gone already.
        message: Message,
    },
    /// Flags that were signalled on the PD's event notification (`system::layout::event`).
    Events(u64),
}

/// An answer on its way: what travels in registers. What does not is in the IPC buffer already, so an
/// answer is to be sent before anything else is called.
#[derive(Clone, Copy, Debug)]
#[must_use = "the caller waits"]
pub struct Answer {
    info: MessageInfo,
    registers: [u64; REGISTER_WORDS],
}

impl Answer {
    /// The answer that this message is.
    #[inline(always)]
    pub fn new(message: &Message) -> Self {
        let (info, registers) = outgoing(message, 0);
        Self { info, registers }
    }
}

/// What was received, not taken apart: to be told by one comparison ([`Arrival::plain`]), else to be opened by
/// [`Server::open`].
#[derive(Clone, Copy, Debug)]
#[must_use = "its sender waits"]
pub struct Arrived(Received);

impl Arrival for Arrived {
    #[inline(always)]
    fn badge(&self) -> u64 {
        self.0.badge
    }
    /// After an event the tag is what this PD has sent last: its badge is no request's.
    #[inline(always)]
    fn is_plain(&self, label: u64, words: usize) -> bool {
        self.0.info == MessageInfo::new(label, 0, words)
    }
    #[inline(always)]
    fn first_words(&self) -> [u64; PLAIN_WORDS] {
        self.0.words
    }
}

const _: () = assert!(PLAIN_WORDS == REGISTER_WORDS);

/// A PD's endpoint, to be received from.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    reply: Reply,
    receive_slot: Slot,
}

impl Server {
    /// The endpoint of this PD, which becomes ready to receive capabilities.
    #[must_use]
    pub fn new(pd: &Pd) -> Self {
        let receive_slot = CNode::at(slot::CNODE).slot_at(slot::RECEIVE, pd.info().cnode_bits);
        if pd.restarts() > 0 {
            // It died before it had deleted what came along with a request. Failure would mean that there is no slot.
            let _ = receive_slot.delete();
        }
        ipc::set_receive_slot(receive_slot);
        Self {
            endpoint: Endpoint::at(slot::ENDPOINT),
            reply: Reply::new(),
            receive_slot,
        }
    }

    /// Waits for a request or event.
    #[inline(always)]
    pub fn receive(&mut self) -> Incoming {
        let received = self.wait();
        self.accept(received)
    }

    /// Answers the last request with `reply`, then waits as [`Self::receive`].
    /// With `None` nobody is answered.
    #[inline(always)]
    pub fn reply_and_receive(&mut self, reply: Option<Answer>) -> Incoming {
        let received = match reply {
            Some(answer) => self.send(answer),
            None => self.wait(),
        };
        self.accept(received)
    }

    /// Answers the last request with `reply` and waits for the next one; flags that come meanwhile go to `on_event`.
    /// The shortest way for a server whose loop is one operation: what is known of a request is then not mixed
    /// with what is not known of an event.
    #[inline(always)]
    pub fn next_request(
        &mut self,
        reply: Option<Answer>,
        mut on_event: impl FnMut(u64),
    ) -> (u64, Message) {
        let mut received = match reply {
            Some(answer) => self.send(answer),
            None => self.wait(),
        };
        loop {
            if let Some(flags) = Badge::event_flags(received.badge) {
                on_event(flags);
                received = self.wait();
                continue;
            }
            match self.request(&received) {
                Some(message) => return (received.badge, message),
                None => received = self.refuse_length(),
            }
        }
    }

    /// Waits; what comes is as it came.
    #[inline(always)]
    pub fn arrival(&mut self) -> Arrived {
        Arrived(self.wait())
    }

    /// Answers the last request, then waits as [`Self::arrival`].
    #[inline(always)]
    pub fn answer(&mut self, answer: Answer) -> Arrived {
        Arrived(self.send(answer))
    }

    /// Takes apart what has arrived, before anything else is received. What is too long for a [`Message`] is refused
    /// here, and whatever comes then is given.
    #[inline(always)]
    pub fn open(&mut self, Arrived(received): Arrived) -> Incoming {
        self.accept(received)
    }

    /// Takes what is there without waiting; `None` when nothing is.
    pub fn try_receive(&mut self) -> Option<Incoming> {
        let received = self.endpoint.nb_recv(&mut self.reply);
        // No capability that a sender could have has the badge 0.
        (received.badge != 0).then(|| self.accept(received))
    }

    /// Answers the last request.
    pub fn reply(&mut self, answer: Answer) {
        self.reply.send(answer.info, answer.registers);
    }

    /// Waits, without an answer to anybody. A turn of the loop ends with the waiting, and one begins after it.
    #[inline(always)]
    fn wait(&mut self) -> Received {
        turns::end();
        let received = self.endpoint.recv(&mut self.reply);
        turns::begin();
        received
    }

    /// The same, and answers the last request.
    #[inline(always)]
    fn send(&mut self, answer: Answer) -> Received {
        turns::end();
        let received = self
            .endpoint
            .reply_recv(&mut self.reply, answer.info, answer.registers);
        turns::begin();
        received
    }

    /// Turns what was received into a request or an event; refuses by itself what is too long for a [`Message`].
    #[inline(always)]
    fn accept(&mut self, mut received: Received) -> Incoming {
        // Ends with the first message that is short enough; each round has answered one sender.
        loop {
            if let Some(flags) = Badge::event_flags(received.badge) {
                return Incoming::Events(flags);
            }
            match self.request(&received) {
                Some(message) => {
                    return Incoming::Request {
                        badge: received.badge,
                        message,
                    };
                }
                None => received = self.refuse_length(),
            }
        }
    }

    /// The request that was received; `None` if it is too long.
    #[inline(always)]
    fn request(&mut self, received: &Received) -> Option<Message> {
        let caps = if received.info.extra_caps() == 0 {
            (None, 0)
        } else {
            self.take_caps(received)
        };
        let mut message = incoming(received.info, &received.words)?;
        (message.cap, message.foreign_caps) = caps;
        Some(message)
    }

    #[cold]
    #[inline(never)]
    fn refuse_length(&mut self) -> Received {
        self.send(Answer::new(
            &Refusal::new(Rule::BadLength, MAX_WORDS as u64).to_message(),
        ))
    }

    /// What came along: the badge of the first capability if it is one of this PD's own endpoint (the kernel
    /// hands over its badge instead of the capability), and how many others. A capability that really was
    /// transferred is deleted: nothing here ever uses one.
    #[cold]
    #[inline(never)]
    fn take_caps(&mut self, received: &Received) -> (Option<u64>, u8) {
        let count = received.info.extra_caps();
        let unwrapped = received.info.caps_unwrapped();
        if usize::try_from(unwrapped.count_ones()) != Ok(count) {
            // Failure would mean the slot does not exist; then nothing was received into it either.
            let _ = self.receive_slot.delete();
        }
        let own = (unwrapped & 1 != 0).then(|| ipc::unwrapped_badge(0));
        (own, (count - usize::from(own.is_some())) as u8)
    }
}
