//! Lists of the table by number: all functions, and those that a client may
//! have. A list that is read in order is read from where it was left.

use hw::Sbdf;
use system::model::MAX_CLIENTS;

use super::{Bus, Index, Table};
use crate::Device;

impl Table<'_> {
    /// The `n`-th function in ascending order of addresses.
    #[must_use]
    pub fn nth(&self, n: u32) -> Option<Index> {
        self.nth_of(MAX_CLIENTS, n, Bus::functions, |_| true)
    }

    /// The `n`-th function that is granted to a client, in ascending order of addresses.
    #[must_use]
    pub fn nth_granted(&self, client: u16, n: u32) -> Option<Index> {
        self.nth_of(
            usize::from(client),
            n,
            |bus| bus.granted(client),
            |device| device.is_granted(client),
        )
    }

    /// The `n`-th function that `is` counts, where `count` says how many a bus has: whole buses are
    /// skipped, so that the steps are bounded by the buses of the shard and the functions of one.
    fn nth_of(
        &self,
        list: usize,
        n: u32,
        count: impl Fn(&Bus) -> u32,
        is: impl Fn(&Device) -> bool,
    ) -> Option<Index> {
        let hint = self.hints.get(list)?;
        let index = match hint.get() {
            Some((last, at)) if last.checked_add(1) == Some(n) => self.next_of(at, &is),
            _ => None,
        };
        let index = match index {
            Some(index) => index,
            None => self.search(n, count, is)?,
        };
        hint.set(Some((n, self.get(index)?.at)));
        Some(index)
    }

    /// The next function that `is` counts, if it is near.
    fn next_of(&self, at: Sbdf, is: &impl Fn(&Device) -> bool) -> Option<Index> {
        const NEAR: usize = 64;
        let mut last = at;
        for _ in 0..NEAR {
            let index = self.after(Some(last))?;
            let device = self.get(index)?;
            if is(device) {
                return Some(index);
            }
            last = device.at;
        }
        None
    }

    fn search(
        &self,
        n: u32,
        count: impl Fn(&Bus) -> u32,
        is: impl Fn(&Device) -> bool,
    ) -> Option<Index> {
        let mut left = n;
        for segment in &self.segments {
            for (number, directory) in segment.open_from(0) {
                let here = count(self.buses.get(directory)?);
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
        None
    }
}
