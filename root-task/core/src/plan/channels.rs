//! Channels between clients: a mailbox (a small CNode that both ends can address) and a signal each way.
//!
//! The mailbox lies in the block of the client that the description names first, so it goes with that client.
//! Both ends can put any capability of theirs there: what a client was given by minting from a server's object is
//! therefore a copy of a *master* in the root task's CNode ([`super::Pd::masters`]), whose revocation takes every
//! copy, wherever it went, when the client ends.

use alloc::vec::Vec;

use system::layout::event;
use system::model::{MAX_CHANNELS_A_CLIENT, Name, System};

use super::{Cap, Kind, Pd, Plan, PlanError};
use crate::objects::Part;

/// A client's end of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The client's PD number.
    pub pd: u16,
    /// Which of that client's ends it is.
    pub number: u8,
}

impl End {
    /// The flags by which this end is signalled.
    #[must_use]
    pub const fn flags(self) -> u64 {
        event::CHANNEL << self.number
    }
}

/// A channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channel {
    /// Its name.
    pub name: Name,
    /// Its ends; the first one's block holds the mailbox.
    pub ends: [End; 2],
}

impl Channel {
    /// Side and peer of the end that a PD has, if it has one.
    #[must_use]
    pub fn of(&self, pd: u16) -> Option<(u8, End)> {
        match self.ends {
            [end, peer] if end.pd == pd => Some((0, peer)),
            [peer, end] if end.pd == pd => Some((1, peer)),
            _ => None,
        }
    }
}

/// The channels of a description between these PDs.
pub(super) fn plan(system: &System, pds: &[Pd]) -> Result<Vec<Channel>, PlanError> {
    let mut ends_of = alloc::vec![0u8; pds.len() + 1];
    let mut channels = Vec::new();
    for channel in &system.channels {
        let mut end = |id: u16| {
            // The policy has found the client.
            let pd = pds.iter().find(|pd| pd.kind == Kind::Client(id));
            let pd = pd.map_or(0, |pd| pd.number);
            let place = ends_of.get_mut(usize::from(pd)).filter(|_| pd != 0);
            let number = place.map_or(u8::MAX, |ends| {
                *ends = ends.saturating_add(1);
                *ends - 1
            });
            if usize::from(number) >= MAX_CHANNELS_A_CLIENT {
                return Err(PlanError::TooMany {
                    what: "channels of a client",
                    limit: MAX_CHANNELS_A_CLIENT,
                });
            }
            Ok(End { pd, number })
        };
        let [first, second] = channel.ends;
        channels.push(Channel {
            name: channel.name.clone(),
            ends: [end(first)?, end(second)?],
        });
    }
    Ok(channels)
}

/// Mailboxes that lie in the block of client `id`.
pub(super) fn mailboxes(system: &System, id: Option<u16>) -> u32 {
    let first = |channel: &&system::model::Channel| Some(channel.ends[0]) == id;
    system.channels.iter().filter(first).count() as u32
}

impl Plan {
    /// Slot of the root CNode for the mailbox of a channel.
    #[must_use]
    pub fn mailbox(&self, channel: usize) -> Option<u32> {
        let owner = self.channels.get(channel)?.ends[0].pd;
        let run = self.pd(owner)?.layout.run(Part::Mailboxes)?;
        let before = self.channels.get(..channel)?.iter();
        let index = before.filter(|other| other.ends[0].pd == owner).count() as u32;
        (index < run.count).then_some(run.slot + index)
    }

    /// Does the plan join these two so that `pd` may signal `flags` to `to`?
    #[must_use]
    pub fn joins(&self, pd: u16, to: u16, flags: u64) -> bool {
        let mut peers = self.channels.iter().filter_map(|channel| channel.of(pd));
        peers.any(|(_, peer)| peer.pd == to && peer.flags() == flags)
    }
}

impl Pd {
    /// Does the root task keep a master of this capability, to revoke when the PD ends? Of what is minted for a
    /// client from an object that outlives it.
    #[must_use]
    pub const fn keeps_master(&self, cap: Cap) -> bool {
        !self.kind.is_server() && matches!(cap, Cap::Call { .. } | Cap::Signal { .. })
    }

    /// The grants of which the root task keeps masters, with the slots of these.
    pub fn masters(&self) -> impl Iterator<Item = (u32, Cap)> {
        let kept = self
            .grants
            .iter()
            .filter(|grant| self.keeps_master(grant.cap));
        (self.first_master..).zip(kept.map(|grant| grant.cap))
    }

    /// Slot of the master of the capability in slot `slot` of the PD, if there is one.
    #[must_use]
    pub fn master_of(&self, slot: u32) -> Option<u32> {
        let kept = self
            .grants
            .iter()
            .filter(|grant| self.keeps_master(grant.cap));
        (self.first_master..)
            .zip(kept)
            .find(|(_, grant)| grant.slot == slot)
            .map(|(master, _)| master)
    }
}
