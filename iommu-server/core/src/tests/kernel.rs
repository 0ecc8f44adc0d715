//! [`Kernel`]: the kernel's capabilities as far as the server uses them:
//! slots, derivation, revocation, an untyped's watermark. It panics when the
//! server asks for what the kernel would refuse, and can be told to refuse the
//! nth effect.

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

use ipc_proto::{Badge, ClientId, Turns};
use ledger::Words;

use super::machine::SLOTS;
use super::mortal::Fuse;

use crate::{EffectError, Env, Note, Placed, Slot, Target};

/// The error that provoked refusals carry.
pub const PROVOKED: u64 = 77;
/// `seL4_IllegalOperation`.
const NOT_THAT: u64 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    Untyped { base: u64, bits: u8, used: u64 },
    Frame { base: u64, bits: u8 },
    Endpoint { badge: Badge },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    id: u64,
    parent: u64,
    pub object: Object,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    Own(Slot),
    Window(u16, u16),
}

#[derive(Default)]
struct State {
    caps: BTreeMap<Place, Cap>,
    last_id: u64,
    effects: u64,
    refuse: Option<u64>,
    /// Bytes that the kernel cleared.
    cleared: u64,
    signals: Vec<ClientId>,
    shard_signals: Vec<u16>,
    notes: Vec<Note>,
    wakes: Vec<u64>,
    now_us: u64,
    ledger: Vec<u64>,
    /// After a restart: slots that stay. What is asked for may be done already.
    adopted: Option<BTreeSet<Slot>>,
    /// The ledger was made to lie: the server may name what is not there, and the kernel answers as it would.
    lied: bool,
}

/// A handle; clones share the state.
#[derive(Clone, Default)]
pub struct Kernel(Rc<RefCell<State>>, Fuse);

impl Kernel {
    pub fn with_untypeds(pieces: &[system::info::UntypedPiece]) -> Self {
        Self::mortal(pieces, Fuse::default())
    }

    /// A kernel of a server that dies when the fuse says so.
    pub fn mortal(pieces: &[system::info::UntypedPiece], fuse: Fuse) -> Self {
        let kernel = Self(Rc::default(), fuse);
        kernel.0.borrow_mut().ledger = std::vec![0; crate::notes::WORDS];
        for piece in pieces {
            let object = Object::Untyped {
                base: piece.base,
                bits: piece.bits,
                // Fresh untypeds begin as wholly used: the first retype clears them.
                used: 1 << piece.bits,
            };
            kernel
                .0
                .borrow_mut()
                .insert(Place::Own(piece.slot), 0, object);
        }
        kernel
    }

    /// The server was restarted.
    pub fn restarted(&self) {
        self.0.borrow_mut().adopted = Some(BTreeSet::new());
    }

    /// The ledger as it is.
    pub fn ledger(&self) -> Vec<u64> {
        self.0.borrow().ledger.clone()
    }

    /// Puts something else into the ledger.
    pub fn set_ledger(&self, at: usize, value: u64) {
        let state = &mut *self.0.borrow_mut();
        state.ledger[at] = value;
        state.lied = true;
    }

    /// Refuses the `nth` effect from now on (0: the next), once.
    pub fn refuse(&self, nth: Option<u64>) {
        let state = &mut *self.0.borrow_mut();
        state.refuse = nth.map(|nth| state.effects + nth);
    }

    /// Was the refusal that was asked for given?
    pub fn refused(&self) -> bool {
        let state = self.0.borrow();
        state.refuse.is_some_and(|refuse| refuse < state.effects)
    }

    pub fn caps(&self) -> BTreeMap<Place, Object> {
        let state = self.0.borrow();
        let objects = state.caps.iter().map(|(place, cap)| (*place, cap.object));
        objects.collect()
    }

    /// The same without what a kernel keeps of the past: watermarks.
    pub fn shape(&self) -> BTreeMap<Place, Object> {
        let mut caps = self.caps();
        for object in caps.values_mut() {
            if let Object::Untyped { used, .. } = object {
                *used = 0;
            }
        }
        caps
    }

    pub fn cap_in_window(&self, client: u16, slot: u16) -> Option<Object> {
        let state = self.0.borrow();
        let cap = state.caps.get(&Place::Window(client, slot))?;
        Some(cap.object)
    }

    /// The client moves a capability out of its window, or drops it.
    pub fn drop_from_window(&self, client: u16, slot: u16) {
        self.0
            .borrow_mut()
            .caps
            .remove(&Place::Window(client, slot));
    }

    pub fn cleared(&self) -> u64 {
        self.0.borrow().cleared
    }

    pub fn take_signals(&self) -> Vec<ClientId> {
        std::mem::take(&mut self.0.borrow_mut().signals)
    }

    pub fn take_shard_signals(&self) -> Vec<u16> {
        std::mem::take(&mut self.0.borrow_mut().shard_signals)
    }

    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.0.borrow_mut().notes)
    }

    pub fn take_wakes(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.borrow_mut().wakes)
    }

    pub fn advance_us(&self, micros: u64) {
        self.0.borrow_mut().now_us += micros;
    }
}

impl State {
    fn step(&mut self) -> Result<(), EffectError> {
        self.effects += 1;
        if self.refuse == Some(self.effects - 1) {
            return Err(EffectError::Kernel(PROVOKED));
        }
        Ok(())
    }

    fn insert(&mut self, place: Place, parent: u64, object: Object) {
        self.last_id += 1;
        let cap = Cap {
            id: self.last_id,
            parent,
            object,
        };
        let before = self.caps.insert(place, cap);
        assert!(before.is_none(), "{place:?} is occupied by {before:?}");
    }

    fn cap(&self, slot: Slot) -> Cap {
        match self.caps.get(&Place::Own(slot)) {
            Some(cap) => *cap,
            None => panic!("slot {slot} is empty"),
        }
    }

    /// What the kernel says of an operation on a slot that holds no such thing (`seL4_IllegalOperation`, `seL4_FailedLookup`).
    /// Only a server that believed a ledger that lies asks for it: any other has a mistake.
    fn expect(&self, slot: Slot, fits: impl Fn(&Object) -> bool) -> Result<(), EffectError> {
        let fits = self
            .caps
            .get(&Place::Own(slot))
            .is_some_and(|cap| fits(&cap.object));
        if fits {
            return Ok(());
        }
        assert!(self.lied, "slot {slot} does not hold what it should");
        Err(EffectError::Kernel(NOT_THAT))
    }

    fn revoke(&mut self, slot: Slot) {
        let stays = self.adopted.is_some() || self.lied;
        if stays && !self.caps.contains_key(&Place::Own(slot)) {
            return;
        }
        let mut gone = Vec::from([self.cap(slot).id]);
        while let Some(id) = gone.pop() {
            self.caps.retain(|_, cap| {
                if cap.parent == id {
                    gone.push(cap.id);
                }
                cap.parent != id
            });
        }
    }

    fn has_children(&self, id: u64) -> bool {
        self.caps.values().any(|cap| cap.parent == id)
    }

    /// Takes `count` objects of 2^bits bytes from an untyped, and returns where they begin.
    fn carve(&mut self, slot: Slot, object_bits: u8, count: u64) -> (u64, u64) {
        let cap = self.cap(slot);
        let children = self.has_children(cap.id);
        let Object::Untyped { base, bits, used } = cap.object else {
            panic!("slot {slot} holds no untyped");
        };
        let mut used = used;
        if !children {
            self.cleared += used;
            used = 0;
        }
        used = used.next_multiple_of(1 << object_bits);
        let first = base + used;
        used += count << object_bits;
        assert!(used <= 1 << bits, "untyped in {slot} is too small");
        let object = Object::Untyped { base, bits, used };
        self.caps.insert(Place::Own(slot), Cap { object, ..cap });
        (cap.id, first)
    }
}

impl Words for Kernel {
    fn count(&self) -> usize {
        self.0.borrow().ledger.len()
    }

    fn load(&self, at: usize) -> u64 {
        self.0.borrow().ledger.get(at).copied().unwrap_or(0)
    }

    fn store(&mut self, at: usize, value: u64) {
        self.1.burn();
        if let Some(word) = self.0.borrow_mut().ledger.get_mut(at) {
            *word = value;
        }
    }
}

impl Env for Kernel {
    fn adopt(&mut self, first: Slot, count: u32) -> Result<(), EffectError> {
        if let Some(adopted) = &mut self.0.borrow_mut().adopted {
            adopted.extend(first..first + count);
        }
        Ok(())
    }

    fn sweep(&mut self) {
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        let Some(adopted) = state.adopted.take() else {
            return;
        };
        let given = SLOTS.first..SLOTS.first + SLOTS.count;
        for slot in given.filter(|slot| !adopted.contains(slot)) {
            if state.caps.contains_key(&Place::Own(slot)) {
                state.revoke(slot);
                state.caps.remove(&Place::Own(slot));
            }
        }
    }

    fn split(&mut self, untyped: Slot, half_bits: u8, into: Slot) -> Result<(), EffectError> {
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.expect(untyped, |object| matches!(object, Object::Untyped { .. }))?;
        let (parent, first) = state.carve(untyped, half_bits, 2);
        for half in 0..2 {
            let object = Object::Untyped {
                base: first + (half << half_bits),
                bits: half_bits,
                used: 0,
            };
            state.insert(Place::Own(into + half as u32), parent, object);
        }
        Ok(())
    }

    fn frames(
        &mut self,
        untyped: Slot,
        page_bits: u8,
        into: Target,
        count: u32,
    ) -> Result<(), EffectError> {
        assert!((1..=256).contains(&count));
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let place = |number: u32| match into {
            Target::Own(first) => Place::Own(first + number),
            Target::Window(client, first) => Place::Window(client.0, first + number as u16),
        };
        if let Target::Window(..) = into
            && (0..count).any(|number| state.caps.contains_key(&place(number)))
        {
            return Err(EffectError::Occupied);
        }
        state.expect(untyped, |object| matches!(object, Object::Untyped { .. }))?;
        let (parent, first) = state.carve(untyped, page_bits, count.into());
        for number in 0..count {
            let object = Object::Frame {
                base: first + (u64::from(number) << page_bits),
                bits: page_bits,
            };
            state.insert(place(number), parent, object);
        }
        Ok(())
    }

    fn revoke(&mut self, slot: Slot) -> Result<(), EffectError> {
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.revoke(slot);
        Ok(())
    }

    fn retire(&mut self, slot: Slot) -> Result<(), EffectError> {
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let endpoint = state.expect(slot, |object| matches!(object, Object::Endpoint { .. }));
        state.revoke(slot);
        // Neither an empty slot nor another object has sends to cancel: the glue takes both.
        debug_assert!(endpoint.is_ok() || state.lied);
        // It is no single call of the kernel.
        self.1.burn();
        state.caps.remove(&Place::Own(slot));
        Ok(())
    }

    fn mint(&mut self, badge: Badge, into: Slot) -> Result<(), EffectError> {
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.insert(Place::Own(into), 0, Object::Endpoint { badge });
        Ok(())
    }

    fn place(
        &mut self,
        what: Placed,
        slot: Slot,
        client: ClientId,
        window_slot: u16,
    ) -> Result<(), EffectError> {
        self.1.burn();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let place = Place::Window(client.0, window_slot);
        if state.caps.contains_key(&place) {
            return Err(EffectError::Occupied);
        }
        state.expect(slot, |object| {
            matches!(object, Object::Endpoint { .. }) == (what == Placed::Buffer)
        })?;
        let cap = state.cap(slot);
        state.insert(place, cap.id, cap.object);
        Ok(())
    }

    fn take_back(&mut self, client: ClientId, window_slot: u16) {
        self.1.burn();
        let place = Place::Window(client.0, window_slot);
        let state = &mut *self.0.borrow_mut();
        let was_there = state.caps.remove(&place).is_some();
        assert!(was_there || state.adopted.is_some() || state.lied);
    }

    fn signal(&mut self, client: ClientId) {
        self.0.borrow_mut().signals.push(client);
    }

    fn signal_shard(&mut self, shard: u16) {
        self.0.borrow_mut().shard_signals.push(shard);
    }

    fn now_us(&self) -> u64 {
        self.0.borrow().now_us
    }

    fn turns(&self) -> Turns {
        Turns::default()
    }

    fn wake_in(&mut self, micros: u64) {
        self.0.borrow_mut().wakes.push(micros);
    }

    fn note(&mut self, note: Note) {
        self.0.borrow_mut().notes.push(note);
    }
}

/// Storage for the length of the test run.
pub fn forever<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}
