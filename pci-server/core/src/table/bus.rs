//! Directories of the table: [`Bus`], the functions of one bus by device number,
//! and [`Segment`], which directory each of its buses has.

use hw::Sbdf;
use system::model::MAX_CLIENTS;

/// No function, no free slot, no free directory.
pub(super) const NOTHING: u32 = u32::MAX;

/// Device numbers of a bus.
const DEVICES: usize = Sbdf::MAX_DEVICE as usize + 1;

/// Memory for one bus: where its functions are, and how many each client may have.
#[derive(Debug)]
pub struct Bus {
    /// The first function of each device number; in a free directory the first is the next free one.
    first: [u32; DEVICES],
    /// Device numbers with functions, one bit each.
    used: u32,
    pub(super) counts: Counts,
    /// The bridge that leads here.
    pub(super) bridge: Option<Sbdf>,
}

impl Bus {
    /// A bus without functions.
    pub(super) const fn new() -> Self {
        Self::free(NOTHING)
    }

    /// A directory that is not used, with the next one that is not.
    pub(super) const fn free(next: u32) -> Self {
        let mut first = [NOTHING; DEVICES];
        first[0] = next;
        Self {
            first,
            used: 0,
            counts: Counts::NONE,
            bridge: None,
        }
    }

    pub(super) fn next_free(&self) -> u32 {
        self.first(0)
    }

    /// The first function with a device number.
    pub(super) fn first(&self, device: u8) -> u32 {
        self.first
            .get(usize::from(device))
            .copied()
            .unwrap_or(NOTHING)
    }

    /// The first function with this device number or a higher one.
    pub(super) fn first_from(&self, device: u8) -> u32 {
        let rest = u32::MAX.checked_shl(device.into()).unwrap_or(0) & self.used;
        match rest {
            0 => NOTHING,
            rest => self.first(rest.trailing_zeros() as u8),
        }
    }

    /// Sets the first function with a device number.
    pub(super) fn set_first(&mut self, device: u8, link: u32) {
        let bit = 1u32.checked_shl(device.into()).unwrap_or(0);
        if link == NOTHING {
            self.used &= !bit;
        } else {
            self.used |= bit;
        }
        if let Some(first) = self.first.get_mut(usize::from(device)) {
            *first = link;
        }
    }
}

/// Does a function come or go?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    In,
    Out,
}

/// How many functions some buses have, and how many of them each client may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    functions: u16,
    granted: [u16; MAX_CLIENTS],
}

impl Counts {
    const NONE: Self = Self {
        functions: 0,
        granted: [0; MAX_CLIENTS],
    };

    /// Counts a function in or out that is granted to `clients`.
    pub(super) fn change(&mut self, clients: u32, change: Change) {
        // A bus has at most 256 functions, a block of them 4,096.
        let by = |count: u16| match change {
            Change::In => count.saturating_add(1),
            Change::Out => count.saturating_sub(1),
        };
        self.functions = by(self.functions);
        let mut left = clients;
        while left != 0 {
            if let Some(count) = self.granted.get_mut(left.trailing_zeros() as usize) {
                *count = by(*count);
            }
            left &= left - 1;
        }
    }

    pub(super) fn functions(&self) -> u32 {
        self.functions.into()
    }

    pub(super) fn granted(&self, client: u16) -> u32 {
        self.granted
            .get(usize::from(client))
            .copied()
            .unwrap_or(0)
            .into()
    }
}

/// Buses of a block, which are counted together too: a list skips them at once.
const BLOCK: u8 = 16;

/// No directory.
const CLOSED: u16 = u16::MAX;

/// The buses of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u16,
    /// Which are open, one bit each.
    open: [u64; 4],
    /// The directory of each.
    directory: [u16; 256],
    blocks: [Counts; 256 / BLOCK as usize],
}

impl Segment {
    pub(super) const fn new(number: u16) -> Self {
        Self {
            number,
            open: [0; 4],
            directory: [CLOSED; 256],
            blocks: [Counts::NONE; 256 / BLOCK as usize],
        }
    }

    /// Counts a function of a bus in or out that is granted to `clients`.
    pub(super) fn count(&mut self, bus: u8, clients: u32, change: Change) {
        if let Some(block) = self.blocks.get_mut(usize::from(bus / BLOCK)) {
            block.change(clients, change);
        }
    }

    /// The blocks of buses in ascending order: the last bus of each, and its functions.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u8, &Counts)> {
        (BLOCK - 1..=u8::MAX)
            .step_by(BLOCK.into())
            .zip(&self.blocks)
    }

    /// The buses that are open in the block with this last bus, with their directories.
    pub(super) fn in_block(&self, last: u8) -> impl Iterator<Item = (u8, usize)> {
        self.open_from(last & !(BLOCK - 1))
            .take_while(move |(bus, _)| *bus <= last)
    }

    pub(super) fn get(&self, bus: u8) -> Option<usize> {
        match self.directory.get(usize::from(bus)).copied() {
            None | Some(CLOSED) => None,
            Some(directory) => Some(directory.into()),
        }
    }

    pub(super) fn set(&mut self, bus: u8, directory: Option<usize>) {
        let bit = 1u64 << (bus % 64);
        if let Some(word) = self.open.get_mut(usize::from(bus / 64)) {
            match directory {
                Some(_) => *word |= bit,
                None => *word &= !bit,
            }
        }
        if let Some(place) = self.directory.get_mut(usize::from(bus)) {
            // At most 256 buses in each of a few segments.
            *place = directory
                .and_then(|at| u16::try_from(at).ok())
                .unwrap_or(CLOSED);
        }
    }

    /// The buses that are open from a number on, with their directories.
    pub(super) fn open_from(&self, bus: u8) -> impl Iterator<Item = (u8, usize)> {
        let mut next = Some(bus);
        core::iter::from_fn(move || {
            let from = next?;
            let word = usize::from(from / 64);
            let first = self.open.get(word)? & u64::MAX << (from % 64);
            let (word, bits) = if first != 0 {
                (word, first)
            } else {
                (word + 1..)
                    .zip(self.open.iter().skip(word + 1))
                    .map(|(at, bits)| (at, *bits))
                    .find(|(_, bits)| *bits != 0)?
            };
            let bus = (word * 64) as u8 + bits.trailing_zeros() as u8;
            next = bus.checked_add(1);
            Some((bus, self.get(bus)?))
        })
    }
}
