//! [`Shard::serve`]: from a message to its operation, and back.

use core::cell::Cell;

use ipc_proto::iommu::{self, Service as _};
use ipc_proto::{MAX_WORDS, Message, Refusal, Reply, label};

use super::Shard;
use crate::backend::Backend;
use crate::env::Env;

/// Labels of the operations on each packet's way.
const MAP: u64 = label(iommu::TABLE, "Map");
const UNMAP: u64 = label(iommu::TABLE, "Unmap");

/// What an operation reads of a request.
struct Brief {
    label: u64,
    words: [u64; ARGUMENTS],
    length: usize,
    cap: Option<u64>,
    foreign_caps: u8,
}

/// Most arguments of an operation.
const ARGUMENTS: usize = 4;

impl Brief {
    #[inline(always)]
    fn of(request: &Message) -> Self {
        let [first, second, third, fourth, ..] = *request.block();
        Self {
            label: request.label,
            words: [first, second, third, fourth],
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
    assert!(MAP != 0 && UNMAP != 0);
    let mut row = 0;
    while row < iommu::TABLE.len() {
        assert!(iommu::TABLE[row].arguments.len() <= ARGUMENTS);
        row += 1;
    }
};

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Serves one request that came over a capability with `badge`; `send` gets the reply, and what
    /// it makes of it is returned (see `ipc_proto::iommu::serve`).
    #[inline(always)]
    pub fn serve<R>(
        &mut self,
        badge: u64,
        request: &Message,
        send: impl Fn(&Message) -> R,
    ) -> Option<R> {
        self.operations = self.operations.wrapping_add(1);
        // What a driver asks for each packet is served in place. Whatever is wrong with it is for `serve_any` to say.
        if let Ok(checked) = iommu::check(badge, request) {
            if request.label == MAP
                && let Ok((call, (iova, access, context))) = iommu::arguments::map(checked, request)
            {
                let outcome = self.map(call, iova, access, context);
                return self.answer(outcome, iommu::MapReply::encode, send);
            }
            if request.label == UNMAP
                && let Ok((call, ())) = iommu::arguments::unmap(checked, request)
            {
                let outcome = self.unmap(call);
                return self.answer(outcome, iommu::UnmapReply::encode, send);
            }
        }
        self.serve_any(badge, &Brief::of(request), send)
    }

    #[inline(always)]
    fn answer<T, R>(
        &mut self,
        outcome: Result<Reply<T>, Refusal>,
        encode: impl FnOnce(T) -> Message,
        send: impl Fn(&Message) -> R,
    ) -> Option<R> {
        match outcome {
            Ok(Reply::Now(reply)) => Some(send(&encode(reply))),
            Ok(Reply::Later) => None,
            Err(refusal) => {
                self.refused = self.refused.wrapping_add(1);
                Some(send(&refusal.to_message()))
            }
        }
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
        let refused = Cell::new(false);
        let sent = iommu::serve(self, badge, &request.message(), |reply| {
            refused.set(reply.label != 0);
            send(reply)
        });
        self.refused = self.refused.wrapping_add(refused.get().into());
        sent
    }
}
