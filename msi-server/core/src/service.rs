//! The shard as an `ipc_proto::msi::Service`: one method an operation of the table.

use hw::Sbdf;
use ipc_proto::msi::{
    AllocReply, ClientGoneReply, FiguresReply, FreeReply, HelloReply, Service, TurnsReply,
    VectorAtReply,
};
use ipc_proto::{Call, ClientId, Refusal, Reply, Rule, Turns, VERSION};

use crate::{Env, Shard};

impl<E: Env> Shard<E> {
    /// Counts an operation and, when it was one, a refusal.
    fn counted<T>(&mut self, result: Result<T, Refusal>) -> Result<Reply<T>, Refusal> {
        self.operations = self.operations.wrapping_add(1);
        if result.is_err() {
            self.refused = self.refused.wrapping_add(1);
        }
        result.map(Reply::Now)
    }

    fn greet(&self, call: Call, version: u64) -> Result<HelloReply, Refusal> {
        if version != VERSION {
            return Err(Refusal::new(Rule::VersionMismatch, VERSION));
        }
        let client = ClientId(call.badge.index);
        let quota = self
            .quota(client)
            .map_err(|_| Refusal::new(Rule::UnknownBadge, call.badge.to_word()))?;
        Ok(HelloReply {
            version: VERSION,
            quota,
            used: self.used_by(client),
        })
    }

    fn nth_vector(&self, index: u16) -> Result<VectorAtReply, Refusal> {
        let (vector, held) = self.in_use().nth(index.into()).ok_or(Rule::EndOfList)?;
        Ok(VectorAtReply {
            vector: self.kernel_vector(vector.into()),
            device: held.device,
            client: held.client,
            data: vector.into(),
        })
    }
}

impl<E: Env> Service for Shard<E> {
    fn hello(&mut self, call: Call, version: u64) -> Result<Reply<HelloReply>, Refusal> {
        let result = self.greet(call, version);
        self.counted(result)
    }

    fn alloc(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        count: u16,
        slot: u16,
    ) -> Result<Reply<AllocReply>, Refusal> {
        let result = self.take(call, device, client, count, slot);
        self.counted(result.map(|taken| AllocReply {
            address: taken.address,
            data: taken.data,
            first: taken.first,
        }))
    }

    fn free(&mut self, call: Call, device: Sbdf) -> Result<Reply<FreeReply>, Refusal> {
        let result = self.free_device(call, device);
        self.counted(result.map(|count| FreeReply { count }))
    }

    fn client_gone(
        &mut self,
        _call: Call,
        client: ClientId,
    ) -> Result<Reply<ClientGoneReply>, Refusal> {
        let vectors = self.free_client(client);
        self.counted(Ok(ClientGoneReply { vectors }))
    }

    fn figures(&mut self, _call: Call) -> Result<Reply<FiguresReply>, Refusal> {
        let (vectors, free) = self.counts();
        let figures = FiguresReply {
            vectors,
            free,
            slots_used: self.env().slots_used(),
            operations: self.operations,
            refused: self.refused,
        };
        self.counted(Ok(figures))
    }

    fn turns(&mut self, _call: Call) -> Result<Reply<TurnsReply>, Refusal> {
        let Turns { ticks, longest } = self.env().turns();
        self.counted(Ok(TurnsReply { ticks, longest }))
    }

    fn vector_at(&mut self, _call: Call, index: u16) -> Result<Reply<VectorAtReply>, Refusal> {
        let result = self.nth_vector(index);
        self.counted(result)
    }
}
