//! [`Assignment`]: a slot that a device capability's badge names, its
//! generations, and [`Hold`]: what belongs to the life it is in.

use ipc_proto::{ClientId, MAX_GENERATION, Properties};
use ledger::Words;

use crate::Index;
use crate::interrupts::Setup;
use crate::notes::{self, Intent, State};
use crate::reset::{Failure, Kept, Step};

/// A slot for a held device. A capability of an earlier life never matches: each life has
/// its own generation (the kernel has taken the old capabilities away; this is the proof).
#[derive(Debug)]
pub struct Assignment<T> {
    /// The generation of the present life, or the last one.
    pub generation: u16,
    /// The present life.
    pub hold: Option<Hold<T>>,
    /// The kernel did not take a capability of a life back: there is no other life, which it could come to mean.
    pub stuck: bool,
}

impl<T> Assignment<T> {
    /// A slot that was never used.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            generation: 0,
            hold: None,
            stuck: false,
        }
    }

    /// The generation of the next life: 1 to [`MAX_GENERATION`], round again.
    #[must_use]
    pub const fn next_generation(&self) -> u16 {
        self.generation % MAX_GENERATION + 1
    }
}

impl<T> Default for Assignment<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a held device has beyond its record.
#[derive(Debug)]
pub struct Hold<T> {
    /// What of its [`State`] stays.
    pub fixed: u64,
    /// Which device, by its place in the table.
    pub device: Index,
    /// Who holds it.
    pub client: ClientId,
    /// What the assignment promises.
    pub properties: Properties,
    /// Is it attached to the client's context?
    pub attached: bool,
    /// Messages that are enabled.
    pub interrupts: Option<Setup>,
    /// Vectors of the device are with the msi-server.
    pub vectors: bool,
    /// The device may raise its interrupt pin: it is on a line of the msi-server's.
    pub line: bool,
    /// The msi-server may pass some of its messages on no more: they came too often.
    pub silenced: bool,
    /// The iommu-server may have messages of the device remapped.
    pub remapped: bool,
    /// Frames of BARs placed.
    pub frames: u32,
    /// BARs of which frames exist, one bit each.
    pub regions: u8,
    /// Narrowed capabilities of it, one bit a number.
    pub views: u64,
    /// Its holder agrees that the bus is reset.
    pub agreed: bool,
    /// Its bus is being reset.
    pub in_bus_reset: bool,
    /// The kernel did not take a capability of it back.
    pub stuck: bool,
    /// What is being done to it at this moment.
    pub intent: Intent,
    /// What is under way.
    pub job: Option<Job<T>>,
}

impl<T> Hold<T> {
    /// Notes where the hold in assignment slot `at` is.
    #[inline]
    pub(crate) fn note<W: Words>(&self, ledger: &mut W, at: u16) {
        ledger.store(notes::Word::State.of(at), State::of(self));
    }

    /// Notes what is about to be done to it.
    #[inline]
    pub(crate) fn intend<W: Words>(&mut self, ledger: &mut W, at: u16, intent: Intent) {
        self.intent = intent;
        self.note(ledger, at);
    }
}

/// Why a device is being brought to rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Its holder wants it reset, or back in the power state D0.
    Reset,
    /// Its holder wants it in the power state D3hot.
    Sleep,
    /// It is being taken back.
    Revoke,
}

/// Which request waits for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Its reset, by the operation.
    Reset,
    /// Its reset, by a write to a register.
    Write,
    /// A power state, likewise.
    Power,
    /// Its release.
    Release,
}

/// Work on a device that takes more than one request's time.
#[derive(Debug)]
pub struct Job<T> {
    /// Why.
    pub purpose: Purpose,
    /// What the one who waits has asked for.
    pub asked: Asked,
    /// The device is out of the machine: nothing of it is touched.
    pub removed: bool,
    /// The next step; `None`: nothing has happened yet.
    pub step: Option<Step>,
    /// When, in microseconds of the shard's clock.
    pub due: u64,
    /// What the device is brought back to.
    pub kept: Kept,
    /// Is the device capability gone?
    pub revoked: bool,
    /// Could bus mastering and decoding be switched off?
    pub at_rest: Result<(), Failure>,
    /// What else went wrong.
    pub trouble: Option<Failure>,
    /// Who waits for it.
    pub ticket: Option<T>,
    /// The supervisor waits for it.
    pub owed: bool,
}

impl<T> Job<T> {
    /// A job whose first step is due at once.
    #[must_use]
    pub const fn new(purpose: Purpose, asked: Asked, kept: Kept, ticket: Option<T>) -> Self {
        Self {
            purpose,
            asked,
            removed: false,
            step: None,
            due: 0,
            kept,
            revoked: false,
            at_rest: Ok(()),
            trouble: None,
            ticket,
            owed: false,
        }
    }
}
