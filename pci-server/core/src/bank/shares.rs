//! Who may split how much: splits and the slots of their parts are the whole shard's, and a client chooses which pages it
//! asks for, so that a few hundred of them, far enough apart, would take all.
//!
//! Half of the room is whoever's comes first; of the other half each client can have an equal part, whatever others
//! have. Splits that lie in a BAR count to the client that had frames of it placed; those above BARs, of which there are
//! few, to nobody. So do what the shard maps for itself, which is bounded by tables of messages, and after a restart
//! the BARs of which no more has been asked for since.

use ipc_proto::{ClientId, Refusal, Rule};

use super::{Bank, MAX_NODES, MAX_REGIONS, Node};
use crate::env::RegionId;

/// A BAR of which frames may exist, and who had some of them placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) region: RegionId,
    pub(super) owner: Option<ClientId>,
}

/// What there is to be had, or what is had of it.
#[derive(Clone, Copy, Debug)]
struct Room {
    nodes: usize,
    slots: u32,
}

impl Room {
    const NONE: Self = Self { nodes: 0, slots: 0 };

    fn taken(nodes: &[Node]) -> Self {
        let slots = nodes.iter().map(Node::count);
        Self {
            nodes: nodes.len(),
            slots: slots.fold(0, u32::saturating_add),
        }
    }

    fn has(&self, taken: Self, more: u32) -> bool {
        taken.nodes < self.nodes && taken.slots.saturating_add(more) <= self.slots
    }
}

/// How the room is divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// For whoever comes first; no slots: there is no division.
    common: Room,
    /// For each client.
    each: Room,
}

impl Shares {
    /// There is no division.
    pub(super) const NONE: Self = Self {
        common: Room::NONE,
        each: Room::NONE,
    };
}

impl Bank {
    /// Divides the room among so many clients. There are `slots` slots.
    pub fn divide(&mut self, clients: usize, slots: u32) {
        let (nodes, slots) = (MAX_NODES / 2, slots / 2);
        let clients = clients.max(1);
        self.shares = Shares {
            common: Room { nodes, slots },
            each: Room {
                nodes: nodes / clients,
                slots: slots / clients as u32,
            },
        };
    }

    /// Refuses one more split, with so many parts, of a client that has its share and more.
    ///
    /// # Errors
    /// `SlotsExhausted` with the slots that a client can have in any case.
    pub(super) fn may_split(&self, owner: Option<ClientId>, parts: u32) -> Result<(), Refusal> {
        let Shares { common, each } = self.shares;
        let Some(owner) = owner else {
            return Ok(());
        };
        if common.slots == 0 || common.has(Room::taken(&self.nodes), parts) {
            return Ok(());
        }
        let own = self
            .regions
            .iter()
            .filter(|known| known.owner == Some(owner));
        let taken = own.fold(Room::NONE, |sum, known| {
            let inside = Room::taken(self.inside(known.region));
            Room {
                nodes: sum.nodes.saturating_add(inside.nodes),
                slots: sum.slots.saturating_add(inside.slots),
            }
        });
        match each.has(taken, parts) {
            true => Ok(()),
            false => Err(Refusal::new(Rule::SlotsExhausted, each.slots.into())),
        }
    }

    /// Notes that frames of a region may exist, and who asked for them. `true`: there were none before.
    ///
    /// # Errors
    /// `SlotsExhausted` with the bound.
    pub(super) fn know(
        &mut self,
        region: RegionId,
        owner: Option<ClientId>,
    ) -> Result<bool, Refusal> {
        match self.find_region(region) {
            Ok(place) => {
                if let Some(known) = self.regions.get_mut(place) {
                    known.owner = owner.or(known.owner);
                }
                Ok(false)
            }
            Err(place) => self
                .regions
                .insert(place, Known { region, owner })
                .map(|()| true)
                .map_err(|_| Refusal::new(Rule::SlotsExhausted, MAX_REGIONS as u64)),
        }
    }

    /// Splits that begin in a region and are no larger.
    fn inside(&self, region: RegionId) -> &[Node] {
        let bits = region.bytes.checked_ilog2().unwrap_or(0) as u8;
        let first = self.nodes.partition_point(|node| {
            node.base < region.base || node.base == region.base && node.bits > bits
        });
        let end = self
            .nodes
            .partition_point(|node| node.base <= region.last());
        self.nodes.get(first..end).unwrap_or_default()
    }
}
