//! [`Deadlines`]: at most one moment a PD, in ticks of the counter.

use crate::MAX_PDS;

/// Who waits until when.
#[derive(Clone, Debug)]
pub struct Deadlines {
    at: [Option<u64>; MAX_PDS],
}

impl Deadlines {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            at: [None; MAX_PDS],
        }
    }

    /// PD `pd` waits until `tick`, or with `None` no longer. `false` when there is no such PD.
    #[must_use]
    pub fn set(&mut self, pd: u16, tick: Option<u64>) -> bool {
        match self.at.get_mut(usize::from(pd)) {
            Some(entry) => {
                *entry = tick;
                true
            }
            None => false,
        }
    }

    /// The next moment that somebody waits for.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.at.iter().flatten().min().copied()
    }

    /// Takes out one PD whose moment is `now` or before, the earliest first.
    pub fn expire(&mut self, now: u64) -> Option<u16> {
        let due = self
            .at
            .iter()
            .enumerate()
            .filter_map(|(pd, tick)| tick.filter(|tick| *tick <= now).map(|tick| (tick, pd)));
        let (_, pd) = due.min()?;
        *self.at.get_mut(pd)? = None;
        Some(pd as u16)
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn they_expire_in_order_and_once(steps in prop::collection::vec((0u16..70, prop::option::of(0u64..50), 0u64..60), 0..80)) {
            let mut deadlines = Deadlines::new();
            let mut model = BTreeMap::new();
            for (pd, tick, now) in steps {
                prop_assert_eq!(deadlines.set(pd, tick), pd < 64);
                if pd < 64 {
                    model.remove(&pd);
                    model.extend(tick.map(|tick| (pd, tick)));
                }
                prop_assert_eq!(deadlines.next(), model.values().min().copied());
                let mut due: Vec<(u64, u16)> = model.iter().filter(|(_, tick)| **tick <= now).map(|(pd, tick)| (*tick, *pd)).collect();
                due.sort_unstable();
                for (_, pd) in due {
                    prop_assert_eq!(deadlines.expire(now), Some(pd));
                    model.remove(&pd);
                }
                prop_assert_eq!(deadlines.expire(now), None);
            }
        }
    }
}
