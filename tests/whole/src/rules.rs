//! The rules that hold after every step: what devices reach, which capabilities
//! exist, who is signalled, beside what clients have been told.
//!
//! Devices try everything here, obeying nothing: each requester id, each address
//! that was ever mapped and each physical address, each message that was ever
//! set up. Trying also fills the unit's caches, so that a forgotten invalidation
//! shows at the next step.

use std::collections::BTreeSet;

use hw::Sbdf;
use sim::vtd::Dma;

use crate::hardware::{Hardware, MESSAGES, TABLES, device};
use crate::kernel::{Object, Place, Server};
use crate::setting::VECTOR_BASE;
use crate::told::{Buffer, Tense};
use crate::world::World;

impl World<'_> {
    /// Holds every rule.
    ///
    /// # Panics
    /// One is broken; the message says which.
    pub fn check(&self, tried: &mut BTreeSet<u64>) {
        self.check_capabilities();
        self.check_memory(tried);
        self.check_messages();
    }

    fn buffers(&self) -> impl Iterator<Item = (u16, &Buffer)> {
        let clients = (0..).zip(&self.told.clients);
        clients.flat_map(|(number, client)| {
            client.buffers.values().map(move |buffer| (number, buffer))
        })
    }

    /// Rule 4: every capability outside the servers stands for something that its client, or whoever handed it
    /// on, holds.
    fn check_capabilities(&self) {
        for (place, object) in self.kernel.shape() {
            let owner = match place {
                Place::Window(client, _) | Place::Own(client, _) => client,
                _ => continue,
            };
            let fine = match object {
                Object::Endpoint {
                    server: Server::Pci,
                    badge,
                } => self.told.clients.iter().any(|client| {
                    client
                        .devices
                        .values()
                        .any(|held| held.badge.to_word() == badge)
                }),
                Object::Endpoint {
                    server: Server::Iommu,
                    badge,
                } => self
                    .buffers()
                    .any(|(_, buffer)| buffer.badge.to_word() == badge),
                Object::Frame { base, .. } => {
                    self.buffers()
                        .any(|(_, buffer)| buffer.pages.contains(&base))
                        || self.decodes_for(owner, base)
                }
                Object::Handler { vector } => {
                    let device = self.issued.borrow().get(&vector).copied();
                    device.is_some_and(|device| self.held_by(owner, device))
                }
                Object::Untyped { .. } => false,
            };
            assert!(
                fine,
                "{place:?} has {object:?}, which nobody was given, or has no more"
            );
        }
    }

    fn held_by(&self, client: u16, at: Sbdf) -> bool {
        let devices = &self.told.clients[usize::from(client)].devices;
        devices.keys().any(|number| device(*number) == at)
    }

    /// Is this page a device's of the client?
    fn decodes_for(&self, client: u16, page: u64) -> bool {
        let devices = &self.told.clients[usize::from(client)].devices;
        devices
            .values()
            .any(|held| held.registers.0 <= page && page < held.registers.1)
    }

    /// Rules 1 and 2: a device reaches what is mapped for the client that holds it, as it is mapped, and nothing
    /// else; and that it does reach.
    fn check_memory(&self, tried: &mut BTreeSet<u64>) {
        for (_, buffer) in self.buffers() {
            tried.extend(&buffer.pages);
            if let Some(mapping) = buffer.mapping {
                tried.insert(mapping.iova);
                // The page after it.
                tried.insert(mapping.iova + buffer.pages.len() as u64 * 0x1000);
            }
        }
        tried.extend([0, TABLES]);
        for number in 0..self.setting.devices {
            let at = device(number);
            for requester in Hardware::requesters(at) {
                for &address in tried.iter() {
                    for direction in [Dma::Read, Dma::Write] {
                        let reached = self.hardware.dma(requester, address, direction);
                        if let Ok(physical) = reached {
                            assert!(
                                self.may_reach(requester, address, physical, direction),
                                "{requester:#06x} reaches {physical:#x} at {address:#x}: {direction:?}"
                            );
                        }
                    }
                }
            }
            self.check_given(number);
        }
    }

    /// May requests with this id reach this?
    fn may_reach(&self, requester: u16, address: u64, physical: u64, direction: Dma) -> bool {
        (0..self.setting.devices)
            .filter(|number| Hardware::requesters(device(*number)).contains(&requester))
            .filter_map(|number| self.told.holder(number))
            .any(|(client, held)| {
                let buffers = self.told.clients[usize::from(client)].buffers.values();
                buffers.into_iter().any(|buffer| {
                    let Some(mapping) = buffer.mapping else {
                        return false;
                    };
                    let allowed = match direction {
                        Dma::Read => mapping.access.reads(),
                        Dma::Write => mapping.access.writes(),
                    };
                    let page = address
                        .checked_sub(mapping.iova)
                        .map(|offset| offset / 0x1000);
                    let page = page.and_then(|page| buffer.pages.get(page as usize));
                    mapping.context == held.context && allowed && page == Some(&physical)
                })
            })
    }

    /// What was given works.
    fn check_given(&self, number: usize) {
        let at = device(number);
        let Some((client, held)) = self.told.holder(number) else {
            return;
        };
        if held.tense != Tense::Given || !self.hardware.answers(number) {
            return;
        }
        for buffer in self.told.clients[usize::from(client)].buffers.values() {
            let Some(mapping) = buffer
                .mapping
                .filter(|mapping| mapping.context == held.context)
            else {
                continue;
            };
            for (page, physical) in (0..).zip(&buffer.pages) {
                let address = mapping.iova + page * 0x1000;
                for (allowed, direction) in [
                    (mapping.access.reads(), Dma::Read),
                    (mapping.access.writes(), Dma::Write),
                ] {
                    let reached = self.hardware.dma(at.requester_id(), address, direction);
                    if allowed {
                        assert_eq!(
                            reached,
                            Ok(*physical),
                            "{at} of client {client} at {address:#x}"
                        );
                    }
                }
            }
        }
    }

    /// Rule 3: a message raises a vector of the device that sends it, held by the client that holds the device, or
    /// nothing.
    fn check_messages(&self) {
        let messages = self
            .told
            .messages
            .iter()
            .map(|(_, address, data)| (*address, *data));
        let forged = (0..8).map(|vector| (MESSAGES, u32::from(VECTOR_BASE) + vector));
        let all: BTreeSet<(u64, u32)> = messages.chain(forged).collect();
        for number in 0..self.setting.devices {
            let at = device(number);
            for requester in Hardware::requesters(at) {
                for &(address, data) in &all {
                    let Ok(interrupt) = self.hardware.unit.message(requester, address, data) else {
                        continue;
                    };
                    let vector = u16::from(interrupt.vector.wrapping_sub(VECTOR_BASE));
                    let of = self.issued.borrow().get(&vector).copied();
                    let shares = of.is_some_and(|of| Hardware::requesters(of).contains(&requester));
                    assert!(
                        shares,
                        "{at} (as {requester:#06x}) raises vector {vector} of {of:?} by {address:#x}, {data:#x}"
                    );
                }
            }
            let held = self.told.holder(number).map(|(_, held)| held.tense);
            if held == Some(Tense::Given) && self.hardware.answers(number) {
                self.check_own_messages(at);
            }
        }
    }

    /// The messages that a held device is set up to send arrive.
    fn check_own_messages(&self, at: Sbdf) {
        for (address, data) in self.hardware.messages(at) {
            let requester = Hardware::requesters(at)
                .get(1)
                .copied()
                .unwrap_or(at.requester_id());
            let interrupt = self.hardware.unit.message(requester, address, data);
            let vector =
                interrupt.map(|interrupt| u16::from(interrupt.vector.wrapping_sub(VECTOR_BASE)));
            let of = vector.map(|vector| self.issued.borrow().get(&vector).copied());
            assert_eq!(
                of,
                Ok(Some(at)),
                "a message of {at}: {address:#x}, {data:#x}"
            );
        }
    }
}
