//! [`Desk`]: where requests, faults and signals arrive in the root task.

use ipc_proto::{Badge, BadgeKind, MAX_WORDS, Message, Refusal, Rule};
use sel4::{Endpoint, Fault, Received, Reply};

use super::second::Buffers;
use crate::port::{incoming, outgoing};

/// What arrives at the supervisor's endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    /// A request; its sender waits for the answer, if it called.
    Request {
        /// Badge of the capability that was invoked.
        badge: u64,
        /// The request.
        message: Message,
    },
    /// A PD's thread cannot go on, or the PD says so itself: every PD has the capability that its faults are sent with.
    Fault {
        /// PD number.
        pd: u16,
        /// What happened; `None` when the message is no fault of the kernel's.
        fault: Option<Fault>,
    },
    /// Flags that were signalled (`system::layout::event`).
    Events(u64),
}

/// The supervisor's endpoint, or that of its second thread.
#[derive(Debug)]
pub struct Desk {
    endpoint: Endpoint,
    reply: Reply,
    buffers: Option<Buffers>,
}

impl Desk {
    /// The endpoint that all PDs have badged copies of.
    #[must_use]
    pub const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            reply: Reply::new(),
            buffers: None,
        }
    }

    /// The same for the second thread.
    pub(super) const fn of_second(endpoint: Endpoint, buffers: Buffers) -> Self {
        Self {
            endpoint,
            reply: Reply::new(),
            buffers: Some(buffers),
        }
    }

    fn wait(&mut self) -> Received {
        match &self.buffers {
            None => self.endpoint.recv(&mut self.reply),
            Some(buffers) => buffers.lent(|| self.endpoint.recv(&mut self.reply)),
        }
    }

    /// Waits in `wait` for something else than the desk, a call whose messages both fit registers: the first thread may
    /// run meanwhile, with its own IPC buffer.
    pub fn aside<R>(&self, wait: impl FnOnce() -> R) -> R {
        match &self.buffers {
            None => wait(),
            Some(buffers) => buffers.lent(wait),
        }
    }

    /// Answers the last request.
    pub fn answer(&mut self, message: &Message) {
        let (info, registers) = outgoing(message, 0);
        self.reply.send(info, registers);
    }

    /// Waits for the next arrival. Requests that are too long are refused here.
    pub fn receive(&mut self) -> Arrival {
        loop {
            let received = self.wait();
            if let Some(flags) = Badge::event_flags(received.badge) {
                return Arrival::Events(flags);
            }
            if let Some(Badge {
                kind: BadgeKind::Fault,
                index,
                ..
            }) = Badge::from_word(received.badge)
            {
                return Arrival::Fault {
                    pd: index,
                    fault: Fault::from_message(&received),
                };
            }
            if let Some(mut message) = incoming(received.info, &received.words) {
                // No slot is named for them, so only badges of this endpoint can arrive; no operation takes one.
                message.foreign_caps = received.info.extra_caps() as u8;
                return Arrival::Request {
                    badge: received.badge,
                    message,
                };
            }
            self.answer(&Refusal::new(Rule::BadLength, MAX_WORDS as u64).to_message());
        }
    }
}
