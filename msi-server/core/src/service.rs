//! The shard as an `ipc_proto::msi::Service`: one method an operation of the table.

use hw::Sbdf;
use ipc_proto::msi::{
    AllocReply, BindReply, ClientGoneReply, FiguresReply, FreeReply, HelloReply, LineAckReply,
    LineAtReply, LineJoinReply, LineLeaveReply, LineTroubleReply, MessageTroubleReply,
    PromiseReply, ResumeReply, RetargetReply, Service, ShareAtReply, TurnsReply, VectorAtReply,
    VectorOfReply,
};
use ipc_proto::{
    Call, ClientId, Delivery, Messages, Refusal, Reply, Rule, Switch, VERSION, VectorUse,
};

use crate::shard::Holder;
use crate::{Env, Shard};

/// No client has this number.
const NOBODY: ClientId = ClientId(ipc_proto::MAX_INDEX);

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
        let share = self
            .share(client)
            .map_err(|_| Refusal::new(Rule::UnknownBadge, call.badge.to_word()))?;
        Ok(HelloReply {
            version: VERSION,
            quota: share.quota,
            used: share.used,
        })
    }

    /// A vector of a purpose that is no device's.
    const fn without_device(vector: u16, purpose: VectorUse, data: u32) -> VectorAtReply {
        VectorAtReply {
            vector,
            purpose,
            device: Sbdf::from_bits(0),
            client: NOBODY,
            message: 0,
            core: 0,
            data,
            delivery: Delivery::Direct,
            raised: 0,
            passed: Switch::Off,
            flags: 0,
        }
    }

    /// A vector of the shard, if it is not free.
    fn vector(&self, vector: u16) -> Option<VectorAtReply> {
        let number = self.kernel_vector(vector);
        let Some(used) = self.used(vector) else {
            return self
                .is_lost(vector)
                .then(|| Self::without_device(number, VectorUse::Lost, vector.into()));
        };
        let meter = self.meters.of(vector);
        Some(VectorAtReply {
            vector: number,
            purpose: match used.holder {
                Holder::Client => VectorUse::Message,
                Holder::Nobody => VectorUse::Kept,
            },
            device: used.device,
            client: used.client,
            message: used.message,
            core: used.core,
            data: vector.into(),
            delivery: match meter {
                Some(_) => Delivery::Metered,
                None => Delivery::Direct,
            },
            raised: meter.map_or(0, |meter| meter.raised),
            passed: match meter {
                Some(meter) if meter.passes() => Switch::On,
                _ => Switch::Off,
            },
            flags: meter.map_or(0, |meter| meter.flags),
        })
    }

    fn nth_vector(&self, index: u16) -> Result<VectorAtReply, Refusal> {
        let own = self.range().filter_map(|vector| self.vector(vector));
        let lines = self.lines.list.iter().map(|line| {
            let vector = line.info.vector;
            VectorAtReply {
                raised: line.raised,
                ..Self::without_device(vector, VectorUse::Line, 0)
            }
        });
        let servers = self
            .servers
            .iter()
            .map(|vector| Self::without_device(*vector, VectorUse::Server, 0));
        let mut all = own.chain(lines).chain(servers);
        Ok(all.nth(index.into()).ok_or(Rule::EndOfList)?)
    }

    /// The `index`-th vector that a client holds for a device.
    fn nth_of(&self, device: Sbdf, index: u16) -> Result<VectorOfReply, Refusal> {
        let blocks = (self.blocks.iter())
            .filter(|block| block.device == device && block.holder == Holder::Client);
        let mut vectors = blocks.flat_map(|block| block.vectors());
        let vector = vectors.nth(index.into()).ok_or(Rule::EndOfList)?;
        Ok(VectorOfReply {
            vector: self.kernel_vector(vector),
        })
    }

    fn nth_user(&self, index: u16) -> Result<LineAtReply, Refusal> {
        let lines = self.lines.list.iter();
        let mut users = lines.flat_map(|line| line.users.iter().map(move |user| (line, user)));
        let (line, user) = users.nth(index.into()).ok_or(Rule::EndOfList)?;
        Ok(LineAtReply {
            line: line.info.line,
            vector: line.info.vector,
            device: user.device,
            client: user.client,
            raised: line.raised,
            waits: match user.waits() {
                true => Switch::On,
                false => Switch::Off,
            },
        })
    }
}

impl<E: Env> Service for Shard<E> {
    fn hello(&mut self, call: Call, version: u64) -> Result<Reply<HelloReply>, Refusal> {
        let result = self.greet(call, version);
        self.counted(result)
    }

    fn line_ack(&mut self, call: Call, device: Sbdf) -> Result<Reply<LineAckReply>, Refusal> {
        let result = self.acknowledge(call, device);
        self.counted(result.map(|()| LineAckReply {}))
    }

    fn alloc(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        messages: Messages,
        slot: u16,
    ) -> Result<Reply<AllocReply>, Refusal> {
        let result = self.take(call, device, client, messages, slot);
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

    fn retarget(
        &mut self,
        call: Call,
        device: Sbdf,
        messages: Messages,
        core: u8,
    ) -> Result<Reply<RetargetReply>, Refusal> {
        let result = Shard::retarget(self, call, device, messages, core);
        self.counted(result.map(|address| RetargetReply { address }))
    }

    fn line_join(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        line: u16,
    ) -> Result<Reply<LineJoinReply>, Refusal> {
        let result = self.join(call, device, client, line);
        self.counted(result.map(|()| LineJoinReply {}))
    }

    fn line_leave(&mut self, call: Call, device: Sbdf) -> Result<Reply<LineLeaveReply>, Refusal> {
        let result = self.leave(call, device);
        self.counted(result.map(|()| LineLeaveReply {}))
    }

    fn line_trouble(&mut self, call: Call) -> Result<Reply<LineTroubleReply>, Refusal> {
        let result = self.trouble(call);
        self.counted(result.map(|(device, count)| LineTroubleReply { device, count }))
    }

    fn bind(
        &mut self,
        call: Call,
        device: Sbdf,
        message: u16,
        flags: u64,
    ) -> Result<Reply<BindReply>, Refusal> {
        let result = Shard::bind(self, call, device, message, flags);
        self.counted(result.map(|()| BindReply {}))
    }

    fn message_trouble(&mut self, call: Call) -> Result<Reply<MessageTroubleReply>, Refusal> {
        let result = Shard::message_trouble(self, call);
        self.counted(result.map(|(device, message, count)| MessageTroubleReply {
            device,
            message,
            count,
        }))
    }

    fn resume(
        &mut self,
        call: Call,
        device: Sbdf,
        messages: Messages,
    ) -> Result<Reply<ResumeReply>, Refusal> {
        let result = Shard::resume(self, call, device, messages);
        self.counted(result.map(|left| ResumeReply { left }))
    }

    fn promise(&mut self, _call: Call, client: ClientId) -> Result<Reply<PromiseReply>, Refusal> {
        let common = self.common_free();
        let result = self.share(client).map(|share| PromiseReply {
            kept: share.kept_free(),
            common,
            left: share.quota.saturating_sub(share.used),
        });
        self.counted(result)
    }

    fn client_gone(
        &mut self,
        _call: Call,
        client: ClientId,
    ) -> Result<Reply<ClientGoneReply>, Refusal> {
        let vectors = self.bereave(client);
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
            absorbed: self.absorbed,
        };
        self.counted(Ok(figures))
    }

    fn turns(&mut self, _call: Call) -> Result<Reply<TurnsReply>, Refusal> {
        let turns = self.env().turns();
        let reply = TurnsReply {
            ticks: turns.ticks,
            longest: turns.longest,
            kernel_calls: turns.kernel_calls,
            kernel_ticks: turns.kernel_ticks,
            requests: turns.requests,
        };
        self.counted(Ok(reply))
    }

    fn vector_at(&mut self, _call: Call, index: u16) -> Result<Reply<VectorAtReply>, Refusal> {
        let result = self.nth_vector(index);
        self.counted(result)
    }

    fn vector_of(
        &mut self,
        _call: Call,
        device: Sbdf,
        index: u16,
    ) -> Result<Reply<VectorOfReply>, Refusal> {
        let result = self.nth_of(device, index);
        self.counted(result)
    }

    fn line_at(&mut self, _call: Call, index: u16) -> Result<Reply<LineAtReply>, Refusal> {
        let result = self.nth_user(index);
        self.counted(result)
    }

    fn share_at(&mut self, _call: Call, client: ClientId) -> Result<Reply<ShareAtReply>, Refusal> {
        let share = self.share(client).map_err(|_| Rule::EndOfList.into());
        let result = share.map(|share| ShareAtReply {
            quota: share.quota,
            reserved: share.reserved(),
            used: share.used,
        });
        self.counted(result)
    }
}
