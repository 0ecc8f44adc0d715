//! The table as [`crate::groups`] sees it: functions in order, and a node each; [`Part`], the functions whose
//! groups may change when one comes or goes.

use hw::{BusRange, Sbdf};

use super::{Index, Table};
use crate::groups::{Functions, Node};

impl Functions for Table<'_> {
    fn node(&self, place: u32) -> Option<&Node> {
        self.get(Index(place)).map(|device| &device.node)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.get_mut(Index(place)).map(|device| &mut device.node)
    }

    fn first(&self) -> Option<u32> {
        self.after(None).map(Index::number)
    }

    fn next(&self, place: u32) -> Option<u32> {
        self.next(Index::new(place)).map(Index::number)
    }

    fn count(&self) -> u32 {
        self.len()
    }
}

/// One device of a root bus with all that is behind it. Nothing ties its functions to others, so that their groups
/// can be formed by themselves. Where bridges claim the same buses, it is all of these devices.
pub struct Part<'t, 'm> {
    table: &'t mut Table<'m>,
    segment: u16,
    root_bus: u8,
    /// Device numbers on the root bus, one bit each.
    devices: u32,
    /// Buses behind these, one bit each; all above the root bus.
    buses: [u64; 4],
}

impl<'t, 'm> Part<'t, 'm> {
    /// The part that the function at an address belongs to, or would; `None` where bridges make no tree, or one claims
    /// buses of another root bus.
    ///
    /// Not for a virtual function, which may be on a bus that no bridge has as its first.
    pub fn of(table: &'t mut Table<'m>, at: Sbdf) -> Option<Self> {
        let top = table.top_of(at)?;
        let mut part = Self {
            table,
            segment: top.segment(),
            root_bus: top.bus(),
            devices: 1 << top.device(),
            buses: [0; 4],
        };
        // Each round but the last adds a bus.
        while part.grow() {}
        part.is_apart().then_some(part)
    }

    /// Does nothing on the segment's other root buses belong to it? What lies deeper there would have made the claims
    /// of bridges conflict before.
    fn is_apart(&self) -> bool {
        let is_claimed = |bus: u8| is_set(&self.buses, bus);
        self.table
            .buses_of(self.segment)
            .filter(|(bus, bridge)| *bus != self.root_bus && bridge.is_none())
            .all(|(bus, _)| {
                let mut functions = self.table.on_bus(self.segment, bus);
                let claims = |behind: BusRange| behind.iter().any(is_claimed);
                !is_claimed(bus)
                    && functions.all(|(_, device)| !device.node.behind.is_some_and(claims))
            })
    }

    /// Adds what bridges of the part claim, and devices of the root bus that claim some of that. `false` when that is
    /// in it already.
    fn grow(&mut self) -> bool {
        let (devices, buses) = (self.devices, self.buses);
        let mut next = Functions::first(self);
        while let Some(node) = next.and_then(|place| self.node(place)) {
            let behind = node.behind.filter(|behind| behind.first() > node.at.bus());
            next = next.and_then(|place| Functions::next(self, place));
            behind
                .into_iter()
                .flat_map(BusRange::iter)
                .for_each(|bus| set(&mut self.buses, bus));
        }
        for (_, device) in self.table.on_bus(self.segment, self.root_bus) {
            let mut behind = device.node.behind.into_iter().flat_map(BusRange::iter);
            if behind.any(|bus| is_set(&self.buses, bus)) {
                self.devices |= 1 << device.at.device();
            }
        }
        (devices, buses) != (self.devices, self.buses)
    }

    fn holds(&self, at: Sbdf) -> bool {
        at.segment() == self.segment
            && if at.bus() == self.root_bus {
                self.devices >> at.device() & 1 != 0
            } else {
                is_set(&self.buses, at.bus())
            }
    }

    /// The lowest address of the part that is above `at`, which is none of its, on its root bus or beyond.
    fn beyond(&self, at: Sbdf) -> Option<Sbdf> {
        let number = |bus: u8, device: u8| {
            Sbdf::from_requester_id(self.segment, u16::from(bus) << 8 | u16::from(device) << 3)
        };
        if at.bus() == self.root_bus {
            let above = self.devices & !(u32::MAX >> (31 - at.device()));
            if above != 0 {
                return Some(number(self.root_bus, above.trailing_zeros() as u8));
            }
        }
        (at.bus().checked_add(1)?..=u8::MAX)
            .find(|bus| is_set(&self.buses, *bus))
            .map(|bus| number(bus, 0))
    }

    /// The first function of the part from an address on.
    fn from(&self, at: Sbdf) -> Option<Index> {
        let mut at = at;
        // Each round leads to a higher device number or bus.
        loop {
            let index = self.table.find(at).or_else(|| self.table.after(Some(at)))?;
            let here = self.table.get(index)?.at;
            if here.segment() != self.segment {
                return None;
            }
            if self.holds(here) {
                return Some(index);
            }
            at = self.beyond(here)?;
        }
    }
}

fn is_set(buses: &[u64; 4], bus: u8) -> bool {
    let word = buses.get(usize::from(bus / 64)).copied();
    word.unwrap_or(0) >> (bus % 64) & 1 != 0
}

fn set(buses: &mut [u64; 4], bus: u8) {
    if let Some(word) = buses.get_mut(usize::from(bus / 64)) {
        *word |= 1 << (bus % 64);
    }
}

impl Functions for Part<'_, '_> {
    fn node(&self, place: u32) -> Option<&Node> {
        self.table.node(place)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.table.node_mut(place)
    }

    fn first(&self) -> Option<u32> {
        let routing = u16::from(self.root_bus) << 8 | (self.devices.trailing_zeros() as u16) << 3;
        self.from(Sbdf::from_requester_id(self.segment, routing))
            .map(Index::number)
    }

    fn next(&self, place: u32) -> Option<u32> {
        let index = self.table.next(Index::new(place))?;
        let at = self.table.get(index)?.at;
        if self.holds(at) {
            return Some(index.number());
        }
        if at.segment() != self.segment {
            return None;
        }
        self.from(self.beyond(at)?).map(Index::number)
    }

    fn count(&self) -> u32 {
        self.table.len()
    }
}
