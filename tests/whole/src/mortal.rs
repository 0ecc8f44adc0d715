//! How servers die, and what outlives them: [`Lives`], [`Ledger`].
//!
//! A server is killed before its k-th effect of what is going on: its code is left at once (by unwinding, as far as
//! [`Lives::run`]), and whatever it had in variables is thrown away. Effects are what others can see: capabilities
//! made or taken, registers and tables written, words of the ledger, calls of other servers, before and after.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use ipc_proto::{Message, Refusal, Rule};
use ledger::Words;

/// A server that can die.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mortal {
    /// pci-server.
    Pci,
    /// iommu-server.
    Iommu,
    /// msi-server.
    Msi,
}

/// A death to come: whose, and before which effect from now on (0: the next).
pub type Doom = (Mortal, u32);

/// The server has died. Nobody but [`Lives::run`] sees it.
struct Died;

/// One of so many notes is lost where some are.
const LOSSES: u64 = 5;

#[derive(Default)]
struct State {
    /// Who is running, for whom: the last one is the one whose effects happen.
    running: RefCell<Vec<Mortal>>,
    dooms: RefCell<VecDeque<Doom>>,
    deaths: Cell<u64>,
    /// Whose notes are lost, one of [`LOSSES`].
    lossy: Cell<Option<Mortal>>,
    noted: Cell<u64>,
    /// Somebody only looks.
    calm: Cell<bool>,
}

/// Which server runs, and when it dies. Clones share the state.
#[derive(Clone, Default)]
pub struct Lives(Rc<State>);

impl Lives {
    /// What is to come, one after the other; replaces what was.
    pub fn doom(&self, dooms: impl IntoIterator<Item = Doom>) {
        *self.0.dooms.borrow_mut() = dooms.into_iter().collect();
    }

    /// From now on some of a server's notes are lost: a flaw that the rules must notice.
    pub fn lose_notes(&self, of: Mortal) {
        self.0.lossy.set(Some(of));
    }

    /// Is this note lost?
    fn loses(&self) -> bool {
        let now = self.0.running.borrow().last().copied();
        if self.0.lossy.get().is_none_or(|lossy| Some(lossy) != now) {
            return false;
        }
        self.0.noted.set(self.0.noted.get() + 1);
        self.0.noted.get().is_multiple_of(LOSSES)
    }

    /// How often a server has died.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.0.deaths.get()
    }

    /// The server that is running, if one is, has an effect now. It may not live to see it.
    pub fn effect(&self) {
        if self.0.calm.get() {
            return;
        }
        let Some(now) = self.0.running.borrow().last().copied() else {
            return;
        };
        let mut dooms = self.0.dooms.borrow_mut();
        match dooms.front_mut() {
            Some((server, 0)) if *server == now => {
                dooms.pop_front();
                drop(dooms);
                self.0.deaths.set(self.deaths() + 1);
                resume_unwind(Box::new(Died));
            }
            Some((server, effects)) if *server == now => *effects -= 1,
            _ => {}
        }
    }

    /// Nobody dies of what is only looked at, nor does it count.
    pub fn calmly<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = self.0.calm.replace(true);
        let seen = look();
        self.0.calm.set(before);
        seen
    }

    /// Lets a server run; `None` when it has died in it.
    pub fn run<T>(&self, server: Mortal, work: impl FnOnce() -> T) -> Option<T> {
        self.0.running.borrow_mut().push(server);
        // The answer is an effect, too: it may be the one that does not happen.
        let work = || {
            let done = work();
            self.effect();
            done
        };
        let done = catch_unwind(AssertUnwindSafe(work));
        let last = self.0.running.borrow_mut().pop();
        match done {
            Ok(done) => {
                assert_eq!(last, Some(server));
                Some(done)
            }
            Err(payload) => {
                is_death(payload);
                None
            }
        }
    }
}

/// Everything else that is unwound is a test that fails.
fn is_death(payload: Box<dyn Any + Send>) {
    if let Err(other) = payload.downcast::<Died>() {
        resume_unwind(other);
    }
}

/// What whoever waited for a server that died is told.
#[must_use]
pub fn restarted() -> Message {
    Refusal::new(Rule::Restarted, 0).to_message()
}

/// Is it that?
#[must_use]
pub fn is_restarted(reply: &Message) -> bool {
    reply.label == restarted().label
}

/// Most often that somebody asks again whose server was restarted.
pub const PATIENCE: usize = 16;

/// Asks a server below again as long as it was restarted instead of an answer.
///
/// # Errors
/// Its other refusals.
pub fn until_it_lives<T>(mut ask: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    for _ in 0..PATIENCE {
        match ask() {
            Err(refusal) if refusal.rule == Rule::Restarted => {}
            answer => return answer,
        }
    }
    panic!("the server never lives to answer");
}

/// Words of a server that outlive it, zeros at first.
#[derive(Clone, Default)]
pub struct Ledger {
    words: Rc<RefCell<BTreeMap<usize, u64>>>,
    lives: Lives,
}

impl Ledger {
    /// Nothing is noted.
    #[must_use]
    pub fn new(lives: &Lives) -> Self {
        Self {
            words: Rc::default(),
            lives: lives.clone(),
        }
    }
}

impl Words for Ledger {
    fn count(&self) -> usize {
        1 << 20
    }
    fn load(&self, at: usize) -> u64 {
        self.words.borrow().get(&at).copied().unwrap_or(0)
    }
    fn store(&mut self, at: usize, value: u64) {
        self.lives.effect();
        if !self.lives.loses() {
            self.words.borrow_mut().insert(at, value);
        }
    }
}
