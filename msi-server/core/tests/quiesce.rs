//! A vector is free again only when every core that its messages were sent to has taken them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{Shared, client, info};
use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{Badge, BadgeKind, ClientId, Messages, Refusal, Turns};
use msi_core::{Env, Shard};

/// What was done when vectors were freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reclaim(u16),
    Quiesce(u16),
}

/// A kernel that writes down in which order.
struct Watched(Shared, Rc<RefCell<Vec<Step>>>);

impl Env for Watched {
    type Ledger = <Shared as Env>::Ledger;

    fn ledger(&mut self) -> &mut Self::Ledger {
        self.0.ledger()
    }
    fn place(&mut self, vector: u16, client: ClientId, slot: u16) -> Result<(), Refusal> {
        self.0.place(vector, client, slot)
    }
    fn reclaim(&mut self, vector: u16) -> Result<(), Refusal> {
        self.1.borrow_mut().push(Step::Reclaim(vector));
        self.0.reclaim(vector)
    }
    fn quiesce(&mut self, cores: u16) {
        self.1.borrow_mut().push(Step::Quiesce(cores));
    }
    fn meter(&mut self, vector: u16, meter: usize) -> Result<(), Refusal> {
        self.0.meter(vector, meter)
    }
    fn hush(&mut self, vector: u16) {
        self.0.hush(vector);
    }
    fn name(&mut self, vector: u16, client: ClientId, flags: u64) -> Result<(), Refusal> {
        self.0.name(vector, client, flags)
    }
    fn pass(&mut self, vector: u16) {
        self.0.pass(vector);
    }
    fn unname(&mut self, vector: u16) {
        self.0.unname(vector);
    }
    fn acknowledge(&mut self, line: usize) {
        self.0.acknowledge(line);
    }
    fn tell_client(&mut self, client: ClientId) {
        self.0.tell_client(client);
    }
    fn tell_shard(&mut self, shard: u16) {
        self.0.tell_shard(shard);
    }
    fn now_us(&self) -> u64 {
        self.0.now_us()
    }
    fn arm(&mut self, micros: u64) {
        self.0.arm(micros);
    }
    fn slots_used(&self) -> u32 {
        self.0.slots_used()
    }
    fn turns(&self) -> Turns {
        self.0.turns()
    }
}

#[test]
fn cores_that_were_sent_messages_are_asked_before_the_vectors_are_free() {
    let steps = Rc::default();
    let kernel = Watched(Shared::default(), Rc::clone(&steps));
    let mut shard = Shard::new(&info(0, 32), &[client((8, 0, 1))], kernel).unwrap();
    // What the start itself does.
    steps.borrow_mut().clear();
    let device = Sbdf::from_bits(0x18);
    let mut ask = |request: Request| {
        let badge = Badge::plain(BadgeKind::Shard, 0).to_word();
        let reply = msi::dispatch(&mut shard, badge, &request.encode()).unwrap();
        let refused = [
            msi::AllocReply::decode(&reply).err(),
            msi::RetargetReply::decode(&reply).err(),
            msi::FreeReply::decode(&reply).err(),
        ];
        assert!(refused.contains(&None), "{refused:?}");
    };
    let messages = Messages { first: 0, count: 2 };
    let alloc = Request::Alloc {
        device,
        client: ClientId(0),
        messages,
        slot: 0,
    };
    ask(alloc);
    ask(Request::Retarget {
        device,
        messages: Messages { first: 1, count: 1 },
        core: 3,
    });
    ask(Request::Free { device });
    let all = [Step::Reclaim(0), Step::Reclaim(1), Step::Quiesce(0b1010)];
    assert_eq!(steps.borrow_mut().split_off(0), all);
    // Where the vectors' last holder had them sent does not count.
    ask(alloc);
    ask(Request::Free { device });
    let all = [Step::Reclaim(0), Step::Reclaim(1), Step::Quiesce(0b10)];
    assert_eq!(steps.borrow_mut().split_off(0), all);
}
