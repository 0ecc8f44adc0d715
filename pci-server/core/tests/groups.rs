//! Isolation groups of modelled topologies, and of topologies drawn at random.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod ring_rules;

use std::collections::{BTreeMap, BTreeSet};

use hw::{BusRange, Sbdf};
use ipc_proto::GroupTie;
use pci_core::groups::{Functions, Kind, Node, aliases, form, ring};
use proptest::prelude::*;
use ring_rules::consistent;

#[derive(Clone, Debug)]
struct Function(Node);

/// Functions in ascending order of addresses, each in the place of its number.
#[derive(Clone, Debug)]
struct Sorted(Vec<Function>);

impl Sorted {
    fn new(mut functions: Vec<Function>) -> Self {
        functions.sort_by_key(|function| function.0.at);
        let mut sorted = Self(functions);
        form(&mut sorted);
        sorted
    }
    fn nodes(&self) -> impl Iterator<Item = Node> {
        self.0.iter().map(|function| function.0)
    }
}

impl Functions for Sorted {
    fn node(&self, place: u32) -> Option<&Node> {
        self.0.get(place as usize).map(|function| &function.0)
    }
    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.0
            .get_mut(place as usize)
            .map(|function| &mut function.0)
    }
    fn first(&self) -> Option<u32> {
        (!self.0.is_empty()).then_some(0)
    }
    fn next(&self, place: u32) -> Option<u32> {
        (place + 1 < self.count()).then_some(place + 1)
    }
    fn count(&self) -> u32 {
        self.0.len() as u32
    }
}

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn function(address: &str, kind: Kind) -> Function {
    let mut node = Node::new(at(address));
    node.kind = kind;
    Function(node)
}

fn express(address: &str) -> Function {
    function(address, Kind::Express)
}

impl Function {
    fn leads_to(mut self, first: u8, last: u8) -> Self {
        self.0.behind = BusRange::new(first, last);
        self
    }
    fn isolating(mut self) -> Self {
        self.0.isolates = true;
        self
    }
    fn virtual_function(mut self) -> Self {
        self.0.is_virtual = true;
        self
    }
    fn phantoms(mut self, bits: u8) -> Self {
        self.0.phantom_bits = bits;
        self
    }
}

/// The groups as sets of addresses, with the tie of each member.
fn groups(functions: Vec<Function>) -> Vec<Vec<(String, GroupTie)>> {
    let functions = Sorted::new(functions);
    consistent(&functions);
    let mut seen = BTreeSet::new();
    (0..functions.count())
        .filter_map(|start| {
            let members: Vec<_> = ring(&functions, start)
                .filter(|place| seen.insert(*place))
                .map(|place| {
                    let node = functions.node(place).unwrap();
                    (node.at.to_string()[5..].to_string(), node.tie())
                })
                .collect();
            (!members.is_empty()).then_some(members)
        })
        .collect()
}

fn alone(address: &str) -> Vec<(String, GroupTie)> {
    vec![(address.to_string(), GroupTie::Alone)]
}

fn tied(tie: GroupTie, addresses: &[&str]) -> Vec<(String, GroupTie)> {
    addresses
        .iter()
        .map(|address| ((*address).to_string(), tie))
        .collect()
}

#[test]
fn single_functions_on_a_root_bus_are_alone_of_whatever_kind() {
    let functions = vec![
        express("00:01.0"),
        function("00:02.0", Kind::Conventional),
        function("00:03.0", Kind::Never),
    ];
    assert_eq!(
        groups(functions),
        [alone("00:01.0"), alone("00:02.0"), alone("00:03.0")]
    );
}

#[test]
fn functions_of_a_device_are_together_unless_they_keep_apart() {
    let functions = vec![
        express("00:01.0"),
        express("00:01.1"),
        express("00:02.0").isolating(),
        express("00:02.1").isolating(),
        express("00:03.0").isolating(),
        express("00:03.3"),
        express("00:03.7"),
        function("00:1f.0", Kind::Conventional),
        function("00:1f.3", Kind::Conventional),
    ];
    assert_eq!(
        groups(functions),
        [
            tied(GroupTie::MultiFunction, &["00:01.0", "00:01.1"]),
            alone("00:02.0"),
            alone("00:02.1"),
            alone("00:03.0"),
            tied(GroupTie::MultiFunction, &["00:03.3", "00:03.7"]),
            tied(GroupTie::MultiFunction, &["00:1f.0", "00:1f.3"]),
        ]
    );
}

#[test]
fn a_port_with_access_control_isolates_and_one_without_does_not() {
    let functions = vec![
        function("00:01.0", Kind::DownstreamPort)
            .leads_to(1, 1)
            .isolating(),
        function("00:02.0", Kind::DownstreamPort).leads_to(2, 2),
        express("01:00.0"),
        express("02:00.0"),
    ];
    assert_eq!(
        groups(functions),
        [
            alone("00:01.0"),
            tied(GroupTie::PortWithoutAcs, &["00:02.0", "02:00.0"]),
            alone("01:00.0"),
        ]
    );
}

/// A switch below a root port: which of the three kinds of port have access control.
fn switch(root: bool, upstream_alone: bool, downstream: [bool; 2]) -> Vec<Function> {
    let port = |address, first, last, isolates: bool| {
        let port = function(address, Kind::DownstreamPort).leads_to(first, last);
        if isolates { port.isolating() } else { port }
    };
    let mut functions = vec![
        port("00:01.0", 1, 4, root),
        express("01:00.0").leads_to(2, 4),
        port("02:00.0", 3, 3, downstream[0]),
        port("02:01.0", 4, 4, downstream[1]),
        express("03:00.0"),
        express("04:00.0"),
    ];
    if !upstream_alone {
        // A management function beside the upstream port.
        functions.push(express("01:00.1"));
    }
    functions
}

#[test]
fn a_switch_isolates_only_with_every_port_up_to_the_root() {
    use GroupTie::{MultiFunction, PortWithoutAcs};
    let all = groups(switch(true, true, [true, true]));
    assert_eq!(all.len(), 6, "{all:?}");
    // One downstream port lets requests turn round to the other: both devices go together.
    assert_eq!(
        groups(switch(true, true, [false, true])),
        [
            alone("00:01.0"),
            alone("01:00.0"),
            tied(
                PortWithoutAcs,
                &["02:00.0", "02:01.0", "03:00.0", "04:00.0"]
            ),
        ]
    );
    // Nothing above a root port without access control can part what is below.
    let whole = groups(switch(false, true, [true, true]));
    assert_eq!(whole.len(), 1, "{whole:?}");
    // An upstream port that is one of several functions needs access control itself.
    let functions = groups(switch(true, false, [true, true]));
    assert_eq!(
        functions,
        [
            alone("00:01.0"),
            [
                tied(PortWithoutAcs, &["01:00.0"]),
                tied(MultiFunction, &["01:00.1"]),
                tied(
                    PortWithoutAcs,
                    &["02:00.0", "02:01.0", "03:00.0", "04:00.0"]
                ),
            ]
            .concat(),
        ]
    );
}

#[test]
fn behind_a_conventional_bridge_all_are_together_and_use_its_id() {
    let functions = vec![
        // Express to conventional, below an isolating root port; a second bridge behind it.
        function("00:01.0", Kind::DownstreamPort)
            .leads_to(1, 3)
            .isolating(),
        function("01:00.0", Kind::ToConventional).leads_to(2, 3),
        function("02:01.0", Kind::Conventional),
        function("02:02.0", Kind::Conventional).leads_to(3, 3),
        function("03:05.0", Kind::Conventional),
        // A conventional bridge on the root bus.
        function("00:1e.0", Kind::Conventional).leads_to(4, 4),
        function("04:01.0", Kind::Conventional),
    ];
    let sorted = Sorted::new(functions.clone());
    assert_eq!(
        groups(functions),
        [
            alone("00:01.0"),
            tied(GroupTie::ConventionalBus, &["00:1e.0", "04:01.0"]),
            tied(
                GroupTie::ConventionalBus,
                &["01:00.0", "02:01.0", "02:02.0", "03:05.0"]
            ),
        ]
    );
    let of = |address: &str| -> Vec<Sbdf> {
        let place = sorted.nodes().position(|node| node.at == at(address));
        aliases(&sorted, place.unwrap() as u32).collect()
    };
    assert_eq!(of("00:01.0"), []);
    assert_eq!(of("01:00.0"), []);
    assert_eq!(of("02:01.0"), [at("02:00.0")]);
    assert_eq!(of("03:05.0"), [at("02:02.0"), at("02:00.0")]);
    assert_eq!(of("04:01.0"), [at("00:1e.0")]);
}

#[test]
fn a_bridge_on_a_link_that_hides_its_kind_has_both_ids() {
    let functions = Sorted::new(vec![
        function("00:01.0", Kind::DownstreamPort)
            .leads_to(1, 2)
            .isolating(),
        function("01:00.0", Kind::Conventional).leads_to(2, 2),
        function("02:03.0", Kind::Conventional),
    ]);
    let ids: Vec<_> = aliases(&functions, 2).collect();
    assert_eq!(ids, [at("02:00.0"), at("01:00.0")]);
}

#[test]
fn phantom_functions_tie_those_whose_numbers_they_use() {
    let two = vec![
        express("00:01.0").isolating().phantoms(1),
        express("00:01.1").isolating(),
        express("00:01.4").isolating(),
        express("00:02.4").isolating(),
    ];
    assert_eq!(
        groups(two),
        [
            tied(GroupTie::Alias, &["00:01.0", "00:01.4"]),
            alone("00:01.1"),
            alone("00:02.4"),
        ]
    );
    let all = vec![
        express("00:01.0").isolating().phantoms(3),
        express("00:01.1").isolating(),
        express("00:01.6").isolating(),
    ];
    assert_eq!(groups(all).len(), 1);
}

#[test]
fn virtual_functions_are_apart_and_follow_their_port() {
    let functions = |isolates: bool| {
        let port = function("00:01.0", Kind::DownstreamPort).leads_to(1, 2);
        vec![
            if isolates { port.isolating() } else { port },
            express("01:00.0"),
            express("01:00.1").virtual_function(),
            express("01:00.2").virtual_function(),
            // Beyond the first bus: no bridge has this one as its own.
            express("02:00.0").virtual_function(),
        ]
    };
    let apart = groups(functions(true));
    assert_eq!(apart.len(), 5, "{apart:?}");
    let together = groups(functions(false));
    assert_eq!(together.len(), 1, "{together:?}");
}

#[test]
fn with_ari_functions_of_all_numbers_are_one_device() {
    let functions = vec![
        function("00:01.0", Kind::DownstreamPort)
            .leads_to(1, 1)
            .isolating(),
        express("01:00.0"),
        // Function 9.
        express("01:01.1"),
        // Elsewhere a device number is a device.
        express("00:02.0"),
        express("00:03.1"),
    ];
    assert_eq!(
        groups(functions),
        [
            alone("00:01.0"),
            alone("00:02.0"),
            alone("00:03.1"),
            tied(GroupTie::MultiFunction, &["01:00.0", "01:01.1"]),
        ]
    );
}

#[test]
fn bridges_that_claim_the_same_buses_isolate_nothing() {
    // The second says that it leads to the first one's bus too, and that it has access control.
    let functions = vec![
        function("00:01.0", Kind::DownstreamPort)
            .leads_to(1, 1)
            .isolating(),
        function("00:02.0", Kind::DownstreamPort)
            .leads_to(1, 5)
            .isolating(),
        express("01:00.0"),
        express("02:00.0"),
    ];
    assert_eq!(
        groups(functions),
        [
            alone("00:01.0"),
            tied(GroupTie::PortWithoutAcs, &["00:02.0", "01:00.0", "02:00.0"]),
        ]
    );
    // Leading upwards or to itself is leading nowhere.
    let functions = vec![
        function("01:00.0", Kind::Conventional).leads_to(0, 1),
        function("00:00.0", Kind::Conventional).leads_to(0, 0),
        express("00:01.0"),
    ];
    assert_eq!(groups(functions).len(), 3);
}

#[test]
fn segments_have_nothing_to_do_with_each_other() {
    let functions = vec![
        function("0000:00:01.0", Kind::Conventional).leads_to(1, 1),
        express("0001:01:00.0"),
        express("0001:01:00.1"),
        express("0002:01:00.1"),
    ];
    assert_eq!(groups(functions).len(), 3);
}

fn any_function() -> impl Strategy<Value = Function> {
    let kind = prop_oneof![
        1 => Just(Kind::Conventional),
        3 => Just(Kind::Express),
        3 => Just(Kind::DownstreamPort),
        1 => Just(Kind::ToConventional),
        1 => Just(Kind::Never),
    ];
    let behind = prop::option::of((0u8..8, 0u8..4));
    (
        (0u16..2, 0u8..8, 0u8..3, 0u8..8),
        kind,
        behind,
        any::<(bool, bool)>(),
        0u8..5,
    )
        .prop_map(
            |((segment, bus, device, number), kind, behind, flags, phantoms)| {
                let text = format!("{segment:04x}:{bus:02x}:{device:02x}.{number}");
                let mut function =
                    function(&text, kind).phantoms(if phantoms == 4 { 1 } else { 0 });
                if let Some((first, more)) = behind {
                    function = function.leads_to(first, first + more);
                }
                (function.0.isolates, function.0.is_virtual) = flags;
                function
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 8))]
    /// Whatever the registers say: groups are a partition, in any order of asking, and switching access
    /// control on never makes one larger.
    #[test]
    fn groups_are_a_partition_and_access_control_only_parts(functions in prop::collection::vec(any_function(), 0..60)) {
        let by_address: BTreeMap<_, _> = functions.into_iter().map(|function| (function.0.at, function)).collect();
        let mut functions = Sorted::new(by_address.into_values().collect());
        consistent(&functions);
        let before = functions.clone();
        form(&mut functions);
        prop_assert!(before.nodes().eq(functions.nodes()));
        for function in &mut functions.0 {
            function.0.isolates = true;
        }
        form(&mut functions);
        consistent(&functions);
        for start in 0..functions.count() {
            for other in ring(&functions, start) {
                let [one, other] = [start, other].map(|place| before.node(place).unwrap().group());
                prop_assert_eq!(one, other);
            }
            prop_assert!(aliases(&functions, start).count() <= 16);
        }
    }
}
