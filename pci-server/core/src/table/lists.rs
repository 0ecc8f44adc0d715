//! Lists of the table by number: all functions, and those that a client may
//! have. A list that is read in order is read from where it was left.

use system::model::MAX_CLIENTS;

use super::bus::Counts;
use super::{Index, Table};
use crate::Device;

impl Table<'_> {
    /// The `n`-th function in ascending order of addresses.
    #[must_use]
    pub fn nth(&self, n: u32) -> Option<Index> {
        self.nth_of(MAX_CLIENTS, n, Counts::functions, |_| true)
    }

    /// The `n`-th function that is granted to a client, in ascending order of addresses.
    #[must_use]
    pub fn nth_granted(&self, client: u16, n: u32) -> Option<Index> {
        self.nth_of(
            usize::from(client),
            n,
            |counts| counts.granted(client),
            |device| device.is_granted(client),
        )
    }

    /// The `n`-th function that `is` counts, where `count` says how many some buses have: whole blocks of buses
    /// are skipped, so that the steps are bounded by the blocks of the shard, the buses of one and the functions
    /// of one bus.
    fn nth_of(
        &self,
        list: usize,
        n: u32,
        count: impl Fn(&Counts) -> u32,
        is: impl Fn(&Device) -> bool,
    ) -> Option<Index> {
        let length: u32 = (self.segments.iter())
            .flat_map(|segment| segment.blocks().map(|(_, block)| count(block)))
            .sum();
        if n >= length {
            return None;
        }
        let hint = self.hints.get(list)?;
        let index = match hint.get() {
            // As when each BAR of a function is asked for.
            Some((last, index)) if last == n => Some(index),
            Some((last, index)) if last.checked_add(1) == Some(n) => self.next_of(index, &is),
            _ => None,
        };
        let index = match index {
            Some(index) => index,
            None => self.search(n, count, is)?,
        };
        hint.set(Some((n, index)));
        Some(index)
    }

    /// The next function that `is` counts, if it is near.
    fn next_of(&self, index: Index, is: &impl Fn(&Device) -> bool) -> Option<Index> {
        const NEAR: usize = 16;
        let mut index = index;
        for _ in 0..NEAR {
            index = self.next(index)?;
            if is(self.get(index)?) {
                return Some(index);
            }
        }
        None
    }

    fn search(
        &self,
        n: u32,
        count: impl Fn(&Counts) -> u32,
        is: impl Fn(&Device) -> bool,
    ) -> Option<Index> {
        let mut left = n;
        for segment in &self.segments {
            for (last, block) in segment.blocks() {
                let here = count(block);
                if left >= here {
                    left -= here;
                    continue;
                }
                for (number, directory) in segment.in_block(last) {
                    let here = count(&self.buses.get(directory)?.counts);
                    if left >= here {
                        left -= here;
                        continue;
                    }
                    return self
                        .on_bus(segment.number, number)
                        .filter(|(_, device)| is(device))
                        .nth(left as usize)
                        .map(|(index, _)| index);
                }
            }
        }
        None
    }
}
