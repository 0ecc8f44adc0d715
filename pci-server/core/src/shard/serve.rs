//! [`Shard::serve`]: from a message to its operation, and back. What the operations do is in [`super::service`].

use core::cell::Cell;

use ipc_proto::pci::{self, ConfigReadReply};
use ipc_proto::{MAX_WORDS, Message, label};

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
        self.operations = self.operations.wrapping_add(1);
        // Served in place. Whatever is wrong with them is for `serve_any` to say: it starts from the message again, and
        // a refused access has changed nothing.
        if message.label == READ
            && let Ok(checked) = pci::check(badge, message)
            && let Ok((call, (offset, width))) = pci::arguments::config_read(checked, message)
            && let Some(value) = self.read_plainly(call.badge, offset, width)
        {
            return Some(send(&ConfigReadReply { value }.encode()));
        }
        if message.label == WRITE
            && let Ok(checked) = pci::check(badge, message)
            && let Ok((call, (offset, width, value))) =
                pci::arguments::config_write(checked, message)
            && let Some(reply) = self.write_plainly(call.badge, offset, width, value)
        {
            return Some(send(&reply.encode()));
        }
        self.serve_any(badge, &Brief::of(message), send)
    }

    /// Serves any operation, out of the server's loop: there the compiler would prepare the arguments of all of
    /// them before it knows which it is, and keep each message in memory.
    #[inline(never)]
    fn serve_any<R>(
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
