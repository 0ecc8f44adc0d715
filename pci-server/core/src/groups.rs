//! Isolation groups: which functions can reach each other, or send requests in each other's
//! name, before an IOMMU sees them. Such functions are given to one client or not at all.
//!
//! [`form`] computes them; every function then knows its group's first member, the next one ([`ring`])
//! and its parent. The rules are those that Linux groups devices by (access control: PCIe 5.0, 6.12):
//!
//! - Below a bridge to a conventional bus all share the bridge's requester id.
//! - Below a port without access control, or with such a port above it, requests may turn round
//!   before they reach the root complex. In a switch they turn to all other ports: there one such port
//!   opens them all (stricter than Linux, which looks at each port's own device only).
//! - Functions of a device reach each other inside it, unless they say that they do not.
//! - A function that uses phantom functions' numbers has their requester ids too.
//! - Virtual functions are newer than access control: those that reach their siblings must have it.
//!
//! Pure: what it needs of a function is in [`Node`]. Work grows with the functions, not with the
//! size of a group.

mod members;

pub use members::{aliases, ring};

use hw::capability::{AccessControl, AcsServices, PortType};
use hw::{BusRange, Sbdf};
use ipc_proto::GroupTie;

/// No function.
const NONE: u32 = u32::MAX;

const fn place(link: u32) -> Option<u32> {
    match link {
        NONE => None,
        place => Some(place),
    }
}

/// Functions, each in a place of its own with a number below 2^32 - 1.
pub trait Functions {
    /// The function in a place.
    fn node(&self, place: u32) -> Option<&Node>;
    /// The function in a place, to change it.
    fn node_mut(&mut self, place: u32) -> Option<&mut Node>;
    /// The place of the first function in ascending order of addresses.
    fn first(&self) -> Option<u32>;
    /// The place of the function after that in `place`.
    fn next(&self, place: u32) -> Option<u32>;
    /// How many functions there are.
    fn count(&self) -> u32;
}

/// What a function is to those around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// No PCI Express function.
    #[default]
    Conventional,
    /// An Express function whose requests go up and nowhere else, if it is alone in its device.
    Express,
    /// A port with a link below it.
    DownstreamPort,
    /// A bridge from Express to conventional PCI.
    ToConventional,
    /// One that never isolates: a reverse bridge, an event collector.
    Never,
}

impl Kind {
    /// From the Express capability, if there is one.
    #[must_use]
    pub const fn new(port: Option<PortType>) -> Self {
        match port {
            None => Self::Conventional,
            Some(PortType::RootPort | PortType::DownstreamPort) => Self::DownstreamPort,
            Some(PortType::ToConventionalBridge) => Self::ToConventional,
            Some(PortType::FromConventionalBridge | PortType::EventCollector) => Self::Never,
            Some(
                PortType::Endpoint
                | PortType::LegacyEndpoint
                | PortType::IntegratedEndpoint
                | PortType::UpstreamPort,
            ) => Self::Express,
        }
    }
}

/// Does access control keep requests from turning round? What a function has no switch for it
/// does not do (PCIe 5.0, 6.12.1).
#[must_use]
pub const fn isolates(access: &AccessControl) -> bool {
    let needed = AcsServices::ISOLATION.intersection(access.capabilities);
    access.control.contains(needed)
}

/// What ACS Control must be so that [`isolates`].
#[must_use]
pub const fn isolating(access: &AccessControl) -> AcsServices {
    // Neither of these lets anything through that the redirection would send up.
    let holes = AcsServices::EGRESS_CONTROL.union(AcsServices::DIRECT_TRANSLATED);
    access
        .control
        .difference(holes)
        .union(AcsServices::ISOLATION.intersection(access.capabilities))
}

/// A function as the groups see it: what is known of it, and what [`form`] made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its address.
    pub at: Sbdf,
    /// What it is.
    pub kind: Kind,
    /// Buses behind it, if it is a bridge.
    pub behind: Option<BusRange>,
    /// Its access control [`isolates`].
    pub isolates: bool,
    /// It is a virtual function.
    pub is_virtual: bool,
    /// Uppermost bits of the function number that it fills with phantom functions: 0 (none) to 3.
    pub phantom_bits: u8,
    /// What ties it to the others of its group.
    tie: GroupTie,
    /// Requests that pass it go to the root complex.
    path_isolated: bool,
    /// Its device has other functions.
    has_siblings: bool,
    /// Another bridge says that it leads to the same buses, or a port of the same switch without access
    /// control lets its device reach those below this one.
    open: bool,
    parent: u32,
    group: u32,
    next: u32,
    /// Of the first member, while the ring is being made: the last one so far.
    last: u32,
}

impl Node {
    /// A function that is alone, on a root bus, and nothing special.
    #[must_use]
    pub const fn new(at: Sbdf) -> Self {
        Self {
            at,
            kind: Kind::Conventional,
            behind: None,
            isolates: false,
            is_virtual: false,
            phantom_bits: 0,
            tie: GroupTie::Alone,
            path_isolated: false,
            has_siblings: false,
            open: false,
            parent: NONE,
            group: NONE,
            next: NONE,
            last: NONE,
        }
    }

    /// What ties it to the others of its group.
    #[must_use]
    pub const fn tie(&self) -> GroupTie {
        self.tie
    }

    /// Place of the bridge above it; `None` on a root bus.
    #[must_use]
    pub const fn parent(&self) -> Option<u32> {
        place(self.parent)
    }

    /// The group's number: the place of its first member.
    #[must_use]
    pub const fn group(&self) -> u32 {
        self.group
    }

    /// Is it the only member of its group?
    #[inline]
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self.tie, GroupTie::Alone)
    }

    /// Can others take requests that pass it, or turn them round?
    const fn controls_access(&self) -> bool {
        match self.kind {
            _ if self.open => false,
            Kind::DownstreamPort => self.isolates,
            Kind::Express => !self.has_siblings || self.isolates,
            Kind::Conventional | Kind::ToConventional | Kind::Never => false,
        }
    }

    const fn is_conventional_bridge(&self) -> bool {
        !matches!(self.kind, Kind::DownstreamPort | Kind::Express)
    }
}

/// What bridges say about the buses behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claims {
    /// Each bus is claimed by bridges one behind the other.
    Apart,
    /// Two that are not claim the same bus.
    Conflicting,
}

/// Forms the groups of all functions.
pub fn form<F: Functions + ?Sized>(functions: &mut F) -> Claims {
    let mut nodes = Nodes(functions);
    let claims = nodes.find_parents();
    nodes.find_siblings();
    nodes.find_open_switches();
    nodes.tie_to_ports();
    nodes.tie_devices();
    nodes.close();
    claims
}

/// The functions while their groups are formed. `group` of each leads to another one of its group,
/// in the end to the first.
struct Nodes<'f, F: ?Sized>(&'f mut F);

impl<F: Functions + ?Sized> Nodes<'_, F> {
    fn get(&self, place: u32) -> Option<&Node> {
        self.0.node(place)
    }

    fn change(&mut self, place: u32, with: impl FnOnce(&mut Node)) {
        if let Some(node) = self.0.node_mut(place) {
            with(node);
        }
    }

    /// The function after that in `place`, in ascending order of addresses.
    fn next(&self, place: u32) -> Option<u32> {
        self.0.next(place)
    }

    /// Calls `each` with every function in ascending order of addresses.
    fn for_all(&mut self, mut each: impl FnMut(&mut Self, u32, Node)) {
        let mut place = self.0.first();
        while let Some((here, node)) = place.and_then(|at| self.get(at).map(|node| (at, *node))) {
            each(self, here, node);
            place = self.0.next(here);
        }
    }

    /// The innermost bridge whose buses a function is on. Virtual functions may be on buses
    /// that no bridge has as its first.
    fn find_parents(&mut self) -> Claims {
        let mut claims = Claims::Apart;
        let mut above = [NONE; 256];
        let mut segment = None;
        self.for_all(|nodes, here, node| {
            if segment != Some(node.at.segment()) {
                segment = Some(node.at.segment());
                above = [NONE; 256];
            }
            let own = above
                .get(usize::from(node.at.bus()))
                .copied()
                .unwrap_or(NONE);
            nodes.change(here, |node| {
                *node = Node {
                    tie: GroupTie::Alone,
                    path_isolated: false,
                    has_siblings: false,
                    open: false,
                    parent: own,
                    group: here,
                    next: here,
                    last: here,
                    ..*node
                };
            });
            // Upwards only, so that no chain of parents is a ring. Bridges further down come later
            // and have higher buses.
            let buses = node.behind.filter(|buses| buses.first() > node.at.bus());
            for bus in buses.into_iter().flat_map(BusRange::iter) {
                let Some(above) = above.get_mut(usize::from(bus)) else {
                    continue;
                };
                let before = core::mem::replace(above, here);
                if before != own {
                    // A bus has one bridge above it: which of the two lies is not known.
                    claims = Claims::Conflicting;
                    nodes.change(here, |node| node.open = true);
                    nodes.change(before, |node| node.open = true);
                }
            }
        });
        claims
    }

    /// Are two functions of the same device? A link has one device: with ARI its functions take all
    /// device numbers (PCIe 5.0, 6.13).
    fn same_device(&self, first: &Node, other: &Node) -> bool {
        let link = || {
            first
                .parent()
                .and_then(|parent| self.get(parent))
                .is_some_and(|parent| parent.kind == Kind::DownstreamPort)
        };
        (other.at.segment(), other.at.bus(), other.parent)
            == (first.at.segment(), first.at.bus(), first.parent)
            && (other.at.device() == first.at.device() || link())
    }

    /// Calls `each` with every function in a run of functions from `start` on that are `alike` it; gives
    /// the place after the run.
    fn for_run(
        &mut self,
        start: u32,
        alike: impl Fn(&Self, &Node, &Node) -> bool,
        mut each: impl FnMut(&mut Self, u32, Node),
    ) -> Option<u32> {
        let first = *self.get(start)?;
        let mut place = Some(start);
        while let Some((here, node)) = place.and_then(|at| self.get(at).map(|node| (at, *node))) {
            if !alike(self, &first, &node) {
                return Some(here);
            }
            each(self, here, node);
            place = self.next(here);
        }
        None
    }

    fn for_device(&mut self, start: u32, each: impl FnMut(&mut Self, u32, Node)) -> Option<u32> {
        self.for_run(start, Self::same_device, each)
    }

    fn find_siblings(&mut self) {
        let mut device = self.0.first();
        while let Some(start) = device {
            let mut count = 0u32;
            device = self.for_device(start, |_, _, node| count += u32::from(!node.is_virtual));
            if count > 1 {
                self.for_device(start, |nodes, here, _| {
                    nodes.change(here, |node| node.has_siblings = !node.is_virtual);
                });
            }
        }
    }

    /// A downstream port of a switch without access control passes requests to the other ports.
    fn find_open_switches(&mut self) {
        let same_bus = |_: &Self, first: &Node, other: &Node| {
            (first.at.segment(), first.at.bus()) == (other.at.segment(), other.at.bus())
        };
        let is_port = |node: &Node| node.parent().is_some() && node.kind == Kind::DownstreamPort;
        let mut bus = self.0.first();
        while let Some(start) = bus {
            let mut leak = None;
            bus = self.for_run(start, same_bus, |_, here, node| {
                if leak.is_none() && is_port(&node) && !node.controls_access() {
                    leak = Some(here);
                }
            });
            let Some(leak) = leak else { continue };
            self.for_run(start, same_bus, |nodes, here, node| {
                if !is_port(&node) {
                    return;
                }
                nodes.change(here, |node| node.open = true);
                if here != leak {
                    nodes.unite(here, leak, GroupTie::PortWithoutAcs);
                }
            });
        }
    }

    /// Parents come before their children.
    fn tie_to_ports(&mut self) {
        self.for_all(|nodes, here, node| {
            let parent = node.parent();
            let above = parent.and_then(|parent| nodes.get(parent)).copied();
            let isolated = above.is_none_or(|above| above.path_isolated);
            let path = isolated && node.controls_access();
            nodes.change(here, |node| node.path_isolated = path);
            if let (Some(parent), Some(above), false) = (parent, above, isolated) {
                let tie = if above.is_conventional_bridge() {
                    GroupTie::ConventionalBus
                } else {
                    GroupTie::PortWithoutAcs
                };
                nodes.unite(here, parent, tie);
            }
        });
    }

    fn tie_devices(&mut self) {
        let mut device = self.0.first();
        while let Some(start) = device {
            // Those that reach others inside the device reach each other.
            let mut open = None;
            device = self.for_device(start, |nodes, here, node| {
                if node.has_siblings && !node.controls_access() {
                    match open {
                        Some(first) => nodes.unite(here, first, GroupTie::MultiFunction),
                        None => open = Some(here),
                    }
                }
                if node.phantom_bits > 0 {
                    nodes.tie_phantoms(start, here, &node);
                }
            });
        }
    }

    /// The functions whose numbers another one fills with phantom functions (PCIe 5.0, 7.5.3.3): those
    /// that equal its own below the bits that it may use.
    fn tie_phantoms(&mut self, start: u32, here: u32, node: &Node) {
        let mask = 0x7u8 >> node.phantom_bits.min(3);
        self.for_device(start, |nodes, other, sibling| {
            let same_device = sibling.at.device() == node.at.device();
            let same_bits = (sibling.at.function() ^ node.at.function()) & mask == 0;
            if other != here && same_device && same_bits {
                nodes.unite(other, here, GroupTie::Alias);
            }
        });
    }

    fn first_of(&mut self, mut place: u32) -> u32 {
        // Each step leads to a lower address.
        while let Some(group) = self
            .get(place)
            .map(|node| node.group)
            .filter(|group| *group != place)
        {
            let above = self.get(group).map_or(group, |node| node.group);
            self.change(place, |node| node.group = above);
            place = group;
        }
        place
    }

    fn unite(&mut self, one: u32, other: u32, tie: GroupTie) {
        let (first, second) = (self.first_of(one), self.first_of(other));
        let address = |place: u32| self.get(place).map(|node| node.at);
        let (first, second) = if address(first) <= address(second) {
            (first, second)
        } else {
            (second, first)
        };
        self.change(second, |node| node.group = first);
        for place in [one, other] {
            self.change(place, |node| {
                if node.tie == GroupTie::Alone {
                    node.tie = tie;
                }
            });
        }
    }

    /// Numbers the groups and strings their members in rings, in ascending order.
    fn close(&mut self) {
        self.for_all(|nodes, here, _| {
            let first = nodes.first_of(here);
            nodes.change(here, |node| {
                node.group = first;
                node.next = first;
            });
            let Some(last) = nodes.get(first).map(|node| node.last) else {
                return;
            };
            if here != first {
                nodes.change(last, |node| node.next = here);
                nodes.change(first, |node| node.last = here);
            }
        });
    }
}
