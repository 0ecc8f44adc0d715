//! Isolation groups that are formed anew around a change only: the same as if all were, in trees drawn at random.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use heapless::Vec;
use hw::{BusRange, Sbdf};
use pci_core::groups::{Claims, Kind, Node, form};
use pci_core::table::{Bus, Part, Slot};
use pci_core::{Device, Table};
use proptest::prelude::*;

/// A bus below another one, by the place of that in the list, and where the bridge is: device and function.
type Branch = (prop::sample::Index, u8, u8, Kind, bool);
/// A function on a bus.
type Leaf = (prop::sample::Index, u8, u8, Kind, (bool, bool));

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        1 => Just(Kind::Conventional),
        3 => Just(Kind::Express),
        3 => Just(Kind::DownstreamPort),
        1 => Just(Kind::ToConventional),
        1 => Just(Kind::Never),
    ]
}

fn branch() -> impl Strategy<Value = Branch> {
    let place = (any::<prop::sample::Index>(), 0u8..4, 0u8..8);
    (place, kind(), any::<bool>()).prop_map(|((above, device, function), kind, isolates)| {
        (above, device, function, kind, isolates)
    })
}

fn leaf() -> impl Strategy<Value = Leaf> {
    let place = (any::<prop::sample::Index>(), 0u8..4, 0u8..8);
    (place, kind(), any::<(bool, bool)>())
        .prop_map(|((bus, device, function), kind, flags)| (bus, device, function, kind, flags))
}

fn address(bus: u8, device: u8, function: u8) -> Sbdf {
    Sbdf::from_parts(0, bus, device, function).unwrap()
}

fn device(node: Node) -> Device {
    let mut device = Device::new(node.at, None);
    device.node = node;
    device
}

/// Two root buses, 0 and 40h, and trees of buses below them, numbered as firmware does it.
struct Tree {
    /// The bus number of each bus.
    numbers: std::vec::Vec<u8>,
    bridges: std::vec::Vec<Node>,
}

impl Tree {
    fn new(branches: &[Branch]) -> Self {
        // The first two are the root buses.
        let mut below: std::vec::Vec<std::vec::Vec<usize>> = vec![vec![], vec![]];
        for (at, (above, ..)) in branches.iter().enumerate() {
            let above = above.index(below.len());
            below[above].push(at + 2);
            below.push(vec![]);
        }
        let mut tree = Self {
            numbers: vec![0; below.len()],
            bridges: vec![],
        };
        let mut next = 0;
        tree.number(&below, branches, 0, &mut next);
        next = 0x40;
        tree.number(&below, branches, 1, &mut next);
        tree
    }

    fn number(
        &mut self,
        below: &[std::vec::Vec<usize>],
        branches: &[Branch],
        bus: usize,
        next: &mut u8,
    ) {
        let own = *next;
        self.numbers[bus] = own;
        *next += 1;
        for &under in &below[bus] {
            let (_, device, function, kind, isolates) = branches[under - 2];
            let first = *next;
            self.number(below, branches, under, next);
            let mut node = Node::new(address(own, device, function));
            (node.kind, node.isolates) = (kind, isolates);
            node.behind = BusRange::new(first, *next - 1);
            self.bridges.push(node);
        }
    }
}

fn leaf_node(tree: &Tree, (bus, device, function, kind, (isolates, phantom)): &Leaf) -> Node {
    let bus = *bus.get(&tree.numbers);
    let mut node = Node::new(address(bus, *device, *function));
    (node.kind, node.isolates) = (*kind, *isolates);
    node.phantom_bits = u8::from(*phantom);
    node
}

fn nodes(table: &Table<'_>) -> std::vec::Vec<Node> {
    table.iter().map(|(_, device)| device.node).collect()
}

proptest! {
    // One in five trees has no use.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 6,
        max_global_rejects: ProptestConfig::default().cases * 6,
        ..ProptestConfig::default()
    })]
    #[test]
    fn groups_around_a_change_are_what_all_of_them_would_be(
        branches in prop::collection::vec(branch(), 0..24),
        leaves in prop::collection::vec(leaf(), 1..24),
        new in leaf(),
        claims in prop::option::of((0u8..0x50, 0u8..8)),
        gone in any::<prop::sample::Index>(),
    ) {
        let tree = Tree::new(&branches);
        let (mut slots, mut buses) = (Vec::<Slot, 64>::new(), Vec::<Bus, 64>::new());
        let mut table = Table::new(&mut slots, &mut buses);
        for bridge in &tree.bridges {
            if table.insert(device(*bridge)).is_ok() {
                table.lead(0, bridge.behind.unwrap().first(), bridge.at).unwrap();
            }
        }
        let leaves: std::vec::Vec<Node> = leaves.iter().map(|leaf| leaf_node(&tree, leaf)).collect();
        let leaves: std::vec::Vec<Node> =
            leaves.into_iter().filter(|leaf| table.insert(device(*leaf)).is_ok()).collect();
        // Where one bridge took another's place its buses hang in the air: such a shard forms all groups.
        let connected = tree.bridges.iter().all(|bridge| table.at(bridge.at).is_some_and(|known| known.node.behind == bridge.behind));
        prop_assume!(connected);
        prop_assert_eq!(form(&mut table), Claims::Apart);

        if !leaves.is_empty() {
            let gone = gone.get(&leaves).at;
            let index = table.find(gone).unwrap();
            table.remove(index).unwrap();
            let mut part = Part::of(&mut table, gone).unwrap();
            prop_assert_eq!(form(&mut part), Claims::Apart);
            let around = nodes(&table);
            form(&mut table);
            prop_assert_eq!(around, nodes(&table));
        }

        // A bridge that lies, sometimes.
        let mut new = leaf_node(&tree, &new);
        new.behind = claims.and_then(|(first, more)| BusRange::new(first, first + more));
        if table.insert(device(new)).is_ok() {
            let Some(mut part) = Part::of(&mut table, new.at) else {
                // It claims what is another root bus's: then all are formed.
                prop_assert!(new.behind.is_some());
                return Ok(());
            };
            let part = form(&mut part);
            let around = nodes(&table);
            prop_assert_eq!(form(&mut table), part);
            prop_assert_eq!(around, nodes(&table));
        }
    }
}
