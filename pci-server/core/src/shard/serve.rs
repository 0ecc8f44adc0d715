//! [`Shard::serve`]: from a message to its operation, and back. What the operations do is in [`super::service`].

use core::cell::Cell;

use ipc_proto::pci::{self, ConfigReadReply};
use ipc_proto::{Arrival, Badge, BadgeKind, MAX_WORDS, Message, label};

use super::Shard;
use crate::env::Env;

/// Labels of the operations that a driver may ask for at any time.
const READ: u64 = label(pci::TABLE, "ConfigRead");
const WRITE: u64 = label(pci::TABLE, "ConfigWrite");

/// Most arguments of an operation.
const ARGUMENTS: usize = 6;

/// What an operation reads of a request.
struct Brief {
    label: u64,
    words: [u64; ARGUMENTS],
    length: usize,
    cap: Option<u64>,
    foreign_caps: u8,
}

impl Brief {
    #[inline(always)]
    fn of(request: &Message) -> Self {
        let [first, second, third, fourth, fifth, sixth, ..] = *request.block();
        Self {
            label: request.label,
            words: [first, second, third, fourth, fifth, sixth],
            length: request.words().len(),
            cap: request.cap,
            foreign_caps: request.foreign_caps,
        }
    }

    #[inline(always)]
    fn message(&self) -> Message {
        let mut block = [0; MAX_WORDS];
        block[..ARGUMENTS].copy_from_slice(&self.words);
        let mut message = Message::received(self.label, block, self.length)
            // It was the length of a message.
            .unwrap_or(Message::new(self.label));
        message.cap = self.cap;
        message.foreign_caps = self.foreign_caps;
        message
    }
}

const _: () = {
    assert!(READ != 0 && WRITE != 0);
    let mut row = 0;
    while row < pci::TABLE.len() {
        assert!(pci::TABLE[row].arguments.len() <= ARGUMENTS);
        row += 1;
    }
};

impl<E: Env> Shard<'_, E> {
    /// Serves one request: what `send` makes of the answer, `None` when the request was parked.
    #[inline(always)]
    pub fn serve<R>(
        &mut self,
        badge: u64,
        message: &Message,
        send: impl Fn(&Message) -> R,
    ) -> Option<R> {
        self.serve_at_once(&(badge, message), &send)
            .or_else(|| self.serve_any(badge, message, send))
    }

    /// Serves the accesses to configuration space that need nothing but their register. With `None` nothing has
    /// happened, whatever the reason, and the request is for [`Self::serve_any`].
    #[inline(always)]
    pub fn serve_at_once<R>(
        &mut self,
        request: &impl Arrival,
        send: impl Fn(&Message) -> R,
    ) -> Option<R> {
        if !Badge::is(request.badge(), BadgeKind::Device) {
            return None;
        }
        if let Some(message) = request.plain(READ, 2) {
            let badge = pci::check(request.badge(), &message).ok()?;
            let (call, (offset, width)) = pci::arguments::config_read(badge, &message).ok()?;
            let value = self.read_plainly(call.badge, offset, width)?;
            self.operations = self.operations.wrapping_add(1);
            return Some(send(&ConfigReadReply { value }.encode()));
        }
        let message = request.plain(WRITE, 3)?;
        let badge = pci::check(request.badge(), &message).ok()?;
        let (call, (offset, width, value)) = pci::arguments::config_write(badge, &message).ok()?;
        let reply = self.write_plainly(call.badge, offset, width, value)?;
        self.operations = self.operations.wrapping_add(1);
        Some(send(&reply.encode()))
    }

    /// Serves any request.
    #[inline(always)]
    pub fn serve_any<R>(
        &mut self,
        badge: u64,
        message: &Message,
        send: impl Fn(&Message) -> R,
    ) -> Option<R> {
        self.operations = self.operations.wrapping_add(1);
        self.serve_brief(badge, &Brief::of(message), send)
    }

    /// Serves any operation, out of the server's loop: there the compiler would prepare the arguments of all of
    /// them before it knows which it is, and keep each message in memory.
    #[inline(never)]
    fn serve_brief<R>(
        &mut self,
        badge: u64,
        request: &Brief,
        send: impl Fn(&Message) -> R,
    ) -> Option<R> {
        let refused = Cell::new(0);
        let reply = pci::serve(self, badge, &request.message(), |reply| {
            refused.set(u64::from(reply.label != 0));
            send(reply)
        });
        self.refused = self.refused.wrapping_add(refused.get());
        reply
    }
}
