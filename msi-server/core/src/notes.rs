//! [`Notes`]: where in the ledger the shard notes what its next start could not find out otherwise.
//!
//! What is noted, and nothing else is: blocks of vectors, with whose they are and what is being done with them; the core of
//! each vector, and what it signals where it is metered; vectors that are lost; who is on which line; how many messages were absorbed. Quotas, reservations and what is free
//! follow from these. Not noted are other counts, which begin anew, and who has not looked at a line: at a start nobody has.
//!
//! What is read is judged by [`crate::recovery`]. Neighbours: `ledger`.

use core::num::NonZeroU32;

use hw::Sbdf;
use ipc_proto::{ClientId, Messages};
use ledger::{Records, Words};
use system::info::MAX_LINES;

use crate::lines::MAX_USERS;
use crate::shard::{Block, Holder, MAX_VECTORS};

/// Vectors whose cores are in one word.
const CORES_A_WORD: usize = 8;
/// One bit a vector: it is lost.
const LOST: usize = 0;
/// One byte a vector: its core.
const CORES: usize = LOST + MAX_VECTORS / 64;
/// How many messages were absorbed.
const ABSORBED: usize = CORES + MAX_VECTORS / CORES_A_WORD;
/// Each block at the number of its first vector: device, client and number of messages; first message.
const BLOCKS: Records = Records::new(ABSORBED + 1, MAX_VECTORS, 2);
/// Each device on a line, [`MAX_USERS`] of each line: device, client and shard.
const USERS: Records = Records::new(BLOCKS.end(), MAX_LINES * MAX_USERS, 1);

/// One word a vector: what it signals its client, where it is metered.
const FLAGS: usize = USERS.end();

/// Words of a ledger that has room for everything.
pub const LEDGER_WORDS: usize = FLAGS + MAX_VECTORS;
const _: () = assert!(LEDGER_WORDS <= (system::layout::ledger_pages::MSI * 512) as usize);

/// How far the work on a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Handlers are being placed: to be undone.
    Taking,
    /// Its client's.
    Held,
    /// Handlers are being taken back: to be finished.
    Freeing,
    /// Nobody's; handlers may not all be taken back yet.
    Kept,
}

impl Stage {
    const fn tag(self) -> NonZeroU32 {
        match self {
            Self::Taking => NonZeroU32::MIN,
            Self::Held => NonZeroU32::MIN.saturating_add(1),
            Self::Freeing => NonZeroU32::MIN.saturating_add(2),
            Self::Kept => NonZeroU32::MIN.saturating_add(3),
        }
    }

    fn of(tag: NonZeroU32) -> Option<Self> {
        let all = [Self::Taking, Self::Held, Self::Freeing, Self::Kept];
        all.into_iter().find(|stage| stage.tag() == tag)
    }
}

/// What is known of a device on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// It raises the line, and its client looks at it.
    On,
    /// It is to be switched off; the shard that owns it may know that already. Why: see `Standing::Trouble`.
    Trouble(u32),
    /// Its client is gone, and it does not obey.
    Bereft,
}

/// Bits of a tag that say which note it is; the others are the number.
const NOTE_BITS: u32 = 2;

impl Note {
    fn tag(self) -> NonZeroU32 {
        let (kind, number) = match self {
            Self::On => (1, 0),
            Self::Trouble(count) => (2, count.min(u32::MAX >> (NOTE_BITS + 1))),
            Self::Bereft => (3, 0),
        };
        NonZeroU32::MIN.saturating_add((kind - 1) | number << NOTE_BITS)
    }

    fn of(tag: NonZeroU32) -> Option<Self> {
        let word = tag.get() - 1;
        let number = word >> NOTE_BITS;
        match (word & ((1 << NOTE_BITS) - 1)) + 1 {
            1 if number == 0 => Some(Self::On),
            2 => Some(Self::Trouble(number)),
            3 if number == 0 => Some(Self::Bereft),
            _ => None,
        }
    }
}

/// A device on a line, as it is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotedUser {
    pub(crate) device: Sbdf,
    pub(crate) client: ClientId,
    pub(crate) shard: u16,
    pub(crate) note: Note,
}

/// The ledger as the shard reads and writes it.
pub(crate) struct Notes<'l, L: Words>(pub(crate) &'l mut L);

impl<L: Words> Notes<'_, L> {
    /// Notes a block, and what is being done with it.
    pub(crate) fn block(&mut self, block: &Block, stage: Stage) {
        let Messages { first, count } = block.messages;
        let words = [
            u64::from(block.device.to_bits())
                | u64::from(block.client.0) << 32
                | u64::from(count) << 48,
            first.into(),
        ];
        BLOCKS.write(self.0, block.first.into(), stage.tag(), &words);
    }

    /// Something else is being done with a block that is noted.
    pub(crate) fn stage(&mut self, block: &Block, stage: Stage) {
        BLOCKS.mark(self.0, block.first.into(), stage.tag());
    }

    /// The block that begins with a vector is no more.
    pub(crate) fn clear_block(&mut self, first: u16) {
        BLOCKS.clear(self.0, first.into());
    }

    /// The block that begins with a vector. Nothing of it is checked.
    pub(crate) fn block_at(&self, first: u16) -> Option<(Block, Stage)> {
        let mut words = [0; 2];
        let tag = BLOCKS.read(self.0, first.into(), &mut words)?;
        let [who, message] = words;
        let stage = Stage::of(tag)?;
        let block = Block {
            device: Sbdf::from_bits(who as u32),
            client: ClientId((who >> 32) as u16),
            holder: match stage {
                Stage::Kept => Holder::Nobody,
                _ => Holder::Client,
            },
            first,
            messages: Messages {
                first: u16::try_from(message).ok()?,
                count: (who >> 48) as u16,
            },
        };
        Some((block, stage))
    }

    /// Is anything noted of a block that begins there?
    pub(crate) fn has_block(&self, first: u16) -> bool {
        BLOCKS.tag(self.0, first.into()).is_some()
    }

    /// Notes where a vector's messages go.
    pub(crate) fn core(&mut self, vector: u16, core: u8) {
        let (at, shift) = core_place(vector);
        let others = self.0.load(at) & !(0xff << shift);
        self.0.store(at, others | u64::from(core) << shift);
    }

    /// Where a vector's messages went.
    pub(crate) fn core_at(&self, vector: u16) -> u8 {
        let (at, shift) = core_place(vector);
        (self.0.load(at) >> shift) as u8
    }

    /// Notes what a metered vector signals its client.
    pub(crate) fn flags(&mut self, vector: u16, flags: u64) {
        self.0.store(FLAGS + usize::from(vector), flags);
    }

    /// What a metered vector signalled its client: to be shown, not to be trusted.
    pub(crate) fn flags_at(&self, vector: u16) -> u64 {
        self.0.load(FLAGS + usize::from(vector))
    }

    /// Notes 64 bits of what is lost.
    pub(crate) fn lost(&mut self, word: usize, bits: u64) {
        self.0.store(LOST + word, bits);
    }

    /// 64 bits of what is lost.
    pub(crate) fn lost_at(&self, word: usize) -> u64 {
        self.0.load(LOST + word)
    }

    /// Notes how many messages were absorbed.
    pub(crate) fn absorbed(&mut self, count: u64) {
        self.0.store(ABSORBED, count);
    }

    /// How many messages were absorbed.
    pub(crate) fn absorbed_at(&self) -> u64 {
        self.0.load(ABSORBED)
    }

    /// Notes a device on the `line`-th line; the number of the note.
    pub(crate) fn user(&mut self, line: usize, user: &NotedUser) -> Option<u16> {
        let mut numbers = (line * MAX_USERS)..(line * MAX_USERS + MAX_USERS);
        let number = numbers.find(|number| USERS.tag(self.0, *number).is_none())?;
        let word = u64::from(user.device.to_bits())
            | u64::from(user.client.0) << 32
            | u64::from(user.shard) << 48;
        USERS.write(self.0, number, user.note.tag(), &[word]);
        u16::try_from(number).ok()
    }

    /// Something else is known of a device on a line.
    pub(crate) fn mark_user(&mut self, number: u16, note: Note) {
        USERS.mark(self.0, number.into(), note.tag());
    }

    /// A device is not on its line any more.
    pub(crate) fn clear_user(&mut self, number: u16) {
        USERS.clear(self.0, number.into());
    }

    /// The numbers of notes of the `line`-th line.
    pub(crate) fn numbers(line: usize) -> impl Iterator<Item = u16> {
        // There are fewer than a word of 16 bits can count.
        (0..MAX_USERS).map(move |user| (line * MAX_USERS + user) as u16)
    }

    /// A device on a line. Nothing of it is checked.
    pub(crate) fn user_at(&self, number: u16) -> Option<NotedUser> {
        let mut word = [0];
        let tag = USERS.read(self.0, number.into(), &mut word)?;
        let [word] = word;
        Some(NotedUser {
            device: Sbdf::from_bits(word as u32),
            client: ClientId((word >> 32) as u16),
            shard: (word >> 48) as u16,
            note: Note::of(tag)?,
        })
    }
}

/// The word with a vector's core, and the bit where it begins.
fn core_place(vector: u16) -> (usize, usize) {
    let vector = usize::from(vector);
    (
        CORES + vector / CORES_A_WORD,
        vector % CORES_A_WORD * CORES_A_WORD,
    )
}
