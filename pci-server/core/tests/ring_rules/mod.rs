//! What holds of every partition into groups.

use std::collections::BTreeSet;

use pci_core::groups::{Functions, ring};

/// Rings are rings, ascending from their first member; ties say whether one is alone; the number is the
/// first member's place.
pub fn consistent<F: Functions>(functions: &F) {
    let places = std::iter::successors(functions.first(), |place| functions.next(*place));
    for start in places {
        let node = *functions.node(start).unwrap();
        let members: Vec<_> = ring(functions, start).collect();
        assert_eq!(members[0], start);
        let of = |place: &u32| *functions.node(*place).unwrap();
        let sorted: BTreeSet<_> = members.iter().map(|place| of(place).at).collect();
        assert_eq!(sorted.len(), members.len());
        assert_eq!(
            node.is_alone(),
            members.len() == 1,
            "{} {:?}",
            node.at,
            node.tie()
        );
        assert_eq!(of(&node.group()).at, *sorted.first().unwrap());
        if start == node.group() {
            assert!(members.is_sorted_by_key(|place| of(place).at));
        }
        for other in members {
            assert_eq!(of(&other).group(), node.group());
        }
    }
}
