//! [`World`]: everything together; requests of clients, signals, time, and the
//! supervisor's part when a client dies.

use std::cell::Cell;
use std::rc::Rc;
use std::slice::IterMut;

use hw::{Clock, Sbdf};
use iommu_core::vtd;
use ipc_proto::{Badge, BadgeKind, ClientId, Message, iommu, msi, pci};
use pci_core::{Shard, Tables};
use sim::vtd::Ailment;
use system::info::{ClientEntry, MsiInfo, PciInfo};

use crate::above::{IommuShard, MsiShard, Surroundings};
use crate::below::{Handlers, Issued, Memory};
use crate::boot::{bank, boot_iommu, life};
use crate::calls::Below;
use crate::hardware::Hardware;
use crate::kernel::{Kernel, Object, Place, Server};
use crate::mortal::{Ledger, Mortal, PATIENCE, is_restarted, restarted, until_it_lives};
use crate::setting::{
    DEVICE_MEMORY, FIRST_VECTOR, Flaw, POOL, Setting, Store, VECTOR_BASE, VECTOR_COUNT,
};
use crate::shape::Shape;
use crate::told::{Life, Told, Wait};

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// An answer.
    Reply(Message),
    /// It will be answered later: the ticket.
    Later(u32),
    /// There is no capability in the slot.
    NoCapability,
}

/// Everything.
pub struct World<'s> {
    /// The machine.
    pub hardware: Rc<Hardware>,
    /// All capabilities.
    pub kernel: Kernel,
    /// The pci-server.
    pub pci: Shard<'s, Surroundings<'s>>,
    /// The iommu-server.
    pub iommu: Below<'s, IommuShard<'s>>,
    /// The msi-server.
    pub msi: Below<'s, MsiShard>,
    /// Handlers that exist.
    pub issued: Issued,
    /// What clients have been told.
    pub told: Told,
    /// How it was made.
    pub setting: Setting,
    memory: Memory,
    info: &'s PciInfo,
    clients: &'s [ClientEntry],
    tables: IterMut<'s, Option<Box<Tables<u32, 32, 8, 64>>>>,
    /// Clients that the supervisor takes down, in the order of their deaths.
    pub dying: Vec<u16>,
    /// Copies that clients have made.
    pub copies: u32,
}

impl<'s> World<'s> {
    /// Boots.
    pub fn boot(store: &'s mut Store, setting: Setting) -> Self {
        let hardware = Hardware::new(setting.model, setting.devices);
        let lives = hardware.lives.clone();
        let kernel = Kernel::new(&lives);
        let Store {
            tables,
            iommu,
            info,
            clients,
        } = store;
        let (info, clients): (&PciInfo, &[ClientEntry]) = (info, clients);
        for piece in POOL {
            let object = Object::Untyped {
                base: piece.base,
                bits: piece.bits,
            };
            kernel.give(Place::Iommu(piece.slot), object);
        }
        for (slot, base, bits) in DEVICE_MEMORY {
            kernel.give(Place::Pci(slot), Object::Untyped { base, bits });
        }
        let memory = Memory {
            kernel: kernel.clone(),
            hardware: Rc::clone(&hardware),
            wake: Rc::new(Cell::new(None)),
            trouble: Rc::new(Cell::new(false)),
            lost: Rc::new(Cell::new(0)),
            ledger: Ledger::new(&lives),
            adopted: Rc::default(),
        };
        let mut spare = iommu.iter_mut();
        let effects = memory.clone();
        let iommu = Below::new(&lives, move || {
            let (storage, units) = life(&mut spare, || {
                (iommu_core::Storage::new(), vtd::Storage::new())
            });
            boot_iommu(storage, units, &effects, &setting)
        });
        let vectors = FIRST_VECTOR..FIRST_VECTOR + VECTOR_COUNT;
        let handlers = Handlers::new(kernel.clone(), &lives, vectors);
        let issued = Rc::clone(&handlers.issued);
        let msi_info = MsiInfo {
            shard: 0,
            first_vector: FIRST_VECTOR,
            vectors: VECTOR_COUNT,
            cpu_vector_base: VECTOR_BASE,
            handlers: 0,
            apic_ids: [0].into_iter().collect(),
            shard_buses: [(0, 0, 0x3f)].into_iter().collect(),
            shard_signals: Default::default(),
            lines: Default::default(),
            server_vectors: Default::default(),
        };
        let msi = Below::new(&lives, move || {
            msi_core::Shard::new(&msi_info, clients, handlers.clone()).expect("vectors")
        });
        let surroundings =
            Surroundings::new(Rc::clone(&hardware), kernel.clone(), bank(), &iommu, &msi);
        let mut tables = tables.iter_mut();
        let memory_of_pci = life(&mut tables, Tables::new).lend();
        let pci = Shard::boot(surroundings, info, clients, memory_of_pci);
        match setting.flaw {
            Flaw::None => {}
            Flaw::KeepsContexts => hardware.unit.set_ailment(Ailment::DeafToContexts),
            Flaw::KeepsTranslations => hardware.unit.set_ailment(Ailment::DeafToTranslations),
            Flaw::LosesNotes(server) => lives.lose_notes(server),
            Flaw::KeepsCopies => kernel.keep_copies(|_| true),
            Flaw::KeepsDeviceCapabilities => kernel.keep_copies(|object| {
                matches!(
                    object,
                    Object::Endpoint {
                        server: Server::Pci,
                        ..
                    }
                )
            }),
        }
        Self {
            hardware,
            kernel,
            pci,
            iommu,
            msi,
            issued,
            told: Told::new(setting.clients),
            setting,
            memory,
            info,
            clients,
            tables,
            dying: Vec::new(),
            copies: 0,
        }
    }

    /// Bytes of DMA memory that the iommu-server gave up.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.memory.lost.get()
    }

    /// A request over the capability of a server's endpoint with a badge.
    fn serve(&mut self, server: Server, badge: Badge, request: &Message) -> Outcome {
        match server {
            Server::Iommu => Outcome::Reply(self.iommu.serve(badge, request)),
            Server::Pci => {
                self.pci.env_mut().just_parked = None;
                let served =
                    self.work_pci(|pci| pci.serve(badge.to_word(), request, |reply| *reply));
                match (served, self.pci.env_mut().just_parked) {
                    (None, _) => Outcome::Reply(restarted()),
                    (Some(Some(reply)), None) => Outcome::Reply(reply),
                    (Some(None), Some(ticket)) => Outcome::Later(ticket),
                    other => panic!("neither answered nor parked: {other:?}"),
                }
            }
        }
    }

    /// Lets the pci-server work on something. `None`: it has died in it, and was started again.
    fn work_pci<T>(
        &mut self,
        work: impl FnOnce(&mut Shard<'s, Surroundings<'s>>) -> T,
    ) -> Option<T> {
        let lives = self.hardware.lives.clone();
        let done = lives.run(Mortal::Pci, || work(&mut self.pci));
        if done.is_none() {
            self.restart_pci();
        }
        done
    }

    /// Kills a server, between what it does, and starts it again.
    pub fn restart(&mut self, server: Mortal) {
        match server {
            Mortal::Pci => self.restart_pci(),
            Mortal::Iommu => self.iommu.restart(),
            Mortal::Msi => self.msi.restart(),
        }
    }

    /// Which vectors are given out, by the msi-server's own word: after a death the last answer may have been lost.
    pub(crate) fn look_at_vectors(&mut self) {
        let lives = self.hardware.lives.clone();
        lives.calmly(|| {
            let msi = msi::Stub(self.msi.with(Badge::plain(BadgeKind::Supervisor, 0)));
            let rows = (0..).map_while(|index| until_it_lives(|| msi.vector_at(index)).ok());
            let issued = rows.map(|row| (row.vector, row.device)).collect();
            *self.issued.borrow_mut() = issued;
        })
    }

    fn restart_pci(&mut self) {
        let (hardware, kernel) = (Rc::clone(&self.hardware), self.kernel.clone());
        let fresh = Surroundings::new(hardware, kernel, bank(), &self.iommu, &self.msi);
        self.look_at_vectors();
        let surroundings = self.pci.env_mut().after_death(fresh);
        let memory = life(&mut self.tables, Tables::new).lend();
        self.pci = Shard::boot(surroundings, self.info, self.clients, memory);
        self.pci.env_mut().sweep();
    }

    /// A request of a client over what lies in a slot of its own. One that is refused must change nothing.
    pub fn call(&mut self, place: Place, request: &Message) -> Outcome {
        again(|| match self.kernel.object(place) {
            Some(Object::Endpoint { server, badge }) => {
                let badge = Badge::from_word(badge).expect("a badge of ours");
                self.checked(server, badge, request)
            }
            _ => Outcome::NoCapability,
        })
    }

    /// A request of a client over its way to a server.
    pub fn ask(&mut self, client: u16, server: Server, request: &Message) -> Outcome {
        let badge = Badge::plain(BadgeKind::Client, client);
        again(|| self.checked(server, badge, request))
    }

    fn checked(&mut self, server: Server, badge: Badge, request: &Message) -> Outcome {
        let before = self.shape().without_cuts();
        let outcome = self.serve(server, badge, request);
        if let Outcome::Reply(reply) = &outcome
            && reply.label != 0
            && !is_restarted(reply)
        {
            let after = self.shape().without_cuts();
            assert!(
                before == after,
                "a request that was refused with {} has changed something: {}",
                reply.label,
                before.difference(&after)
            );
        }
        outcome
    }

    /// A request of the supervisor or the administrator to the pci-server.
    pub fn oversee(&mut self, kind: BadgeKind, request: pci::Request) -> Outcome {
        let badge = Badge::plain(kind, 0);
        again(|| self.serve(Server::Pci, badge, &request.encode()))
    }

    fn figures(&mut self) -> pci::FiguresReply {
        match self.oversee(BadgeKind::Supervisor, pci::Request::Figures {}) {
            Outcome::Reply(reply) => pci::FiguresReply::decode(&reply).expect("figures"),
            other => panic!("{other:?} is no reply with figures"),
        }
    }

    /// Devices with their holders, as the pci-server tells.
    pub fn holders(&mut self) -> Vec<pci::HolderReply> {
        let lives = self.hardware.lives.clone();
        lives.calmly(|| {
            let mut all = Vec::new();
            loop {
                let index = all.len() as u32;
                match self.oversee(BadgeKind::Supervisor, pci::Request::Holder { index }) {
                    Outcome::Reply(reply) => match pci::HolderReply::decode(&reply) {
                        Ok(holder) => all.push(holder),
                        Err(_) => return all,
                    },
                    other => panic!("{other:?} is no reply with a holder"),
                }
            }
        })
    }

    /// What a refused request must not change.
    pub fn shape(&mut self) -> Shape {
        let lives = self.hardware.lives.clone();
        lives.calmly(|| {
            let pci = self.figures();
            let supervisor = Badge::plain(BadgeKind::Supervisor, 0);
            let iommu = iommu::Stub(self.iommu.with(supervisor)).figures();
            let msi = msi::Stub(self.msi.with(supervisor)).figures();
            let (iommu, msi) = (iommu.expect("figures"), msi.expect("figures"));
            Shape {
                caps: self.kernel.shape(),
                pci: (pci.devices, pci.assigned, pci.slots_used, pci.untyped_used),
                iommu: iommu::FiguresReply {
                    operations: 0,
                    refused: 0,
                    faults: 0,
                    ..iommu
                },
                msi: (msi.vectors, msi.free),
            }
        })
    }

    /// Lets time pass until the next timer, if one is armed, and lets that run out.
    pub fn tick(&mut self) -> bool {
        let now = self.hardware.clock.now_us();
        let (alarm, wake) = (self.pci.env().alarm, self.memory.wake.get());
        let Some(next) = alarm.into_iter().chain(wake).min() else {
            return false;
        };
        self.hardware.clock.advance_us(next.saturating_sub(now));
        if alarm == Some(next) {
            self.pci.env_mut().alarm = None;
            self.work_pci(Shard::on_timer);
        } else {
            self.memory.wake.set(None);
            self.iommu.work(|shard| shard.on_timer());
        }
        true
    }

    /// Signals reach their servers, answers their clients; the supervisor goes on.
    pub fn deliver(&mut self) {
        for _ in self.hardware.unit.take_interrupts() {
            self.iommu.work(|shard| shard.on_interrupt(0));
        }
        if self.memory.trouble.take() {
            self.work_pci(Shard::on_trouble);
        }
        let answers = std::mem::take(&mut self.pci.env_mut().answers);
        for (ticket, reply) in answers {
            // A client that has died since hears nothing.
            let waiting =
                (0..)
                    .zip(&self.told.clients)
                    .find_map(|(client, about)| match about.waits {
                        Some((waits, wait)) if waits == ticket => Some((client, wait)),
                        _ => None,
                    });
            if let Some((client, wait)) = waiting {
                self.told.of(client).waits = None;
                self.hear(client, wait, &reply);
            }
        }
        self.supervise();
    }

    fn hear(&mut self, client: u16, wait: Wait, reply: &Message) {
        match wait {
            Wait::Release(device) if reply.label == 0 => {
                self.told.of(client).devices.remove(&device);
            }
            _ => {}
        }
    }

    /// Stops a client: from now on it does nothing, and the supervisor takes it down.
    pub fn kill(&mut self, client: u16) {
        let about = self.told.of(client);
        assert_eq!(about.life, Life::Alive);
        about.life = Life::Dying;
        about.waits = None;
        for device in about.devices.values_mut() {
            device.tense = crate::told::Tense::Leaving;
        }
        self.pci.env_mut().done = false;
        self.oversee(
            BadgeKind::Supervisor,
            pci::Request::ClientGone {
                client: ClientId(client),
            },
        );
        self.dying.push(client);
    }

    /// Goes on with taking clients down once the pci-server owes nothing.
    fn supervise(&mut self) {
        if self.dying.is_empty() || !std::mem::take(&mut self.pci.env_mut().done) {
            return;
        }
        let Outcome::Reply(reply) = self.oversee(BadgeKind::Supervisor, pci::Request::Pending {})
        else {
            panic!("the supervisor was parked");
        };
        let pending = pci::PendingReply::decode(&reply).expect("a count");
        if pending.count != 0 {
            return;
        }
        let supervisor = Badge::plain(BadgeKind::Supervisor, 0);
        for client in std::mem::take(&mut self.dying) {
            let id = ClientId(client);
            let iommu = iommu::Stub(self.iommu.with(supervisor));
            let gone = || until_it_lives(|| iommu.client_gone(id)).expect("the client's memory");
            while gone().left > 0 {}
            let msi = msi::Stub(self.msi.with(supervisor));
            let left = until_it_lives(|| msi.client_gone(id)).expect("the client's vectors");
            assert_eq!(left.vectors, 0, "client {client} had vectors left");
            self.kernel.bury(client);
            self.told.bury(client);
        }
    }

    /// The badge of the capability in a slot.
    #[must_use]
    pub fn badge(&self, place: Place) -> Badge {
        match self.kernel.object(place) {
            Some(Object::Endpoint { badge, .. }) => Badge::from_word(badge).expect("our badge"),
            other => panic!("{other:?} in {place:?} is no endpoint"),
        }
    }

    /// The address of a device.
    #[must_use]
    pub fn at(device: usize) -> Sbdf {
        crate::hardware::device(device)
    }
}

/// Asks again as long as the server was restarted instead of an answer.
fn again(mut ask: impl FnMut() -> Outcome) -> Outcome {
    for _ in 0..PATIENCE {
        match ask() {
            Outcome::Reply(reply) if is_restarted(&reply) => {}
            outcome => return outcome,
        }
    }
    panic!("the server never lives to answer");
}
