//! Device capabilities of the [`World`], and the shard's ledger.

use ledger::Words;

use super::*;
use crate::common::kernel::REFUSED;

impl World {
    /// Masters of narrowed capabilities follow those of devices.
    const VIEWS: u16 = 1000;

    fn mint(&mut self, key: u16, badge: Badge, client: ClientId, slot: u16) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        if self.masters.contains_key(&key) {
            // The slot that its number says is occupied.
            return Err(REFUSED);
        }
        let master = self.kernel.take_slots(1)?;
        let object = Object::Device {
            badge: badge.to_word(),
        };
        self.kernel
            .insert(Place::Shard(master), object, None)
            .unwrap();
        // The slot is the same for the same number: it is found again.
        self.masters.insert(key, master);
        let window = Place::Window(client.0, slot);
        self.kernel.try_effect()?;
        if let Err(refusal) = self
            .kernel
            .insert(window, object, Some(Place::Shard(master)))
        {
            self.masters.remove(&key);
            self.kernel.delete(Place::Shard(master));
            self.kernel.free_slots(master, 1);
            return Err(refusal);
        }
        Ok(())
    }
    fn unmint(&mut self, key: u16) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        let Some(master) = self.masters.remove(&key) else {
            assert!(self.lives > 0, "no device capability to revoke");
            return Ok(());
        };
        self.kernel.revoke_at(Place::Shard(master));
        self.kernel.delete(Place::Shard(master));
        self.kernel.free_slots(master, 1);
        Ok(())
    }
}

impl Grants for World {
    fn place_device(
        &mut self,
        assignment: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        self.mint(assignment, badge, client, slot)?;
        self.did.push(Did::PlacedDevice(assignment));
        Ok(())
    }
    fn revoke_device(&mut self, assignment: u16) -> Result<(), Refusal> {
        self.unmint(assignment)?;
        self.did.push(Did::RevokedDevice(assignment));
        Ok(())
    }
    fn place_view(
        &mut self,
        view: u16,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        assert!((1..=pci_core::shard::MAX_VIEWS).contains(&usize::from(view)));
        self.mint(Self::VIEWS + view, badge, client, slot)
    }
    fn revoke_view(&mut self, view: u16) -> Result<(), Refusal> {
        self.unmint(Self::VIEWS + view)
    }
    fn keep_masters(&mut self, assignments: u64, views: u64) -> Result<(), Refusal> {
        let stays = |key: u16| match key.checked_sub(Self::VIEWS) {
            Some(view) => views >> view & 1 != 0,
            None => assignments >> key & 1 != 0,
        };
        let gone: Vec<u16> = (self.masters.keys().copied())
            .filter(|key| !stays(*key))
            .collect();
        gone.into_iter().try_for_each(|key| self.unmint(key))
    }
}

impl Words for World {
    fn count(&self) -> usize {
        self.kernel.count()
    }
    fn load(&self, at: usize) -> u64 {
        self.kernel.load(at)
    }
    fn store(&mut self, at: usize, value: u64) {
        self.kernel.store(at, value);
    }
}
