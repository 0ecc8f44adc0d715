//! Devices on lines, and the requests about them.

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{BadgeKind, ClientId, Refusal, Rule};

use super::Bench;

/// Devices 0..4 are of pci-server shard 0, the others of shard 1.
pub fn device(number: u8) -> Sbdf {
    let bus = if number < 4 { 3 } else { 0x83 };
    Sbdf::from_parts(0, bus, number, 0).unwrap()
}

pub fn shard_of(number: u8) -> u16 {
    u16::from(number >= 4)
}

impl Bench {
    pub fn join(&mut self, number: u8, client: u16, line: u16) -> Result<(), Refusal> {
        let request = Request::LineJoin {
            device: device(number),
            client: ClientId(client),
            line,
        };
        let reply = self.ask(BadgeKind::Shard, shard_of(number), request);
        msi::LineJoinReply::decode(&reply).map(|_| ())
    }

    pub fn leave(&mut self, number: u8) -> Result<(), Refusal> {
        let device = device(number);
        let reply = self.ask(
            BadgeKind::Shard,
            shard_of(number),
            Request::LineLeave { device },
        );
        msi::LineLeaveReply::decode(&reply).map(|_| ())
    }

    pub fn look(&mut self, client: u16, number: u8) -> Result<(), Refusal> {
        let device = device(number);
        let reply = self.ask(BadgeKind::Client, client, Request::LineAck { device });
        msi::LineAckReply::decode(&reply).map(|_| ())
    }

    pub fn trouble(&mut self, shard: u16) -> Option<(Sbdf, u32)> {
        let reply = self.ask(BadgeKind::Shard, shard, Request::LineTrouble {});
        match msi::LineTroubleReply::decode(&reply) {
            Ok(reply) => Some((reply.device, reply.count)),
            Err(refusal) => {
                assert_eq!(refusal.rule, Rule::EndOfList);
                None
            }
        }
    }

    pub fn raise(&mut self, line: usize) {
        self.shard.on_line(line);
    }

    /// Lets time pass; the timer runs out where it was armed.
    pub fn pass(&mut self, micros: u64) {
        let until = self.kernel.0.borrow().now + micros;
        loop {
            let alarm = self
                .kernel
                .0
                .borrow_mut()
                .alarm
                .take_if(|alarm| *alarm <= until);
            let Some(alarm) = alarm else { break };
            self.kernel.0.borrow_mut().now = alarm;
            self.shard.on_timer();
        }
        self.kernel.0.borrow_mut().now = until;
    }

    pub fn opened(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.kernel.0.borrow_mut().opened)
    }

    pub fn told(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.kernel.0.borrow_mut().told_clients)
    }
}
