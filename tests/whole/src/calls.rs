//! [`Below`]: a server that others call, which is started again when it dies; and capabilities of it ([`To`]).

use std::cell::RefCell;
use std::rc::Rc;

use ipc_proto::{Badge, Message, Transport, msi};

use crate::above::{IommuShard, MsiShard};
use crate::mortal::{Lives, Mortal, restarted};

/// A server below.
pub trait Answers {
    /// Which.
    const WHO: Mortal;
    /// Serves a request of a capability with this badge.
    fn answer(&mut self, badge: Badge, request: &Message) -> Message;
}

impl Answers for IommuShard<'_> {
    const WHO: Mortal = Mortal::Iommu;
    fn answer(&mut self, badge: Badge, request: &Message) -> Message {
        self.serve(badge.to_word(), request, |reply| *reply)
            .expect("the iommu-server parks nothing")
    }
}

impl Answers for MsiShard {
    const WHO: Mortal = Mortal::Msi;
    fn answer(&mut self, badge: Badge, request: &Message) -> Message {
        msi::dispatch(self, badge.to_word(), request).expect("the msi-server parks nothing")
    }
}

/// Starts a server again on what its last life has left.
type Start<'s, S> = Rc<RefCell<dyn FnMut() -> S + 's>>;

/// A server below, as whoever calls it sees it.
pub struct Below<'s, S> {
    /// Its core.
    pub shard: Rc<RefCell<S>>,
    start: Start<'s, S>,
    lives: Lives,
}

impl<S> Clone for Below<'_, S> {
    fn clone(&self) -> Self {
        Self {
            shard: Rc::clone(&self.shard),
            start: Rc::clone(&self.start),
            lives: self.lives.clone(),
        }
    }
}

impl<'s, S: Answers> Below<'s, S> {
    /// Starts it for the first time.
    pub fn new(lives: &Lives, mut start: impl FnMut() -> S + 's) -> Self {
        let shard = Rc::new(RefCell::new(start()));
        Self {
            shard,
            start: Rc::new(RefCell::new(start)),
            lives: lives.clone(),
        }
    }

    /// Lets it work on something. `None`: it has died in it, and was started again.
    pub fn work<T>(&self, work: impl FnOnce(&mut S) -> T) -> Option<T> {
        let done = self
            .lives
            .run(S::WHO, || work(&mut self.shard.borrow_mut()));
        if done.is_none() {
            self.restart();
        }
        done
    }

    /// It is killed, if it does not lie dead already, and started again, until it lives to see the end of that.
    pub fn restart(&self) {
        loop {
            let start = || (self.start.borrow_mut())();
            if let Some(shard) = self.lives.run(S::WHO, start) {
                *self.shard.borrow_mut() = shard;
                return;
            }
        }
    }

    /// Its answer to a request.
    pub fn serve(&self, badge: Badge, request: &Message) -> Message {
        self.work(|shard| shard.answer(badge, request))
            .unwrap_or_else(restarted)
    }

    /// A capability with a badge.
    #[must_use]
    pub fn with(&self, badge: Badge) -> To<'s, S> {
        To {
            server: self.clone(),
            badge,
        }
    }
}

/// A capability of a server below.
pub struct To<'s, S> {
    server: Below<'s, S>,
    badge: Badge,
}

impl<S: Answers> Transport for To<'_, S> {
    fn call(&self, request: &Message) -> Message {
        // The caller's effects: it may die before, or while it waits.
        self.server.lives.effect();
        let reply = self.server.serve(self.badge, request);
        self.server.lives.effect();
        reply
    }
}
