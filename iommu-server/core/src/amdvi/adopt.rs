//! The AMD back end after a restart: domains, device table entries and interrupt entries as memory has them.

use hw::{Mmio, Sbdf};
use ipc_proto::ClientId;
use system::info::Scope;

use super::device_table::{self, Messages, Recorded};
use super::interrupts::Ids;
use super::operations::SHAPE;
use super::unit::State;
use super::{AmdVi, Domain, FIRST_TABLES, Fate, find_domain};
use crate::TableMemory;
use crate::adopt::{Adopt, Found};
use crate::backend::{Backend, BackendError, DeviceCache, DomainId, InterruptMessage};
use crate::paging::{AddressSpace, Leaf};
use crate::place::Place;
use crate::tables::{Others, Page};

impl<M: Mmio, T: TableMemory> AmdVi<'_, M, T> {
    /// What becomes of a requester's messages when it has no table for them.
    fn messages_of(&self, requester: u16) -> Messages {
        let passes = |scope: &Scope| matches!(scope, Scope::IoApic { requester: id, .. } | Scope::Hpet { requester: id, .. } if *id == requester);
        if self.scopes.iter().flatten().any(passes) {
            Messages::Pass
        } else {
            self.messages
        }
    }

    /// Blocks whoever is let through and not known; what was not taken up of messages leads nowhere.
    fn block_others(&mut self, devices: Page, known: &dyn Fn(Sbdf) -> bool) {
        for requester in 0..=u16::MAX {
            let id = Sbdf::from_requester_id(self.segment, requester);
            if !device_table::is_blocked(&self.tables, devices, requester) && !known(id) {
                device_table::disable(&mut self.tables, devices, requester, Recorded::Yes);
            }
            let at = device_table::interrupts_at(&self.tables, devices, requester);
            let stays = at.is_some_and(|at| self.interrupts.leads_to(&self.tables, requester, at));
            if !stays {
                let messages = self.messages_of(requester);
                device_table::reset_interrupts(&mut self.tables, devices, requester, messages);
            }
        }
        self.interrupts.clear_others(&mut self.tables);
    }
}

impl<M: Mmio, T: TableMemory> Adopt for AmdVi<'_, M, T> {
    fn adopt_domain(
        &mut self,
        domain: DomainId,
        owner: ClientId,
        mark: u32,
    ) -> Result<(), BackendError> {
        let place = usize::from(domain.0).wrapping_sub(1);
        let free = self
            .domains
            .get(place)
            .is_some_and(|place| place.as_ref().is_none());
        let root = self.tables.page(mark).filter(|_| free);
        let mut space = root
            .and_then(|root| AddressSpace::adopt(&mut self.tables, root, SHAPE))
            .ok_or(BackendError::NoDomain)?;
        let granted = space.count().max(FIRST_TABLES);
        space.allow(granted);
        if let Some(share) = self.shares.get_mut(usize::from(owner.0)) {
            *share = share.saturating_sub(granted);
        }
        if let Some(slot) = self.domains.get_mut(place) {
            *slot = Place::Taken(Domain {
                space,
                owner,
                devices: 0,
                fate: Fate::Usable,
            });
        }
        Ok(())
    }

    fn adopt_requester(&mut self, id: Sbdf, domain: DomainId, _: DeviceCache) -> Found {
        let taken_by = self.unit_of(id);
        let (Some(devices), Some(found)) = (self.devices, find_domain(self.domains, domain)) else {
            return Found::Blocked;
        };
        found.devices = found.devices.saturating_add(1);
        let (requester, tables) = (id.requester_id(), &mut self.tables);
        let target = (found.space.root(), SHAPE.levels, domain.0);
        if taken_by.is_some() && device_table::leads_to(tables, devices, requester, target) {
            return Found::Within;
        }
        if !device_table::is_blocked(tables, devices, requester) {
            device_table::disable(tables, devices, requester, Recorded::Yes);
        }
        if device_table::is_silent(tables, devices, requester) {
            Found::Silenced
        } else {
            Found::Blocked
        }
    }

    fn adopt_messages(
        &mut self,
        device: Sbdf,
        aliases: &[Sbdf],
        sent: InterruptMessage,
        count: u16,
    ) -> bool {
        let Some(devices) = self.devices else {
            return false;
        };
        let own = device.requester_id();
        let Some(at) = device_table::interrupts_at(&self.tables, devices, own) else {
            return false;
        };
        let mut ids = Ids::new();
        for id in aliases.iter().chain([&device]).map(|id| id.requester_id()) {
            if device_table::interrupts_at(&self.tables, devices, id) != Some(at)
                || ids.push(id).is_err()
            {
                return false;
            }
        }
        self.interrupts
            .adopt(&self.tables, device, (&ids, at), (sent.data, count))
    }

    fn leaf(&self, domain: DomainId, from: u64) -> Option<Leaf> {
        let place = usize::from(domain.0).checked_sub(1)?;
        let found = self.domains.get(place)?.as_ref()?;
        found.space.leaf(&self.tables, from)
    }

    fn scrub(&mut self, domain: DomainId, iova: u64, bytes: u64) {
        if let Some(found) = find_domain(self.domains, domain) {
            found.space.scrub(&mut self.tables, iova, bytes);
        }
    }

    fn settle(&mut self, known: &dyn Fn(Sbdf) -> bool, doubt: &mut dyn FnMut(ClientId)) {
        if let Some(devices) = self.devices {
            self.block_others(devices, known);
        }
        self.tables.write_back();
        for entry in &mut self.units {
            // One that does not is in a state that says so.
            let _ = entry.unit.forget_everything(&mut self.tables);
        }
        let failed = self
            .units
            .iter()
            .any(|entry| entry.unit.state() != State::Running);
        let mut others = Others::Free;
        for found in self.domains.iter_mut().filter_map(Place::as_mut) {
            if failed && found.devices > 0 {
                others = Others::Unknown;
                found.fate = Fate::Retired;
                doubt(found.owner);
            }
        }
        self.tables.settle(others);
    }
}
