//! [`Kernel`]: capabilities as seL4 has them, in all CSpaces at once: what was
//! derived from what, revocation, the watermark of an untyped.
//!
//! It panics when a server asks for what the kernel would refuse a correct
//! one, and can be told to refuse the nth effect that makes something. What takes
//! something back is never refused: seL4 has no reason to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::mortal::Lives;

/// Whose endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Server {
    /// pci-server.
    Pci,
    /// iommu-server.
    Iommu,
}

/// Where a capability lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// A slot of the pci-server.
    Pci(u32),
    /// A slot of the iommu-server.
    Iommu(u32),
    /// The msi-server's master of the handler of a vector.
    Msi(u16),
    /// A slot of a client's grant window.
    Window(u16, u16),
    /// Where a client has put a copy.
    Own(u16, u32),
}

/// What a capability is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Object {
    /// Memory, 2^bits bytes.
    Untyped {
        /// Physical address.
        base: u64,
        /// Size.
        bits: u8,
    },
    /// A page of 2^bits bytes.
    Frame {
        /// Physical address.
        base: u64,
        /// Size.
        bits: u8,
    },
    /// An endpoint with a badge.
    Endpoint {
        /// Whose.
        server: Server,
        /// As the receiver sees it.
        badge: u64,
    },
    /// A handler of an interrupt.
    Handler {
        /// The kernel's number.
        vector: u16,
    },
}

#[derive(Clone, Copy, Debug)]
struct Cap {
    id: u64,
    /// 0: nobody's child.
    parent: u64,
    object: Object,
    /// An untyped's watermark.
    used: u64,
}

#[derive(Default)]
struct State {
    caps: BTreeMap<Place, Cap>,
    last_id: u64,
    made: u64,
    refuse: Option<u64>,
    /// Copies of these are left when they are revoked.
    keep: Option<fn(Object) -> bool>,
}

/// The effect was refused; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// A handle; clones share the state.
#[derive(Clone)]
pub struct Kernel(Rc<RefCell<State>>, Lives);

impl Kernel {
    /// No capabilities yet; what servers do to them is an effect of theirs.
    #[must_use]
    pub fn new(lives: &Lives) -> Self {
        Self(Rc::default(), lives.clone())
    }

    /// A capability that the root task gave. Fresh untypeds begin as wholly used.
    pub fn give(&self, place: Place, object: Object) {
        let state = &mut *self.0.borrow_mut();
        state.insert(place, 0, object);
        if let Object::Untyped { bits, .. } = object {
            state.caps.get_mut(&place).expect("just inserted").used = 1 << bits;
        }
    }

    /// Refuses the `nth` effect from now on (0: the next) that makes something, once; `None`: none.
    pub fn refuse(&self, nth: Option<u64>) {
        let state = &mut *self.0.borrow_mut();
        state.refuse = nth.map(|nth| state.made + nth);
    }

    /// Leaves copies of some objects when they are revoked: a flaw that the rules must notice.
    pub fn keep_copies(&self, of: fn(Object) -> bool) {
        self.0.borrow_mut().keep = Some(of);
    }

    /// What lies there.
    #[must_use]
    pub fn object(&self, place: Place) -> Option<Object> {
        self.0.borrow().caps.get(&place).map(|cap| cap.object)
    }

    /// Every capability. Without what a kernel keeps of the past: watermarks, ages.
    #[must_use]
    pub fn shape(&self) -> BTreeMap<Place, Object> {
        let state = self.0.borrow();
        let caps = state.caps.iter().map(|(place, cap)| (*place, cap.object));
        caps.collect()
    }

    /// Takes `count` objects of 2^bits bytes from the untyped at `untyped`, into `into(0)`...
    ///
    /// # Errors
    /// As asked for.
    pub fn retype(
        &self,
        untyped: Place,
        frames: bool,
        bits: u8,
        count: u32,
        into: impl Fn(u32) -> Place,
    ) -> Result<(), Refused> {
        assert!((1..=256).contains(&count), "fan-out {count}");
        self.1.effect();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let cap = state.cap(untyped);
        let Object::Untyped {
            base,
            bits: whole_bits,
        } = cap.object
        else {
            panic!("{untyped:?} holds no untyped");
        };
        let idle = !state.caps.values().any(|other| other.parent == cap.id);
        let start = if idle { 0 } else { cap.used }.next_multiple_of(1 << bits);
        let end = start + (u64::from(count) << bits);
        assert!(end <= 1 << whole_bits, "the untyped at {untyped:?} is full");
        state.caps.get_mut(&untyped).expect("just found").used = end;
        for number in 0..count {
            let base = base + start + (u64::from(number) << bits);
            let object = if frames {
                Object::Frame { base, bits }
            } else {
                Object::Untyped { base, bits }
            };
            state.insert(into(number), cap.id, object);
        }
        Ok(())
    }

    /// Makes something that is nobody's child: an endpoint's master, a handler.
    ///
    /// # Errors
    /// As asked for.
    pub fn make(&self, place: Place, object: Object) -> Result<(), Refused> {
        self.1.effect();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.insert(place, 0, object);
        Ok(())
    }

    /// Copies a master: the copy is its child.
    ///
    /// # Errors
    /// As asked for.
    pub fn copy(&self, from: Place, to: Place) -> Result<(), Refused> {
        self.1.effect();
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let cap = state.cap(from);
        state.insert(to, cap.id, cap.object);
        Ok(())
    }

    /// A client copies what it was given: the copy is the master's child like the first one.
    pub fn copy_on(&self, from: Place, to: Place) {
        let state = &mut *self.0.borrow_mut();
        let cap = state.cap(from);
        state.insert(to, cap.parent, cap.object);
    }

    /// Everything derived from what lies there is gone.
    pub fn revoke(&self, place: Place) {
        self.1.effect();
        let state = &mut *self.0.borrow_mut();
        let mut gone = vec![state.cap(place).id];
        while let Some(id) = gone.pop() {
            let keep = state.keep;
            state.caps.retain(|place, cap| {
                let outside = matches!(place, Place::Window(..) | Place::Own(..));
                if outside && keep.is_some_and(|keep| keep(cap.object)) {
                    return true;
                }
                if cap.parent == id {
                    gone.push(cap.id);
                }
                cap.parent != id
            });
        }
    }

    /// Empties a slot; what was derived from it stays, as its parent's.
    pub fn delete(&self, place: Place) {
        self.1.effect();
        let state = &mut *self.0.borrow_mut();
        if let Some(cap) = state.caps.remove(&place) {
            for other in state.caps.values_mut() {
                if other.parent == cap.id {
                    other.parent = cap.parent;
                }
            }
        }
    }

    /// Empties all of a client's slots, as revoking its memory does.
    pub fn bury(&self, client: u16) {
        self.0.borrow_mut().caps.retain(
            |place, _| !matches!(place, Place::Window(of, _) | Place::Own(of, _) if *of == client),
        );
    }
}

impl State {
    fn step(&mut self) -> Result<(), Refused> {
        self.made += 1;
        if self.refuse == Some(self.made - 1) {
            return Err(Refused);
        }
        Ok(())
    }

    fn cap(&self, place: Place) -> Cap {
        match self.caps.get(&place) {
            Some(cap) => *cap,
            None => panic!("{place:?} is empty"),
        }
    }

    fn insert(&mut self, place: Place, parent: u64, object: Object) {
        self.last_id += 1;
        let cap = Cap {
            id: self.last_id,
            parent,
            object,
            used: 0,
        };
        let before = self.caps.insert(place, cap);
        assert!(before.is_none(), "{place:?} is occupied by {before:?}");
    }
}
