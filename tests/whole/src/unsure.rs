//! What a client does that cannot know whether a request was carried out: the server died before it answered, and what it
//! was asked for again it refused. Nothing here is told to the client by anybody: it looks at its own slots, and asks.

use ipc_proto::{ANY_IOVA, Badge, iommu, pci};

use crate::action::{Buffer, Client, Device, buffer_slot, device_slot};
use crate::kernel::{Object, Place};
use crate::told::{self, Tense};
use crate::world::{Outcome, World};

impl World<'_> {
    /// How often a server has died.
    pub(crate) fn deaths(&self) -> u64 {
        self.hardware.lives.deaths()
    }

    /// A device that may lie in its slot although the client was never told so: it is given back.
    pub(crate) fn release_unasked(&mut self, client: Client, number: Device) {
        let place = Place::Window(client, device_slot(number));
        let Some(Object::Endpoint { badge, .. }) = self.kernel.object(place) else {
            return;
        };
        let badge = Badge::from_word(badge).expect("our badge");
        if self.told.holder(number).is_some() {
            return;
        }
        let registers = self.hardware.registers_of(number);
        let held = told::Device {
            badge,
            context: 0,
            registers: (registers.start, registers.end),
            tense: Tense::Leaving,
        };
        self.told.of(client).devices.insert(number, held);
        let outcome = self.device_call(client, number, pci::Request::Release {});
        self.release_answered(client, number, &outcome);
    }

    /// The same for a buffer, which is freed.
    pub(crate) fn free_unasked(&mut self, client: Client, buffer: Buffer) {
        let place = Place::Window(client, buffer_slot(buffer));
        let known = self.told.of(client).buffers.contains_key(&buffer);
        if !known && self.kernel.object(place).is_some() {
            let deaths = self.deaths();
            let freed = self.succeeds(client, buffer, iommu::Request::Free {});
            assert!(freed || self.deaths() != deaths);
        }
    }

    /// Where a buffer is mapped, by the server's word; `None` without one.
    pub(crate) fn mapped_at(&mut self, client: Client, buffer: Buffer) -> Option<Option<u64>> {
        let place = Place::Window(client, buffer_slot(buffer));
        let Outcome::Reply(reply) = self.call(place, &iommu::Request::Info {}.encode()) else {
            return None;
        };
        let info = iommu::InfoReply::decode(&reply).ok()?;
        Some((info.iova != ANY_IOVA).then_some(info.iova))
    }
}
