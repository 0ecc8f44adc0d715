//! [`share`]: which shard gets which part of the space where PCI devices can be.
//!
//! What a shard's functions decode, windows of bridges included, is its own. What nobody decodes is
//! needed too: for BARs that firmware did not place, for bridges whose window is empty, and for what is
//! plugged in later. Which addresses a host bridge passes on is said in AML only. Where that is code (constants:
//! [`crate::shards::declared`]), firmware still gives each host bridge one range, or two, below 4 GiB and
//! above. So an address belongs to the shard that decodes the nearest one: a gap between two shards is cut near its middle, at the
//! roundest address there. Of the gaps at both ends, half is the first shard's, and a shard that decodes
//! nothing gets a part of what the first has.

use alloc::vec::Vec;

use crate::region::{PAGE, Region, RegionSet};

/// Where memory above the 32-bit space begins.
const FOUR_GIB: u64 = 1 << 32;
/// Windows of bridges are multiples of this (PCI-to-PCI Bridge 1.2, 3.2.5.8).
const LEAST_ROOM: u64 = 1 << 20;

/// Shares `space` out, so that each shard has its claims. `claims`, one a shard, are parts of the space and lie apart.
#[must_use]
pub fn share(space: &RegionSet, claims: &[RegionSet]) -> Vec<RegionSet> {
    let mut shares: Vec<RegionSet> = claims.iter().map(|_| RegionSet::new()).collect();
    let zones = [Region::new(0, FOUR_GIB), Region::new(FOUR_GIB, u64::MAX)];
    for zone in zones.into_iter().flatten() {
        let zone: RegionSet = [zone].into_iter().collect();
        let claims: Vec<RegionSet> = claims
            .iter()
            .map(|claim| claim.intersection(&zone))
            .collect();
        let shared = share_zone(&space.intersection(&zone), &claims);
        for (share, part) in shares.iter_mut().zip(shared) {
            part.regions()
                .iter()
                .for_each(|region| share.insert(*region));
        }
    }
    shares
}

fn share_zone(space: &RegionSet, claims: &[RegionSet]) -> Vec<RegionSet> {
    let mut shares: Vec<RegionSet> = claims.iter().map(|_| RegionSet::new()).collect();
    for (cell, owner) in cells(space, claims) {
        let cell: RegionSet = [cell].into_iter().collect();
        for region in space.intersection(&cell).regions() {
            if let Some(share) = shares.get_mut(owner) {
                share.insert(*region);
            }
        }
    }
    if let Some(claim) = claims.first() {
        give_to_the_poor(&mut shares, claim);
    }
    shares
}

/// The space cut into ranges, each with the shard that it belongs to.
fn cells(space: &RegionSet, claims: &[RegionSet]) -> Vec<(Region, usize)> {
    let (Some(first), Some(last)) = (space.regions().first(), space.regions().last()) else {
        return Vec::new();
    };
    let mut marks: Vec<(Region, usize)> = Vec::new();
    for (owner, claim) in claims.iter().enumerate() {
        marks.extend(claim.regions().iter().map(|region| (*region, owner)));
    }
    marks.sort();
    let mut cells = Vec::new();
    // The first shard's, up to the first that another claims.
    let (mut start, mut owner, mut end) = (first.start(), 0, first.start());
    for (mark, next) in marks {
        if next != owner {
            let cut = between(end, mark.start());
            cells.extend(Region::new(start, cut).map(|cell| (cell, owner)));
            (start, owner) = (cut, next);
        }
        end = mark.end();
    }
    let cut = if owner == 0 {
        last.end()
    } else {
        between(end, last.end())
    };
    cells.extend(Region::new(start, cut).map(|cell| (cell, owner)));
    cells.extend(Region::new(cut, last.end()).map(|cell| (cell, 0)));
    cells
}

/// The roundest address in the middle half between two page addresses.
fn between(low: u64, high: u64) -> u64 {
    let quarter = high.saturating_sub(low) / 4;
    let (least, most) = (low.saturating_add(quarter), high.saturating_sub(quarter));
    let rounded = |bits: u32| most >> bits << bits;
    let page = PAGE.trailing_zeros();
    (page..u64::BITS)
        .rev()
        .map(rounded)
        .find(|at| *at >= least)
        // A gap of a page or none.
        .unwrap_or(low)
}

/// Shards that have nothing get equal parts of the largest range that the first shard has and does not decode, from
/// its end.
fn give_to_the_poor(shares: &mut [RegionSet], claim: &RegionSet) {
    let poor = shares
        .iter()
        .skip(1)
        .filter(|share| share.is_empty())
        .count() as u64;
    let Some((first, others)) = shares.split_first_mut() else {
        return;
    };
    let free = first.difference(claim);
    let largest = free
        .regions()
        .iter()
        .copied()
        .max_by_key(|region| region.bytes());
    let Some(largest) = largest.filter(|_| poor > 0) else {
        return;
    };
    let Some(bits) = (largest.bytes() / (poor + 1)).checked_ilog2() else {
        return;
    };
    let bytes = 1u64 << bits;
    if bytes < LEAST_ROOM {
        return;
    }
    let mut end = largest.end() / bytes * bytes;
    for share in others.iter_mut().filter(|share| share.is_empty()) {
        // Rounding the end down may have cost the last its part.
        let part = end
            .checked_sub(bytes)
            .filter(|start| *start > largest.start());
        let Some(part) = part.and_then(|start| Region::new(start, end)) else {
            return;
        };
        share.insert(part);
        *first = first.difference(share);
        end = part.start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn set(regions: &[(u64, u64)]) -> RegionSet {
        regions
            .iter()
            .filter_map(|(start, end)| Region::new(*start, *end))
            .collect()
    }

    #[test]
    fn gaps_are_cut_in_the_middle_and_ends_are_shared_with_the_first() {
        let space = set(&[(512 * MIB, 2816 * MIB), (3072 * MIB, 4076 * MIB)]);
        let claims = [
            set(&[(4064 * MIB, 4070 * MIB)]),
            set(&[(4000 * MIB, 4016 * MIB)]),
        ];
        let shares = share(&space, &claims);
        // Below shard 1's window: the roundest address between 1384 and 3128 MiB is 2 GiB.
        assert_eq!(
            shares[1],
            set(&[(2048 * MIB, 2816 * MIB), (3072 * MIB, 4032 * MIB)])
        );
        assert_eq!(
            shares[0],
            set(&[(512 * MIB, 2048 * MIB), (4032 * MIB, 4076 * MIB)])
        );
    }

    #[test]
    fn a_shard_that_decodes_nothing_has_room_too() {
        let high = (1u64 << 32, 1u64 << 40);
        let space = set(&[(512 * MIB, 4076 * MIB), high]);
        let claims = [
            set(&[(4064 * MIB, 4070 * MIB)]),
            RegionSet::new(),
            RegionSet::new(),
        ];
        let shares = share(&space, &claims);
        assert_eq!(
            shares[1],
            set(&[(2048 * MIB, 3072 * MIB), (768 << 30, 1 << 40)])
        );
        assert_eq!(
            shares[2],
            set(&[(512 << 30, 768 << 30), (1024 * MIB, 2048 * MIB)])
        );
        assert_eq!(
            shares[0],
            set(&[
                (512 * MIB, 1024 * MIB),
                (3072 * MIB, 4076 * MIB),
                (4 << 30, 512 << 30)
            ])
        );
    }

    #[test]
    fn one_shard_has_it_all() {
        let space = set(&[(512 * MIB, 4076 * MIB), (4 << 30, 1 << 40)]);
        assert_eq!(share(&space, &[RegionSet::new()]), vec![space.clone()]);
        assert_eq!(
            share(&space, &[set(&[(600 * MIB, 700 * MIB)])]),
            vec![space]
        );
    }

    proptest! {
        /// Whatever is decoded: nothing is lost, nothing is given twice, and everyone keeps their own.
        #[test]
        fn the_space_is_shared_out_whole(
            list in proptest::collection::vec((0u64..6000, 1u64..90, 0usize..4), 0..20),
            holes in proptest::collection::vec((0u64..6000, 1u64..300), 0..4),
        ) {
            let mut space = set(&[(0x1000, 6100 * MIB)]);
            for (start, length) in holes {
                space = space.difference(&set(&[(start * MIB, (start + length) * MIB)]));
            }
            let mut claims = vec![RegionSet::new(); 4];
            for (start, length, owner) in list {
                let mut claim = set(&[(start * MIB, (start + length) * MIB)]).intersection(&space);
                for other in &claims {
                    claim = claim.difference(other);
                }
                claim.regions().iter().for_each(|region| claims[owner].insert(*region));
            }
            let shares = share(&space, &claims);
            let mut all = RegionSet::new();
            let mut bytes = 0;
            for (share, claim) in shares.iter().zip(&claims) {
                prop_assert_eq!(&share.intersection(claim), claim);
                bytes += share.bytes();
                for region in share.regions() {
                    prop_assert_eq!(region.start() % PAGE + region.end() % PAGE, 0);
                    all.insert(*region);
                }
            }
            prop_assert_eq!(bytes, all.bytes(), "something is given twice");
            prop_assert_eq!(all, space);
        }
    }
}
