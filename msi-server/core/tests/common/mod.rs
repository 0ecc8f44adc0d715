//! A kernel that can refuse any step, under which the server can die at any step, and a shard on it that is asked by messages.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod lines;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{Badge, BadgeKind, ClientId, Message, Messages, Refusal, Rule, Turns, VectorUse};
use ledger::Words;
use msi_core::{Env, LEDGER_WORDS, Shard};
use system::info::{ClientEntry, LineInfo, MsiInfo};

/// Slots of every client's window.
pub const WINDOW: u16 = 64;
/// Cores of the machine; the APIC of core n is 2 n.
pub const CORES: u8 = 4;
/// The lines.
pub const LINES: [u16; 3] = [16, 20, 23];

/// What the kernel knows: where copies of handlers lie, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub windows: BTreeMap<(u16, u16), u16>,
    /// Vectors that were taken back and do not signal their old holder.
    pub absorbing: BTreeSet<u16>,
    /// Steps until one is refused.
    pub refuse_in: Option<usize>,
    /// Handlers that cannot be taken back.
    pub refuse_reclaim: bool,
    pub now: u64,
    pub alarm: Option<u64>,
    /// Lines that were let come again, by number in the list.
    pub opened: Vec<usize>,
    pub told_clients: Vec<u16>,
    pub told_shards: Vec<u16>,
    /// What outlives the server.
    pub ledger: Vec<u64>,
    /// Effects until the server dies: then none comes about any more.
    pub left: Option<usize>,
    /// Vectors that signal the shard, and the number of their meter.
    pub metered: BTreeMap<u16, usize>,
    /// Vectors that the kernel drops.
    pub hushed: BTreeSet<u16>,
    /// What metered vectors signal: client and flags.
    pub named: BTreeMap<u16, (u16, u64)>,
    /// What was signalled so.
    pub passed: Vec<(u16, u64)>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            windows: BTreeMap::new(),
            absorbing: BTreeSet::new(),
            refuse_in: None,
            refuse_reclaim: false,
            now: 0,
            alarm: None,
            opened: Vec::new(),
            told_clients: Vec::new(),
            told_shards: Vec::new(),
            ledger: vec![0; LEDGER_WORDS],
            left: None,
            metered: BTreeMap::new(),
            hushed: BTreeSet::new(),
            named: BTreeMap::new(),
            passed: Vec::new(),
        }
    }
}

impl Kernel {
    /// Counts an effect; does it come about?
    fn lives(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

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

impl Words for Shared {
    fn count(&self) -> usize {
        self.0.borrow().ledger.len()
    }

    fn load(&self, at: usize) -> u64 {
        self.0.borrow().ledger.get(at).copied().unwrap_or(0)
    }

    fn store(&mut self, at: usize, value: u64) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            kernel.ledger[at] = value;
        }
    }
}

impl Env for Shared {
    type Ledger = Self;

    fn ledger(&mut self) -> &mut Self {
        self
    }

    fn place(&mut self, vector: u16, client: ClientId, slot: u16) -> Result<(), Refusal> {
        let mut kernel = self.0.borrow_mut();
        if !kernel.lives() {
            return Ok(());
        }
        kernel.step()?;
        if slot >= WINDOW {
            return Err(Refusal::new(Rule::WindowSlotOutOfRange, slot.into()));
        }
        if kernel.windows.contains_key(&(client.0, slot)) {
            return Err(Refusal::new(Rule::WindowSlotOccupied, slot.into()));
        }
        assert!(
            kernel.windows.values().all(|other| *other != vector),
            "vector {vector} placed twice"
        );
        kernel.absorbing.remove(&vector);
        kernel.windows.insert((client.0, slot), vector);
        Ok(())
    }

    fn reclaim(&mut self, vector: u16) -> Result<(), Refusal> {
        let mut kernel = self.0.borrow_mut();
        if kernel.refuse_reclaim {
            return Err(Refusal::new(Rule::KernelRefused, 3));
        }
        if kernel.lives() {
            kernel.windows.retain(|_, held| *held != vector);
            kernel.metered.remove(&vector);
            kernel.hushed.remove(&vector);
        }
        if kernel.lives() {
            kernel.absorbing.insert(vector);
        }
        Ok(())
    }

    fn meter(&mut self, vector: u16, meter: usize) -> Result<(), Refusal> {
        let mut kernel = self.0.borrow_mut();
        if !kernel.lives() {
            return Ok(());
        }
        kernel.step()?;
        // After a restart flags are dealt out anew: who had this one before is dealt with later.
        kernel.metered.retain(|_, at| *at != meter);
        kernel.absorbing.remove(&vector);
        kernel.hushed.remove(&vector);
        kernel.metered.insert(vector, meter);
        Ok(())
    }

    fn hush(&mut self, vector: u16) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            assert!(kernel.metered.contains_key(&vector));
            assert!(kernel.hushed.insert(vector), "{vector} is silent already");
        }
    }

    fn name(&mut self, vector: u16, client: ClientId, flags: u64) -> Result<(), Refusal> {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            kernel.named.remove(&vector);
        }
        if !kernel.lives() {
            return Ok(());
        }
        kernel.step()?;
        kernel.named.insert(vector, (client.0, flags));
        Ok(())
    }

    fn pass(&mut self, vector: u16) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives()
            && let Some(named) = kernel.named.get(&vector).copied()
        {
            kernel.passed.push(named);
        }
    }

    fn unname(&mut self, vector: u16) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            kernel.named.remove(&vector);
        }
    }

    fn acknowledge(&mut self, line: usize) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            kernel.opened.push(line);
        }
    }

    fn tell_client(&mut self, client: ClientId) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            kernel.told_clients.push(client.0);
        }
    }

    fn tell_shard(&mut self, shard: u16) {
        let mut kernel = self.0.borrow_mut();
        if kernel.lives() {
            kernel.told_shards.push(shard);
        }
    }

    fn now_us(&self) -> u64 {
        self.0.borrow().now
    }

    fn arm(&mut self, micros: u64) {
        let mut kernel = self.0.borrow_mut();
        assert_ne!(micros, 0, "that would never come");
        if kernel.lives() {
            kernel.alarm = Some(kernel.now + micros);
        }
    }

    fn slots_used(&self) -> u32 {
        0
    }

    fn turns(&self) -> Turns {
        Turns::default()
    }
}

pub fn info(first_vector: u16, vectors: u16) -> MsiInfo {
    let line = |(vector, line): (u16, &u16)| LineInfo {
        line: *line,
        vector,
        handler: 400,
    };
    MsiInfo {
        shard: 0,
        first_vector,
        vectors,
        cpu_vector_base: 0x30,
        handlers: 200,
        apic_ids: (0..CORES).map(|core| 2 * core).collect(),
        shard_buses: [(0, 0, 0x7f), (0, 0x80, 0xff), (1, 0, 0xff)]
            .into_iter()
            .collect(),
        shard_signals: [600, 601, 602].into_iter().collect(),
        lines: (100..).zip(&LINES).map(line).collect(),
        server_vectors: [107, 106].into_iter().collect(),
    }
}

/// A client by its quota, what is kept for it, and its core.
pub fn client((vectors, reserved_vectors, core): (u16, u16, u8)) -> ClientEntry {
    ClientEntry {
        name: heapless::String::new(),
        window: 500,
        window_bits: 6,
        events: 501,
        notification: 0,
        devices: heapless::Vec::new(),
        dma_quota: 0,
        largest_buffer: 0,
        vectors,
        reserved_vectors,
        interrupt_rate: 0,
        core,
    }
}

/// The same, each of whose vectors may be raised so often a second.
pub fn metered(client: ClientEntry, interrupt_rate: u32) -> ClientEntry {
    ClientEntry {
        interrupt_rate,
        ..client
    }
}

pub struct Bench {
    pub shard: Shard<Shared>,
    pub kernel: Shared,
    info: MsiInfo,
    clients: Vec<ClientEntry>,
}

impl Bench {
    pub fn new(first_vector: u16, vectors: u16, quotas: &[u16]) -> Self {
        let clients: Vec<_> = quotas.iter().map(|quota| (*quota, 0, 1)).collect();
        Self::with(first_vector, vectors, &clients)
    }

    pub fn with(first_vector: u16, vectors: u16, clients: &[(u16, u16, u8)]) -> Self {
        let clients: Vec<_> = clients.iter().copied().map(client).collect();
        Self::of(first_vector, vectors, &clients)
    }

    pub fn of(first_vector: u16, vectors: u16, clients: &[ClientEntry]) -> Self {
        let kernel = Shared::default();
        Self::on(kernel, info(first_vector, vectors), clients.to_vec())
    }

    /// The server starts on a kernel, whatever happened there before.
    pub fn on(kernel: Shared, info: MsiInfo, clients: Vec<ClientEntry>) -> Self {
        kernel.0.borrow_mut().left = None;
        let shard = Shard::new(&info, &clients, kernel.clone()).unwrap();
        Self {
            shard,
            kernel,
            info,
            clients,
        }
    }

    /// The server dies, if it has not, and starts again.
    pub fn restart(&mut self) {
        *self = Self::on(self.kernel.clone(), self.info.clone(), self.clients.clone());
    }

    /// The server starts, and dies after so many effects of its start.
    pub fn die_starting(&mut self, left: usize) {
        let info = self.info.clone();
        self.kernel.0.borrow_mut().left = Some(left);
        drop(Shard::new(&info, &self.clients, self.kernel.clone()));
    }

    /// The same server on a copy of the kernel, started again there.
    pub fn elsewhere(&self) -> Self {
        let kernel = Shared(Rc::new(RefCell::new(self.kernel.0.borrow().clone())));
        Self::on(kernel, self.info.clone(), self.clients.clone())
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
        self.alloc_by(0, device, client, Messages { first: 0, count }, slot)
    }

    pub fn alloc_by(
        &mut self,
        shard: u16,
        device: Sbdf,
        client: u16,
        messages: Messages,
        slot: u16,
    ) -> Result<msi::AllocReply, Refusal> {
        let request = Request::Alloc {
            device,
            client: ClientId(client),
            messages,
            slot,
        };
        msi::AllocReply::decode(&self.ask(BadgeKind::Shard, shard, request))
    }

    pub fn free(&mut self, device: Sbdf) -> Result<u16, Refusal> {
        msi::FreeReply::decode(&self.ask(BadgeKind::Shard, 0, Request::Free { device }))
            .map(|reply| reply.count)
    }

    pub fn retarget(&mut self, device: Sbdf, messages: Messages, core: u8) -> Result<u64, Refusal> {
        let request = Request::Retarget {
            device,
            messages,
            core,
        };
        msi::RetargetReply::decode(&self.ask(BadgeKind::Shard, 0, request))
            .map(|reply| reply.address)
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

    /// Every vector that is not free, of every purpose.
    pub fn all(&mut self) -> Vec<msi::VectorAtReply> {
        let mut list = Vec::new();
        for index in 0..=256 {
            let request = Request::VectorAt { index };
            match msi::VectorAtReply::decode(&self.ask(BadgeKind::Supervisor, 0, request)) {
                Ok(row) => list.push(row),
                Err(refusal) => {
                    assert_eq!(refusal.rule, Rule::EndOfList);
                    self.check_by_device(&list);
                    return list;
                }
            }
        }
        panic!("the list has no end");
    }

    /// The lists of each device's vectors say what the list of all says.
    fn check_by_device(&mut self, all: &[msi::VectorAtReply]) {
        let of = |row: &&msi::VectorAtReply| row.purpose == VectorUse::Message;
        for device in all.iter().map(|row| row.device).collect::<BTreeSet<_>>() {
            let rows = all.iter().filter(of).filter(|row| row.device == device);
            let expected: BTreeSet<_> = rows.map(|row| row.vector).collect();
            let vectors = (0..).map_while(|index| {
                let request = Request::VectorOf { device, index };
                let answer = self.ask(BadgeKind::Supervisor, 0, request);
                msi::VectorOfReply::decode(&answer).ok()
            });
            let found: Vec<_> = vectors.map(|found| found.vector).collect();
            assert_eq!(found.len(), expected.len(), "{device}: {found:?}");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
