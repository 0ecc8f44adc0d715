//! A kernel that can refuse any step, and a shard on it that is asked by messages.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{Badge, BadgeKind, ClientId, Message, Refusal, Rule, Turns};
use msi_core::{Env, Shard};
use system::info::MsiInfo;

/// Slots of every client's window.
pub const WINDOW: u16 = 64;

/// What the kernel knows: which handlers exist, and where copies of them lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    pub handlers: BTreeMap<u16, (Sbdf, u16)>,
    pub windows: BTreeMap<(u16, u16), u16>,
    /// Steps until one is refused.
    pub refuse_in: Option<usize>,
    /// Handlers that cannot be taken back.
    pub refuse_retire: bool,
}

impl Kernel {
    fn step(&mut self) -> Result<(), Refusal> {
        match self.refuse_in.take() {
            Some(0) => Err(Refusal::new(Rule::KernelRefused, 10)),
            other => {
                self.refuse_in = other.map(|steps| steps - 1);
                Ok(())
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Shared(pub Rc<RefCell<Kernel>>);

impl Env for Shared {
    type Handler = u16;

    fn issue(&mut self, vector: u16, device: Sbdf, number: u16) -> Result<u16, Refusal> {
        let mut kernel = self.0.borrow_mut();
        kernel.step()?;
        assert!(
            kernel.handlers.insert(vector, (device, number)).is_none(),
            "vector {vector} issued twice"
        );
        Ok(vector)
    }

    fn place(&mut self, handler: &u16, client: ClientId, slot: u16) -> Result<(), Refusal> {
        let mut kernel = self.0.borrow_mut();
        kernel.step()?;
        if slot >= WINDOW {
            return Err(Refusal::new(Rule::WindowSlotOutOfRange, slot.into()));
        }
        if kernel.windows.contains_key(&(client.0, slot)) {
            return Err(Refusal::new(Rule::WindowSlotOccupied, slot.into()));
        }
        kernel.windows.insert((client.0, slot), *handler);
        Ok(())
    }

    fn retire(&mut self, handler: u16) -> Result<(), Refusal> {
        let mut kernel = self.0.borrow_mut();
        if kernel.refuse_retire {
            return Err(Refusal::new(Rule::KernelRefused, 3));
        }
        kernel.windows.retain(|_, held| *held != handler);
        kernel.handlers.remove(&handler).unwrap();
        Ok(())
    }

    fn slots_used(&self) -> u32 {
        self.0.borrow().handlers.len() as u32
    }

    fn turns(&self) -> Turns {
        Turns::default()
    }
}

pub fn info(first_vector: u16, vectors: u16) -> MsiInfo {
    MsiInfo {
        shard: 0,
        first_vector,
        vectors,
        cpu_vector_base: 0x30,
        apic_id: 2,
        shard_buses: [(0, 0, 0x7f), (0, 0x80, 0xff), (1, 0, 0xff)]
            .into_iter()
            .collect(),
    }
}

pub struct Bench {
    pub shard: Shard<Shared>,
    pub kernel: Shared,
}

impl Bench {
    pub fn new(first_vector: u16, vectors: u16, quotas: &[u16]) -> Self {
        let kernel = Shared::default();
        let shard = Shard::new(
            &info(first_vector, vectors),
            quotas.iter().copied(),
            kernel.clone(),
        )
        .unwrap();
        Self { shard, kernel }
    }

    pub fn ask(&mut self, kind: BadgeKind, index: u16, request: Request) -> Message {
        let badge = Badge::plain(kind, index).to_word();
        msi::dispatch(&mut self.shard, badge, &request.encode()).unwrap()
    }

    pub fn alloc(
        &mut self,
        device: Sbdf,
        client: u16,
        count: u16,
        slot: u16,
    ) -> Result<msi::AllocReply, Refusal> {
        self.alloc_by(0, device, client, count, slot)
    }

    pub fn alloc_by(
        &mut self,
        shard: u16,
        device: Sbdf,
        client: u16,
        count: u16,
        slot: u16,
    ) -> Result<msi::AllocReply, Refusal> {
        let request = Request::Alloc {
            device,
            client: ClientId(client),
            count,
            slot,
        };
        msi::AllocReply::decode(&self.ask(BadgeKind::Shard, shard, request))
    }

    pub fn free(&mut self, device: Sbdf) -> Result<u16, Refusal> {
        msi::FreeReply::decode(&self.ask(BadgeKind::Shard, 0, Request::Free { device }))
            .map(|reply| reply.count)
    }

    pub fn gone(&mut self, client: u16) -> u16 {
        let request = Request::ClientGone {
            client: ClientId(client),
        };
        msi::ClientGoneReply::decode(&self.ask(BadgeKind::Supervisor, 0, request))
            .unwrap()
            .vectors
    }

    pub fn figures(&mut self) -> msi::FiguresReply {
        msi::FiguresReply::decode(&self.ask(BadgeKind::Supervisor, 0, Request::Figures {})).unwrap()
    }

    pub fn held(&mut self) -> Vec<msi::VectorAtReply> {
        let mut list = Vec::new();
        for index in 0..=256 {
            match msi::VectorAtReply::decode(&self.ask(
                BadgeKind::Supervisor,
                0,
                Request::VectorAt { index },
            )) {
                Ok(row) => list.push(row),
                Err(refusal) => {
                    assert_eq!(refusal.rule, Rule::EndOfList);
                    return list;
                }
            }
        }
        panic!("the list has no end");
    }
}
