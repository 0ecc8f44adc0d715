//! [`Table`]: the functions of a shard. They come and go at any time; an
//! [`Index`] stays with its function until that is removed, and a removed one's
//! place is used again.
//!
//! A function is found by its address in a bounded number of steps, however many
//! there are: segment -> directory of the bus -> device number -> at most eight
//! functions. All functions are linked in ascending order of addresses; the
//! directories count those that each client may have, so that a list is
//! served without going over the table.
//!
//! Memory is lent: one [`Slot`] for each function, one [`Bus`] for each bus that
//! has functions or that a bridge leads to. Nothing is allocated.
//!
//! Neighbours: [`crate::boot`] fills it, [`crate::shard`] works on it.

mod bus;
mod buses;
mod groups;
mod lists;
mod storage;

pub use bus::Bus;
pub use groups::Part;

use core::cell::Cell;

use heapless::{Vec, VecView};
use hw::Sbdf;
use system::info::MAX_ECAM;
use system::model::MAX_CLIENTS;
use thiserror::Error;

use crate::Device;
use bus::{Change, NOTHING, Segment};
use storage::Storage;

/// A function's place in the table, for as long as it is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Index(u32);

impl Index {
    /// The place with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, below the table's capacity.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    const fn place(self) -> usize {
        self.0 as usize
    }

    /// [`NOTHING`] is no place.
    const fn of(link: u32) -> Option<Self> {
        match link {
            NOTHING => None,
            number => Some(Self(number)),
        }
    }
}

/// Memory for one function.
#[derive(Debug)]
pub struct Slot {
    device: Option<Device>,
    /// The next function in ascending order of addresses, or the next free slot.
    next: u32,
    /// The function before.
    previous: u32,
}

/// Why a function or a bus cannot be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Full {
    /// No room for another function.
    #[error("more than {0} functions")]
    Functions(usize),
    /// No room for another bus.
    #[error("more than {0} buses")]
    Buses(usize),
    /// No room for another segment.
    #[error("more than {0} segments")]
    Segments(usize),
    /// The address is in the table.
    #[error("{0} is there already")]
    Occupied(Sbdf),
}

/// The functions of a shard, in memory that is lent to it.
#[derive(Debug)]
pub struct Table<'m> {
    slots: Storage<'m, Slot>,
    buses: Storage<'m, Bus>,
    /// In ascending order of numbers.
    segments: Vec<Segment, MAX_ECAM>,
    /// In ascending order of addresses.
    first: u32,
    last: u32,
    free_slot: u32,
    free_bus: u32,
    functions: u32,
    /// The last of each client's list that was asked for, and of the whole list: the one after it is
    /// found from there.
    hints: [Cell<Option<(u32, Index)>>; MAX_CLIENTS + 1],
}

impl<'m> Table<'m> {
    /// An empty table in this memory.
    pub fn new(slots: &'m mut VecView<Slot>, buses: &'m mut VecView<Bus>) -> Self {
        Self {
            slots: Storage::new(slots),
            buses: Storage::new(buses),
            segments: Vec::new(),
            first: NOTHING,
            last: NOTHING,
            free_slot: NOTHING,
            free_bus: NOTHING,
            functions: 0,
            hints: [const { Cell::new(None) }; MAX_CLIENTS + 1],
        }
    }

    /// How many functions it has.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.functions
    }

    /// Has it none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.functions == 0
    }

    /// How often a place for a function or a bus has been looked at.
    #[cfg(feature = "steps")]
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.slots.steps() + self.buses.steps()
    }

    /// How many functions it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// The function at this place.
    #[inline]
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Device> {
        self.slots.get(index.place())?.device.as_ref()
    }

    /// The function at this place, to change it. Its address, and who it is granted to
    /// ([`Self::grant`]), stay.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, index: Index) -> Option<&mut Device> {
        self.slots.get_mut(index.place())?.device.as_mut()
    }

    /// Where the function at this address is.
    #[must_use]
    pub fn find(&self, at: Sbdf) -> Option<Index> {
        let bus = self.bus(at.segment(), at.bus())?;
        self.chain(bus.first(at.device()))
            .find(|(_, device)| device.at == at)
            .map(|(index, _)| index)
    }

    /// The function at this address.
    #[must_use]
    pub fn at(&self, at: Sbdf) -> Option<&Device> {
        self.get(self.find(at)?)
    }

    /// Enters a function; its bus is opened if it was not.
    ///
    /// # Errors
    /// There is no room, or the address is taken. Nothing has changed then.
    pub fn insert(&mut self, device: Device) -> Result<Index, Full> {
        let (at, granted) = (device.at, device.granted());
        // At the boot each comes after all that are there.
        let is_last = self.at_link(self.last).is_none_or(|last| last < at);
        if !is_last && self.find(at).is_some() {
            return Err(Full::Occupied(at));
        }
        if self.free_slot == NOTHING && self.slots.is_full() {
            return Err(Full::Functions(self.capacity()));
        }
        let directory = self.open(at.segment(), at.bus())?;
        let after = if is_last { None } else { self.after(Some(at)) };
        let next = after.map_or(NOTHING, Index::number);
        let previous = match after.and_then(|after| self.slots.get(after.place())) {
            Some(after) => after.previous,
            None => self.last,
        };
        let slot = Slot {
            device: Some(device),
            next,
            previous,
        };
        let index = match Index::of(self.free_slot) {
            Some(index) => {
                if let Some(free) = self.slots.get_mut(index.place()) {
                    self.free_slot = core::mem::replace(free, slot).next;
                }
                index
            }
            None => {
                // Capacities are below 2^32: an address has so many bits.
                let index = Index(self.slots.len() as u32);
                if self.slots.push(slot).is_err() {
                    return Err(Full::Functions(self.slots.capacity()));
                }
                index
            }
        };
        self.link(previous, next, index.0, index.0);
        let first = self.buses.get(directory).map(|bus| bus.first(at.device()));
        let is_first = first.and_then(|first| self.at_link(first));
        if is_first.is_none_or(|first| at < first)
            && let Some(bus) = self.buses.get_mut(directory)
        {
            bus.set_first(at.device(), index.0);
        }
        self.count(at, granted, Change::In);
        self.functions += 1;
        self.forget_hints();
        Ok(index)
    }

    /// The address of the function that a link leads to.
    fn at_link(&self, link: u32) -> Option<Sbdf> {
        Some(self.get(Index::of(link)?)?.at)
    }

    /// Makes `ahead` the one after `previous`, and `behind` the one before `next`.
    fn link(&mut self, previous: u32, next: u32, ahead: u32, behind: u32) {
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = ahead,
            None => self.first = ahead,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.previous = behind,
            None => self.last = behind,
        }
    }

    /// Positions in lists are not what they were.
    fn forget_hints(&self) {
        self.hints.iter().for_each(|hint| hint.set(None));
    }

    /// Takes a function out; its place is free. The bus stays open ([`Self::close`]).
    pub fn remove(&mut self, index: Index) -> Option<Device> {
        let slot = self.slots.get_mut(index.place())?;
        let device = slot.device.take()?;
        let (previous, next) = (slot.previous, slot.next);
        slot.next = core::mem::replace(&mut self.free_slot, index.0);
        self.link(previous, next, next, previous);
        self.functions -= 1;
        self.forget_hints();
        let at = device.at;
        let same_device = |next: &Sbdf| next.with_function(0) == at.with_function(0);
        let rest = match self.at_link(next).filter(same_device) {
            Some(_) => next,
            None => NOTHING,
        };
        let directory = self.directory(at.segment(), at.bus())?;
        let bus = self.buses.get_mut(directory)?;
        if bus.first(at.device()) == index.0 {
            bus.set_first(at.device(), rest);
        }
        self.count(at, device.granted(), Change::Out);
        Some(device)
    }

    /// Says which clients the function is granted to: one bit a client id.
    pub fn grant(&mut self, index: Index, clients: u32) {
        let Some(device) = self.get_mut(index) else {
            return;
        };
        let (at, before) = (device.at, device.set_granted(clients));
        self.forget_hints();
        self.count(at, before, Change::Out);
        self.count(at, clients, Change::In);
    }

    /// Counts a function in or out that is granted to `clients`.
    fn count(&mut self, at: Sbdf, clients: u32, change: Change) {
        let known = |known: &&mut Segment| known.number == at.segment();
        let Some(segment) = self.segments.iter_mut().find(known) else {
            return;
        };
        segment.count(at.bus(), clients, change);
        if let Some(bus) = segment.get(at.bus()).and_then(|at| self.buses.get_mut(at)) {
            bus.counts.change(clients, change);
        }
    }

    /// All functions in ascending order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (Index, &Device)> {
        let mut next = self.after(None);
        core::iter::from_fn(move || {
            let index = next?;
            next = self.next(index);
            Some((index, self.get(index)?))
        })
    }

    /// The function after the one at this place, in ascending order of addresses.
    #[inline]
    #[must_use]
    pub fn next(&self, index: Index) -> Option<Index> {
        let slot = self.slots.get(index.place())?;
        // A free place has a link too.
        slot.device.as_ref()?;
        Index::of(slot.next)
    }

    /// The first function beyond an address (`None`: of all), in ascending order of addresses. The
    /// address need not be in the table: so a walk goes on while functions come and go.
    #[must_use]
    pub fn after(&self, last: Option<Sbdf>) -> Option<Index> {
        let Some(last) = last else {
            return Index::of(self.first);
        };
        let same = self.bus(last.segment(), last.bus()).and_then(|bus| {
            let same = self
                .chain(bus.first(last.device()))
                .find(|(_, device)| device.at > last)
                .map(|(index, _)| index);
            same.or_else(|| Index::of(bus.first_from(last.device().checked_add(1)?)))
        });
        same.or_else(|| self.after_bus(last))
    }

    /// The first function on a higher bus or segment.
    fn after_bus(&self, last: Sbdf) -> Option<Index> {
        self.segments
            .iter()
            .find_map(|segment| match last.segment() {
                number if number == segment.number => {
                    self.first_from(segment, last.bus().checked_add(1)?)
                }
                number if number < segment.number => self.first_from(segment, 0),
                _ => None,
            })
    }

    /// The first function of a segment on bus `from` or beyond.
    fn first_from(&self, segment: &Segment, from: u8) -> Option<Index> {
        (segment.open_from(from))
            .find_map(|(_, directory)| Index::of(self.buses.get(directory)?.first_from(0)))
    }

    /// The functions on a bus in ascending order of addresses.
    pub fn on_bus(&self, segment: u16, bus: u8) -> impl Iterator<Item = (Index, &Device)> {
        let directory = self.bus(segment, bus);
        (0..=Sbdf::MAX_DEVICE)
            .filter_map(move |device| Some(directory?.first(device)))
            .flat_map(|first| self.chain(first))
    }

    /// The functions with the same device number as `at`, itself among them, in ascending order.
    pub fn functions_of(&self, at: Sbdf) -> impl Iterator<Item = (Index, &Device)> {
        let first = self
            .bus(at.segment(), at.bus())
            .map_or(NOTHING, |bus| bus.first(at.device()));
        self.chain(first)
    }

    /// The functions with the same device number from a link on.
    fn chain(&self, first: u32) -> impl Iterator<Item = (Index, &Device)> {
        let mut link = first;
        let mut known = None;
        core::iter::from_fn(move || {
            let index = Index::of(link)?;
            let Slot { device, next, .. } = self.slots.get(index.place())?;
            link = *next;
            let device = device.as_ref()?;
            let number = device.at.with_function(0);
            (*known.get_or_insert(number) == number).then_some((index, device))
        })
    }
}
