//! Buses of the table: which are open, and which bridge leads to each.

use hw::Sbdf;
use system::info::MAX_ECAM;

use super::bus::Segment;
use super::{Bus, Full, Index, Table};

impl Table<'_> {
    /// Makes a directory for the bus behind a bridge, or notes the bridge in the one there is.
    ///
    /// # Errors
    /// There is no room.
    pub fn lead(&mut self, segment: u16, bus: u8, bridge: Sbdf) -> Result<(), Full> {
        let directory = self.open(segment, bus)?;
        if let Some(bus) = self.buses.get_mut(directory) {
            bus.bridge = Some(bridge);
        }
        Ok(())
    }

    /// The bridge that leads to a bus; `None` for a root bus and one that is not open.
    #[must_use]
    pub fn bridge_to(&self, segment: u16, bus: u8) -> Option<Sbdf> {
        self.bus(segment, bus)?.bridge
    }

    /// The function on a root bus that leads to the bus of an address, itself if that is a root bus; `None` where
    /// bridges make no tree.
    #[must_use]
    pub fn top_of(&self, at: Sbdf) -> Option<Sbdf> {
        let mut top = at;
        // Each is on a lower bus.
        while let Some(bridge) = self.bridge_to(top.segment(), top.bus()) {
            if bridge.bus() >= top.bus() {
                return None;
            }
            top = bridge;
        }
        Some(top)
    }

    /// The buses that are open: (segment, bus, the bridge that leads there), in ascending order.
    pub fn buses(&self) -> impl Iterator<Item = (u16, u8, Option<Sbdf>)> {
        self.segments.iter().flat_map(|segment| {
            self.open_in(segment)
                .map(|(bus, bridge)| (segment.number, bus, bridge))
        })
    }

    /// The buses of a segment that are open, with the bridge that leads to each, in ascending order.
    pub fn buses_of(&self, segment: u16) -> impl Iterator<Item = (u8, Option<Sbdf>)> {
        let segment = self.segments.iter().find(|known| known.number == segment);
        segment
            .into_iter()
            .flat_map(|segment| self.open_in(segment))
    }

    fn open_in(&self, segment: &Segment) -> impl Iterator<Item = (u8, Option<Sbdf>)> {
        (segment.open_from(0))
            .filter_map(|(bus, directory)| Some((bus, self.buses.get(directory)?.bridge)))
    }

    /// Forgets a bus that has no functions; `false` if it has some.
    pub fn close(&mut self, segment: u16, bus: u8) -> bool {
        let Some(directory) = self.directory(segment, bus) else {
            return true;
        };
        let Some(place) = self.buses.get_mut(directory) else {
            return true;
        };
        if place.counts.functions() > 0 {
            return false;
        }
        *place = Bus::free(self.free_bus);
        self.free_bus = directory as u32;
        if let Some(segment) = self
            .segments
            .iter_mut()
            .find(|known| known.number == segment)
        {
            segment.set(bus, None);
        }
        true
    }

    /// Forgets the buses without functions that a bridge leads to, which is gone.
    pub fn close_behind(&mut self, bridge: Sbdf) {
        let mut last = None;
        // Ascending, each once.
        loop {
            let next = self
                .buses()
                .filter(|(.., above)| *above == Some(bridge))
                .map(|(segment, bus, _)| (segment, bus))
                .find(|bus| last.is_none_or(|last| *bus > last));
            let Some((segment, bus)) = next else {
                return;
            };
            last = next;
            self.close(segment, bus);
        }
    }

    /// The directory of a bus, made if there is none.
    pub(super) fn open(&mut self, segment: u16, bus: u8) -> Result<usize, Full> {
        if let Some(directory) = self.directory(segment, bus) {
            return Ok(directory);
        }
        let place = match self.segments.iter().position(|s| s.number >= segment) {
            Some(place) => place,
            None => self.segments.len(),
        };
        let known = self
            .segments
            .get(place)
            .is_some_and(|known| known.number == segment);
        if !known && self.segments.is_full() {
            return Err(Full::Segments(MAX_ECAM));
        }
        let directory = match Index::of(self.free_bus) {
            Some(free) => {
                if let Some(bus) = self.buses.get_mut(free.place()) {
                    self.free_bus = core::mem::replace(bus, Bus::new()).next_free();
                }
                free.place()
            }
            None => {
                let directory = self.buses.len();
                if self.buses.push(Bus::new()).is_err() {
                    return Err(Full::Buses(self.buses.capacity()));
                }
                directory
            }
        };
        if !known {
            // There is room, as just seen.
            let _ = self.segments.insert(place, Segment::new(segment));
        }
        if let Some(segment) = self.segments.get_mut(place) {
            segment.set(bus, Some(directory));
        }
        Ok(directory)
    }

    pub(super) fn directory(&self, segment: u16, bus: u8) -> Option<usize> {
        let known = |known: &&Segment| known.number == segment;
        self.segments.iter().find(known)?.get(bus)
    }

    pub(super) fn bus(&self, segment: u16, bus: u8) -> Option<&Bus> {
        self.buses.get(self.directory(segment, bus)?)
    }
}
