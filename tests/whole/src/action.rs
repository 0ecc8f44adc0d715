//! [`Action`]: one thing that a client, a device, the operator or time does.
//!
//! An action that makes no sense just now (a dead client's, on an empty slot) is
//! tried all the same where a program could try it, and does nothing where it could not.

use ipc_proto::{
    ANY_IOVA, Access, BadgeKind, ContextChoice, Mechanism, Message, PagePreference, Switch, iommu,
    pci,
};

use crate::hardware::device;
use crate::kernel::{Object, Place, Server};
use crate::mortal::Mortal;
use crate::told::{self, Life, Mapping, Tense, Wait};
use crate::world::{Outcome, World};

/// A client's number.
pub type Client = u16;
/// A device's number: index of [`crate::hardware::DEVICES`].
pub type Device = usize;
/// A buffer's number among a client's.
pub type Buffer = u16;

/// One thing that happens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A client asks for a device.
    Assign(Client, Device, ContextChoice),
    /// It gives it back.
    Release(Client, Device),
    /// It resets it.
    Reset(Client, Device),
    /// It agrees to a reset of its bus, and asks for one.
    BusReset(Client, Device),
    /// It lets it issue requests, or not.
    Master(Client, Device, Switch),
    /// It enables so many messages.
    Messages(Client, Device, u16),
    /// It disables them.
    Silence(Client, Device),
    /// It asks for a page of its registers.
    Registers(Client, Device),
    /// It writes a register of configuration space.
    Configure(Client, Device, u16, u32),
    /// It allocates a buffer of so many pages.
    Alloc(Client, Buffer, u16),
    /// It maps a buffer in its shared context, or in that of a device.
    Map(Client, Buffer, Access, Option<Device>),
    /// It unmaps it.
    Unmap(Client, Buffer),
    /// It frees it.
    Free(Client, Buffer),
    /// It gives a buffer to another client, which imports it as its own buffer.
    Share(Client, Buffer, Client, Buffer),
    /// It copies a device's capability to another client.
    Hand(Client, Device, Client),
    /// It uses every capability that it was ever handed.
    UseCopies(Client),
    /// It sends any message over a capability of its window, or to a server (no slot).
    Babble(Client, Option<u16>, u64, Vec<u64>),
    /// It dies.
    Kill(Client),
    /// A device is pulled out without a word.
    Pull(Device),
    /// Another one is put in its place.
    Plug(Device),
    /// The operator has the buses scanned.
    Scan,
    /// The operator takes a device away.
    Remove(Device),
    /// A device stops to answer.
    Vanish(Device),
    /// A server is killed, and started again.
    Restart(Mortal),
    /// A server is killed before its effect of this number of something else, if there are so many.
    During(Mortal, u32, Box<Action>),
    /// Time passes until the next timer.
    Tick,
}

// Operations without arguments.
const RELEASE: u64 = 0x110;
const UNMAP: u64 = 0x212;
const FREE: u64 = 0x213;

/// The window slot of a device's capability; its frame and messages follow.
pub(crate) fn device_slot(device: Device) -> u16 {
    device as u16 * 8
}

/// The window slot of a buffer's capability; its frames follow.
pub(crate) fn buffer_slot(buffer: Buffer) -> u16 {
    64 + buffer * 8
}

impl World<'_> {
    /// Does one thing. What it is told by replies goes into [`World::told`].
    pub fn act(&mut self, action: &Action) {
        use Action as A;
        let deaths = self.hardware.lives.deaths();
        match *action {
            A::Pull(device) => self.hardware.pull(device),
            A::Plug(number) if !self.hardware.present(device(number)) => {
                self.hardware.plug(number);
            }
            A::Plug(_) => {}
            A::Scan => {
                self.oversee(BadgeKind::Admin, pci::Request::Rescan {});
            }
            A::Remove(number) => {
                let device = device(number);
                self.oversee(BadgeKind::Admin, pci::Request::Remove { device });
            }
            A::Vanish(number) => self.hardware.silence(number),
            A::Restart(server) => self.restart(server),
            A::During(server, effect, ref action) => {
                let lives = self.hardware.lives.clone();
                lives.doom([(server, effect)]);
                self.act(action);
                lives.doom([]);
                return;
            }
            A::Tick => {
                self.tick();
            }
            ref other => self.client_acts(other),
        }
        self.deliver();
        if self.hardware.lives.deaths() != deaths {
            self.look_at_vectors();
        }
        self.reconcile();
        self.note_messages();
    }

    fn client_acts(&mut self, action: &Action) {
        use Action as A;
        let client = match action {
            A::Assign(client, ..)
            | A::Release(client, _)
            | A::Reset(client, _)
            | A::BusReset(client, _)
            | A::Master(client, ..)
            | A::Messages(client, ..)
            | A::Silence(client, _)
            | A::Registers(client, _)
            | A::Configure(client, ..)
            | A::Alloc(client, ..)
            | A::Map(client, ..)
            | A::Unmap(client, _)
            | A::Free(client, _)
            | A::Share(client, ..)
            | A::Hand(client, ..)
            | A::UseCopies(client)
            | A::Babble(client, ..)
            | A::Kill(client) => *client,
            _ => return,
        };
        let about = self.told.of(client);
        let waits = about.waits.is_some();
        if about.life != Life::Alive || (waits && *action != A::Kill(client)) {
            return;
        }
        match *action {
            A::Assign(_, device, context) => self.assign(client, device, context),
            A::Release(_, device) => {
                let outcome = self.device_call(client, device, pci::Request::Release {});
                self.release_answered(client, device, &outcome);
            }
            A::Reset(_, device) => {
                let outcome = self.device_call(client, device, pci::Request::Reset {});
                self.parked(client, &outcome, Wait::Reset(device));
            }
            A::BusReset(_, device) => {
                self.device_call(client, device, pci::Request::AgreeBusReset {});
                let outcome = self.device_call(client, device, pci::Request::BusReset {});
                self.parked(client, &outcome, Wait::BusReset(device));
            }
            A::Master(_, device, switch) => {
                self.device_call(client, device, pci::Request::BusMaster { switch });
            }
            A::Messages(_, device, count) => {
                let mechanism = if device == 1 {
                    Mechanism::MsiX
                } else {
                    Mechanism::Msi
                };
                let request = pci::Request::MsiEnable {
                    mechanism,
                    first: 0,
                    count,
                    slot: device_slot(device) + 2,
                };
                self.device_call(client, device, request);
            }
            A::Silence(_, device) => {
                self.device_call(client, device, pci::Request::MsiDisable {});
            }
            A::Registers(_, device) => {
                let request = pci::Request::BarFrames {
                    bar: 0,
                    first: 0,
                    count: 1,
                    slot: device_slot(device) + 1,
                };
                self.device_call(client, device, request);
            }
            A::Configure(_, device, offset, value) => {
                let request = pci::Request::ConfigWrite {
                    offset,
                    width: ipc_proto::Width::Dword,
                    value,
                };
                let outcome = self.device_call(client, device, request);
                self.parked(client, &outcome, Wait::Reset(device));
            }
            A::Alloc(_, buffer, pages) => self.alloc(client, buffer, pages),
            A::Map(_, buffer, access, device) => self.map(client, buffer, access, device),
            A::Unmap(_, buffer) => {
                let deaths = self.deaths();
                let done = self.succeeds(client, buffer, iommu::Request::Unmap {});
                let gone = done
                    || (deaths != self.deaths() && self.mapped_at(client, buffer) == Some(None));
                if gone && let Some(buffer) = self.told.of(client).buffers.get_mut(&buffer) {
                    buffer.mapping = None;
                }
            }
            A::Free(_, buffer) => {
                let deaths = self.deaths();
                let done = self.succeeds(client, buffer, iommu::Request::Free {});
                let gone = || {
                    self.kernel
                        .object(Place::Window(client, buffer_slot(buffer)))
                        .is_none()
                };
                if (done || (deaths != self.deaths() && gone()))
                    && let Some(buffer) = self.told.of(client).buffers.get(&buffer)
                {
                    let badge = buffer.badge;
                    self.told.forget_buffer(badge);
                }
            }
            A::Share(_, buffer, to, as_buffer) => self.share(client, buffer, to, as_buffer),
            A::Hand(_, device, to) => {
                let from = Place::Window(client, device_slot(device));
                if self.told.of(to).life == Life::Alive && self.kernel.object(from).is_some() {
                    self.copies += 1;
                    self.kernel.copy_on(from, Place::Own(to, self.copies));
                }
            }
            A::UseCopies(_) => self.use_copies(client),
            // By chance right, and an action of its own.
            A::Babble(_, Some(_), RELEASE | UNMAP | FREE, ref words) if words.is_empty() => {}
            A::Babble(_, slot, label, ref words) => {
                let message = Message::with_words(label, words).expect("a short message");
                let outcome = match slot {
                    Some(slot) => self.call(Place::Window(client, slot), &message),
                    None if label >> 8 == 1 => self.ask(client, Server::Pci, &message),
                    None => self.ask(client, Server::Iommu, &message),
                };
                self.parked(client, &outcome, Wait::Other);
            }
            A::Kill(_) => self.kill(client),
            _ => {}
        }
    }

    pub(crate) fn device_call(
        &mut self,
        client: Client,
        device: Device,
        request: pci::Request,
    ) -> Outcome {
        let place = Place::Window(client, device_slot(device));
        self.call(place, &request.encode())
    }

    fn parked(&mut self, client: Client, outcome: &Outcome, wait: Wait) {
        if let Outcome::Later(ticket) = outcome {
            self.told.of(client).waits = Some((*ticket, wait));
        }
    }

    pub(crate) fn release_answered(&mut self, client: Client, device: Device, outcome: &Outcome) {
        self.parked(client, outcome, Wait::Release(device));
        match outcome {
            Outcome::Reply(reply) if reply.label == 0 => self.told.forget_device(device),
            Outcome::Later(_) => {
                if let Some(device) = self.told.of(client).devices.get_mut(&device) {
                    device.tense = Tense::Leaving;
                }
            }
            _ => {}
        }
    }

    fn assign(&mut self, client: Client, number: Device, context: ContextChoice) {
        let slot = device_slot(number);
        let request = pci::Request::Assign {
            device: device(number),
            slot,
            context,
        };
        let deaths = self.deaths();
        let Outcome::Reply(reply) = self.ask(client, Server::Pci, &request.encode()) else {
            panic!("an assignment was parked");
        };
        if reply.label != 0 && self.deaths() != deaths {
            // What was asked for first may have been done, and the answer have died with the server.
            self.release_unasked(client, number);
        }
        if let Ok(reply) = pci::AssignReply::decode(&reply) {
            let badge = self.badge(Place::Window(client, slot));
            let registers = self.hardware.registers_of(number);
            let held = told::Device {
                badge,
                context: reply.context,
                registers: (registers.start, registers.end),
                tense: Tense::Given,
            };
            if let Some((other, _)) = self.told.holder(number) {
                panic!(
                    "{} belongs to client {other} and was assigned again",
                    device(number)
                );
            }
            self.told.of(client).devices.insert(number, held);
        }
    }

    /// A request about a buffer: did it succeed?
    pub(crate) fn succeeds(
        &mut self,
        client: Client,
        buffer: Buffer,
        request: iommu::Request,
    ) -> bool {
        let place = Place::Window(client, buffer_slot(buffer));
        matches!(self.call(place, &request.encode()), Outcome::Reply(reply) if reply.label == 0)
    }

    fn alloc(&mut self, client: Client, buffer: Buffer, pages: u16) {
        let slot = buffer_slot(buffer);
        let bytes = u64::from(pages) << 12;
        // Every other buffer is its holder's alone.
        let private = !buffer.is_multiple_of(2);
        let request = if private {
            iommu::Request::AllocPrivate {
                bytes,
                slot,
                frames: slot + 1,
            }
        } else {
            iommu::Request::Alloc {
                bytes,
                pages: PagePreference::Small,
                slot,
            }
        };
        let deaths = self.deaths();
        let outcome = self.ask(client, Server::Iommu, &request.encode());
        if !matches!(outcome, Outcome::Reply(reply) if reply.label == 0) {
            if self.deaths() != deaths {
                self.free_unasked(client, buffer);
            }
            return;
        }
        let frames = iommu::Request::Frames {
            first: 0,
            count: pages,
            slot: slot + 1,
        };
        if !private && !self.succeeds(client, buffer, frames) {
            self.free_unasked(client, buffer);
            return;
        }
        let page = |number: u16| match self.kernel.object(Place::Window(client, slot + 1 + number))
        {
            Some(Object::Frame { base, bits: 12 }) => base,
            other => panic!("{other:?} is no page of a buffer"),
        };
        let buffer_told = told::Buffer {
            badge: self.badge(Place::Window(client, slot)),
            pages: (0..pages).map(page).collect(),
            origin: None,
            mapping: None,
        };
        self.told.of(client).buffers.insert(buffer, buffer_told);
    }

    fn map(&mut self, client: Client, buffer: Buffer, access: Access, device: Option<Device>) {
        let context = device.and_then(|device| self.told.of(client).devices.get(&device));
        let context = context.map_or(0, |device| device.context);
        let request = iommu::Request::Map {
            iova: ANY_IOVA,
            access,
            context,
        };
        let place = Place::Window(client, buffer_slot(buffer));
        let deaths = self.deaths();
        let Outcome::Reply(reply) = self.call(place, &request.encode()) else {
            return;
        };
        let mut iova = iommu::MapReply::decode(&reply).ok().map(|reply| reply.iova);
        if self.deaths() != deaths
            && let Some(told) = self.told.of(client).buffers.get(&buffer)
            && told.mapping.is_none()
        {
            iova = self.mapped_at(client, buffer).flatten();
        }
        if let Some(iova) = iova {
            let mapping = Mapping {
                iova,
                access,
                context,
            };
            let buffer = self.told.of(client).buffers.get_mut(&buffer);
            buffer.expect("a buffer that was mapped").mapping = Some(mapping);
        }
    }

    fn share(&mut self, client: Client, buffer: Buffer, to: Client, as_buffer: Buffer) {
        let from = Place::Window(client, buffer_slot(buffer));
        let other = self.told.of(to);
        let free = other.life == Life::Alive && other.waits.is_none() && to != client;
        let Some(Object::Endpoint { badge, .. }) = self.kernel.object(from).filter(|_| free) else {
            return;
        };
        let slot = buffer_slot(as_buffer);
        let mut message = iommu::Request::Import { slot }.encode();
        message.cap = Some(badge);
        let deaths = self.deaths();
        let Outcome::Reply(reply) = self.ask(to, Server::Iommu, &message) else {
            return;
        };
        if reply.label != 0 && self.deaths() != deaths {
            self.free_unasked(to, as_buffer);
        }
        if reply.label == 0 {
            let badge = self.badge(Place::Window(to, slot));
            let owned = &self.told.of(client).buffers[&buffer];
            let imported = told::Buffer {
                badge,
                pages: owned.pages.clone(),
                origin: Some(owned.origin.unwrap_or(owned.badge)),
                mapping: None,
            };
            self.told.of(to).buffers.insert(as_buffer, imported);
        }
    }

    fn use_copies(&mut self, client: Client) {
        let shape = self.kernel.shape();
        let own = shape
            .into_keys()
            .filter(|place| matches!(place, Place::Own(of, _) if *of == client));
        for place in own.collect::<Vec<_>>() {
            let held = self.badge(place);
            let deaths = self.deaths();
            let outcome = self.call(place, &pci::Request::Info {}.encode());
            // A server that starts again takes devices back that it finds gone.
            if self.deaths() != deaths {
                self.reconcile();
            }
            let Outcome::Reply(reply) = outcome else {
                panic!("a question was parked");
            };
            let info = pci::InfoReply::decode(&reply);
            let of = |device: &told::Device| device.badge == held && device.tense == Tense::Given;
            let live = self
                .told
                .clients
                .iter()
                .any(|client| client.devices.values().any(of));
            assert!(
                !live || info.is_ok(),
                "a capability of a held device was refused: {info:?}"
            );
        }
    }
}
