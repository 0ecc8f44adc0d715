//! [`State`]: the one word that says where an assignment slot is.

use ipc_proto::{ClientId, Properties, ResetKind, Word as _};

use crate::assignment::{Asked, Hold, Purpose};

/// Where a slot is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nobody's.
    Free,
    /// It is being assigned: to be undone.
    Assigning,
    /// Held.
    Held,
    /// What was noted cannot be true: to be taken back.
    Doubtful,
}

/// What was being done to a held device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Intent {
    /// Nothing.
    #[default]
    None,
    /// Messages are being enabled: to be undone.
    Enabling,
    /// Messages are being disabled: to be finished.
    Disabling,
    /// It is being put on its line: to be undone.
    Joining,
    /// It is being taken off its line: to be finished.
    Leaving,
    /// Its messages are being moved to another core.
    Moving,
}

impl Intent {
    const ALL: [Self; 6] = [
        Self::None,
        Self::Enabling,
        Self::Disabling,
        Self::Joining,
        Self::Leaving,
        Self::Moving,
    ];
}

/// Which job a held device has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// None.
    None,
    /// It is being reset.
    Reset,
    /// It is being brought back to D0.
    Wake,
    /// It is being put to sleep.
    Sleep,
    /// It is being taken back.
    Revoke,
    /// Its bus is being reset.
    BusReset,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::None,
        Self::Reset,
        Self::Wake,
        Self::Sleep,
        Self::Revoke,
        Self::BusReset,
    ];
}

/// An assignment slot in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Of this life, or the last one.
    pub generation: u16,
    /// Whose.
    pub client: ClientId,
    /// What the assignment promises.
    pub properties: Properties,
    /// See [`Hold`]; likewise the following.
    pub attached: bool,
    /// See there.
    pub vectors: bool,
    /// See there.
    pub remapped: bool,
    /// See there.
    pub line: bool,
    /// See there.
    pub agreed: bool,
    /// [`super::setup`] is noted.
    pub setup: bool,
    /// See there.
    pub regions: u8,
    /// What was being done.
    pub intent: Intent,
    /// Its job.
    pub work: Work,
    /// The job's device is out of the machine.
    pub removed: bool,
    /// The supervisor waits for it.
    pub owed: bool,
    /// Something went wrong: it is broken at the end.
    pub trouble: bool,
}

/// Bits 63:60 of every word.
const MARK: u64 = 0xa << 60;
const MARK_MASK: u64 = 0xf << 60;

const GENERATION: u32 = 4;
const CLIENT: u32 = 16;
const PROPERTIES: u32 = 24;
const RESET: u32 = 28;
const ATTACHED: u32 = 31;
const VECTORS: u32 = 32;
const REMAPPED: u32 = 33;
const LINE: u32 = 34;
const AGREED: u32 = 35;
const SETUP: u32 = 36;
const REMOVED: u32 = 37;
const OWED: u32 = 38;
const TROUBLE: u32 = 39;
const REGIONS: u32 = 40;
const INTENT: u32 = 48;
const WORK: u32 = 52;

impl State {
    /// A slot that nobody has.
    #[must_use]
    pub const fn free(generation: u16) -> u64 {
        MARK | (generation as u64) << GENERATION
    }

    /// One that is being assigned.
    #[must_use]
    pub const fn assigning(generation: u16, client: ClientId) -> u64 {
        Self::free(generation) | 1 | ((client.0 & 0xff) as u64) << CLIENT
    }

    /// One of which what was noted cannot be true.
    #[must_use]
    pub const fn doubtful(generation: u16) -> u64 {
        Self::free(generation) | 3
    }

    /// What does not change as long as it is held.
    #[must_use]
    pub(crate) fn held(
        generation: u16,
        client: ClientId,
        properties: Properties,
        attached: bool,
    ) -> u64 {
        let word = properties.to_word();
        Self::free(generation)
            | 2
            | u64::from(client.0 & 0xff) << CLIENT
            | (word & 0xf) << PROPERTIES
            | (word >> 8 & 7) << RESET
            | u64::from(attached) << ATTACHED
    }

    /// The word of a hold.
    #[inline]
    pub(crate) fn of<T>(hold: &Hold<T>) -> u64 {
        let job = match &hold.job {
            None if hold.in_bus_reset => (Work::BusReset as u64) << WORK,
            None => 0,
            Some(job) => {
                let work = match (job.purpose, job.asked) {
                    (Purpose::Revoke, _) => Work::Revoke,
                    (Purpose::Sleep, _) => Work::Sleep,
                    (Purpose::Reset, Asked::Power) => Work::Wake,
                    (Purpose::Reset, _) => Work::Reset,
                };
                (work as u64) << WORK
                    | u64::from(job.removed) << REMOVED
                    | u64::from(job.owed) << OWED
                    | u64::from(job.trouble.is_some()) << TROUBLE
            }
        };
        hold.fixed
            | u64::from(hold.vectors) << VECTORS
            | u64::from(hold.remapped) << REMAPPED
            | u64::from(hold.line) << LINE
            | u64::from(hold.agreed) << AGREED
            | u64::from(hold.interrupts.is_some()) << SETUP
            | u64::from(hold.regions) << REGIONS
            | (hold.intent as u64) << INTENT
            | job
    }

    /// A hold's word, as it is while its messages are being disabled, and when they are.
    #[inline]
    pub(crate) const fn disabling(word: u64) -> (u64, u64) {
        let messages = 1 << VECTORS | 1 << REMAPPED | 1 << SETUP | 0xf << INTENT;
        let other = word & !(0xf << INTENT);
        (
            other | (Intent::Disabling as u64) << INTENT,
            word & !messages,
        )
    }

    /// What a word says; `None` for one that says nothing.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        if word & MARK_MASK != MARK {
            return None;
        }
        let bit = |at: u32| word >> at & 1 != 0;
        let phase = match word & 0xf {
            0 => Phase::Free,
            1 => Phase::Assigning,
            2 => Phase::Held,
            3 => Phase::Doubtful,
            _ => return None,
        };
        let reset = match word >> RESET & 7 {
            0 => None,
            kind => Some(ResetKind::from_word(kind)?),
        };
        let properties = Properties::from_word(word >> PROPERTIES & 0xf)?;
        Some(Self {
            phase,
            generation: (word >> GENERATION & 0xfff) as u16,
            client: ClientId((word >> CLIENT & 0xff) as u16),
            properties: Properties {
                reset,
                ..properties
            },
            attached: bit(ATTACHED),
            vectors: bit(VECTORS),
            remapped: bit(REMAPPED),
            line: bit(LINE),
            agreed: bit(AGREED),
            setup: bit(SETUP),
            regions: (word >> REGIONS & 0x3f) as u8,
            intent: *Intent::ALL.get((word >> INTENT & 0xf) as usize)?,
            work: *Work::ALL.get((word >> WORK & 0xf) as usize)?,
            removed: bit(REMOVED),
            owed: bit(OWED),
            trouble: bit(TROUBLE),
        })
    }
}
