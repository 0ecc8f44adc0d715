//! What firmware declares that host bridges pass on (`_CRS`), by shard: [`declare`].
//!
//! What functions decode counts more than what is declared: firmware has shown that it works. A
//! shard all of whose host bridges are declared gets nothing else: what its bridges do not pass on
//! reaches nobody behind them.

use alloc::vec::Vec;

use crate::facts::Host;
use crate::region::{PAGE, Region, RegionSet};

/// A shard's part of what is declared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Declared {
    /// Memory of the shard, without what others decode.
    pub memory: RegionSet,
    /// Is everything that its bridges pass on known?
    pub whole: bool,
}

/// What is declared for each of `groups`, inside of `space`, where `decoded` is what the functions of each group
/// decode; and what two groups are declared to pass on, which is neither's.
pub fn declare(
    groups: &[Vec<&Host>],
    space: &RegionSet,
    decoded: &[RegionSet],
) -> (Vec<Declared>, RegionSet) {
    let mut all: Vec<Declared> = groups
        .iter()
        .map(|hosts| {
            let declared = hosts.iter().filter_map(|host| host.resources.as_ref());
            let memory = declared.flat_map(|resources| &resources.memory);
            let memory: RegionSet = memory.filter_map(|region| whole_pages(*region)).collect();
            Declared {
                memory: memory.intersection(space),
                whole: hosts.iter().all(|host| host.resources.is_some()),
            }
        })
        .collect();
    let mut twice = RegionSet::new();
    for (number, one) in all.iter().enumerate() {
        for other in all.iter().skip(number + 1) {
            let both = one.memory.intersection(&other.memory);
            both.regions()
                .iter()
                .for_each(|region| twice.insert(*region));
        }
    }
    for (number, one) in all.iter_mut().enumerate() {
        one.memory = one.memory.difference(&twice);
        for (other, theirs) in decoded.iter().enumerate() {
            if other != number {
                one.memory = one.memory.difference(theirs);
            }
        }
    }
    (all, twice)
}

/// The pages that are wholly in a region.
const fn whole_pages(region: Region) -> Option<Region> {
    let Some(start) = region.start().checked_next_multiple_of(PAGE) else {
        return None;
    };
    Region::new(start, region.end() / PAGE * PAGE)
}
