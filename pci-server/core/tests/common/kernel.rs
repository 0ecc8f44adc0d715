//! [`Kernel`]: capabilities as seL4 has them, as far as the bank and the grants
//! need them: derivation, untypeds with a watermark, slots of the shard and of
//! the clients' windows.

use std::collections::{BTreeMap, BTreeSet};

use ipc_proto::{ClientId, Refusal, Rule};
use ledger::Words;
use pci_core::bank::Objects;

/// Where a capability lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    Shard(u32),
    Window(u16, u16),
    /// Copied on by a client.
    Elsewhere(u32),
}

/// What a capability is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    Untyped { base: u64, bits: u8 },
    Frame { base: u64, bits: u8 },
    Device { badge: u64 },
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Cap {
    object: Object,
    parent: Option<Place>,
    /// Watermark of an untyped.
    used: u64,
}

/// Capabilities by place.
#[derive(Default)]
pub struct Kernel {
    caps: BTreeMap<Place, Cap>,
    slots: BTreeSet<u32>,
    /// Slots that may be taken, above those of the untypeds given at boot.
    pub slot_limit: u32,
    /// The shard's slots begin here.
    pub first_slot: u32,
    /// Calls that can fail, so far; and which of them shall.
    pub calls: usize,
    pub fail_at: Option<usize>,
    /// Bits of the windows.
    pub window_bits: u8,
    copies: u32,
    /// What the shard does that anybody notices, so far; and after how much of it it is killed.
    pub effects: u64,
    pub killed_at: Option<u64>,
    pub ledger: Vec<u64>,
}

pub const REFUSED: Refusal = Refusal::new(Rule::KernelRefused, 77);

impl Kernel {
    pub fn new() -> Self {
        Self {
            slot_limit: 4096,
            first_slot: 1000,
            window_bits: 8,
            ledger: vec![0; pci_core::notes::WORDS],
            ..Self::default()
        }
    }

    /// An untyped that the root task gave.
    pub fn give_untyped(&mut self, slot: u32, base: u64, bits: u8) {
        self.caps.insert(
            Place::Shard(slot),
            Cap {
                object: Object::Untyped { base, bits },
                parent: None,
                used: 0,
            },
        );
    }

    /// Counts a call that can fail; the one chosen by the test does.
    pub fn may_fail(&mut self) -> Result<(), Refusal> {
        self.calls += 1;
        if self.fail_at == Some(self.calls - 1) {
            Err(REFUSED)
        } else {
            Ok(())
        }
    }

    /// Is the shard dead?
    pub fn is_dead(&self) -> bool {
        self.killed_at.is_some_and(|at| self.effects >= at)
    }

    /// Counts something that the shard does; `false` if it does not come to that.
    pub fn effect(&mut self) -> bool {
        if self.is_dead() {
            return false;
        }
        self.effects += 1;
        true
    }

    /// The same for what can fail.
    pub fn try_effect(&mut self) -> Result<(), Refusal> {
        if self.effect() { Ok(()) } else { Err(REFUSED) }
    }

    /// The shard begins again: what it knew of its slots is gone, but for those of its masters.
    pub fn restart(&mut self, masters: impl Iterator<Item = u32>) {
        self.killed_at = None;
        self.fail_at = None;
        self.slots = masters.collect();
    }

    /// Capabilities in slots that the shard thinks are free.
    pub fn forgotten(&self) -> Vec<u32> {
        let shards = self.caps.keys().filter_map(|place| match place {
            Place::Shard(slot) if *slot >= self.first_slot => Some(*slot),
            _ => None,
        });
        shards.filter(|slot| !self.slots.contains(slot)).collect()
    }

    pub fn take_slots(&mut self, count: u32) -> Result<u32, Refusal> {
        let end = self.first_slot + self.slot_limit;
        let first = (self.first_slot..end)
            .find(|&first| {
                first + count <= end
                    && (first..first + count).all(|slot| !self.slots.contains(&slot))
            })
            .ok_or(Refusal::new(
                Rule::SlotsExhausted,
                u64::from(self.slot_limit),
            ))?;
        self.slots.extend(first..first + count);
        Ok(first)
    }

    pub fn free_slots(&mut self, first: u32, count: u32) {
        for slot in first..first + count {
            assert!(self.slots.remove(&slot), "slot {slot} given back twice");
            assert!(
                !self.caps.contains_key(&Place::Shard(slot)),
                "slot {slot} given back full"
            );
        }
    }

    pub fn slots_used(&self) -> u32 {
        self.slots.len() as u32
    }

    fn children(&self, of: Place) -> Vec<Place> {
        self.caps
            .iter()
            .filter(|(_, cap)| cap.parent == Some(of))
            .map(|(place, _)| *place)
            .collect()
    }

    pub fn revoke_at(&mut self, place: Place) {
        for child in self.children(place) {
            self.revoke_at(child);
            self.caps.remove(&child);
        }
    }

    pub fn delete(&mut self, place: Place) {
        if let Some(cap) = self.caps.remove(&place) {
            for child in self.children(place) {
                if let Some(child) = self.caps.get_mut(&child) {
                    child.parent = cap.parent;
                }
            }
        }
    }

    pub fn object(&self, place: Place) -> Option<Object> {
        self.caps.get(&place).map(|cap| cap.object)
    }

    /// Everything that lies in a client's window, or was copied on.
    pub fn held_by_clients(&self) -> Vec<(Place, Object)> {
        self.caps
            .iter()
            .filter(|(place, _)| !matches!(place, Place::Shard(_)))
            .map(|(place, cap)| (*place, cap.object))
            .collect()
    }

    pub fn insert(
        &mut self,
        place: Place,
        object: Object,
        parent: Option<Place>,
    ) -> Result<(), Refusal> {
        if let Place::Window(_, slot) = place {
            if slot >> self.window_bits != 0 {
                return Err(Refusal::new(Rule::WindowSlotOutOfRange, u64::from(slot)));
            }
            if self.caps.contains_key(&place) {
                return Err(Refusal::new(Rule::WindowSlotOccupied, u64::from(slot)));
            }
        }
        assert!(!self.caps.contains_key(&place), "{place:?} is occupied");
        self.caps.insert(
            place,
            Cap {
                object,
                parent,
                used: 0,
            },
        );
        Ok(())
    }

    /// A client copies what it got to another place.
    pub fn client_copies(&mut self, from: Place) -> Place {
        let object = self.object(from).unwrap();
        let parent = self.caps.get(&from).unwrap().parent;
        self.copies += 1;
        let place = Place::Elsewhere(self.copies);
        self.insert(place, object, parent).unwrap();
        place
    }

    fn retype(&mut self, untyped: u32, bits: u8, count: u32, frames: bool) -> Result<u32, Refusal> {
        self.may_fail()?;
        self.try_effect()?;
        assert!((1..=256).contains(&count), "fan-out {count}");
        let place = Place::Shard(untyped);
        let idle = self.children(place).is_empty();
        let cap = self.caps.get_mut(&place).expect("retype of an empty slot");
        let Object::Untyped { base, bits: whole } = cap.object else {
            panic!("{:?} is no untyped", cap.object)
        };
        let start = if idle { 0 } else { cap.used }.next_multiple_of(1 << bits);
        let end = start + (u64::from(count) << bits);
        if end > 1 << whole {
            return Err(Refusal::new(Rule::KernelRefused, 10));
        }
        let first = self.take_slots(count)?;
        self.caps.get_mut(&place).unwrap().used = end;
        for n in 0..count {
            let base = base + start + (u64::from(n) << bits);
            let object = if frames {
                Object::Frame { base, bits }
            } else {
                Object::Untyped { base, bits }
            };
            self.insert(Place::Shard(first + n), object, Some(place))
                .unwrap();
        }
        Ok(first)
    }

    /// All that matters, for comparisons.
    pub fn state(&self) -> (Vec<(Place, Object)>, u32) {
        (
            self.caps
                .iter()
                .map(|(place, cap)| (*place, cap.object))
                .collect(),
            self.slots_used(),
        )
    }
}

impl Objects for Kernel {
    fn split(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal> {
        self.retype(untyped, bits, count, false)
    }
    fn frames(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal> {
        assert!(bits == 12 || bits == 21, "no frame has 2^{bits} bytes");
        self.retype(untyped, bits, count, true)
    }
    fn revoke(&mut self, slot: u32) -> Result<(), Refusal> {
        self.may_fail()?;
        self.try_effect()?;
        self.revoke_at(Place::Shard(slot));
        Ok(())
    }
    fn forget(&mut self, first: u32, count: u32) {
        self.free_slots(first, count);
    }
    fn place(&mut self, frame: u32, client: ClientId, slot: u16) -> Result<(), Refusal> {
        self.may_fail()?;
        self.try_effect()?;
        let from = Place::Shard(frame);
        let object = self.object(from).expect("an empty slot is copied");
        self.insert(Place::Window(client.0, slot), object, Some(from))
    }
    fn clear(&mut self, client: ClientId, slot: u16) {
        if self.effect() {
            self.delete(Place::Window(client.0, slot));
        }
    }
    fn adopt(&mut self, first: u32, count: u32) -> bool {
        let inside = self.first_slot..self.first_slot + self.slot_limit;
        let run = || first..first.saturating_add(count);
        let free = run().all(|slot| inside.contains(&slot) && !self.slots.contains(&slot));
        if free {
            self.slots.extend(run());
        }
        free
    }
    fn unmap(&mut self, _: u32, _: u8) {}
}

impl Words for Kernel {
    fn count(&self) -> usize {
        self.ledger.len()
    }
    fn load(&self, at: usize) -> u64 {
        self.ledger.get(at).copied().unwrap_or(0)
    }
    fn store(&mut self, at: usize, value: u64) {
        if self.effect() {
            self.ledger[at] = value;
        }
    }
}
