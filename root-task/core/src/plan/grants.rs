//! Which capabilities each PD gets: the fixed slots of `system::layout`, then
//! what its kind needs, each in the next free slot. Nothing else comes into a CSpace.

use ipc_proto::{Badge, BadgeKind};
use system::info::{IoSpaceInfo, MAX_UNTYPED, UntypedPiece};
use system::layout::{event, pd, slot};
use system::model::{Client, DeviceMatch};

use super::build::{DeviceUse, uses_kernel};
use super::{Cap, Grant, Inputs, Kind, Pd, Plan, PlanError, Privileges};
use crate::carve::{Piece, pieces_of};
use crate::facts::Configuration;
use crate::memory::{Block, Slots};
use crate::region::Region;
use crate::shards::Shard;

/// I/O ports of the first serial line (16550).
pub const SERIAL_PORTS: (u16, u16) = (0x3f8, 0x3ff);

/// I/O ports of configuration space (PCI Local Bus 3.0, 3.2.2.3.2): address and data.
pub const CONFIG_PORTS: (u16, u16) = (0xcf8, 0xcff);

pub(super) fn fill(
    inputs: &Inputs<'_>,
    device: &DeviceUse,
    plan: &mut Plan,
) -> Result<(), PlanError> {
    let mut pds = core::mem::take(&mut plan.pds);
    let (first, end) = plan.slots_left;
    let mut slots = Slots::new(first, end);
    let roster: alloc::vec::Vec<(u16, Kind)> = pds.iter().map(|pd| (pd.number, pd.kind)).collect();
    let all = All {
        inputs,
        device,
        plan,
        roster: &roster,
    };
    for pd in &mut pds {
        let mut giver = Giver {
            pd,
            next: slot::FIRST_GIVEN as u32,
        };
        giver.fixed();
        match giver.pd.kind {
            Kind::Console => giver.console(),
            Kind::Timer => giver.timer(&all),
            Kind::Iommu(_) => giver.iommu(&all)?,
            Kind::Msi(shard) => giver.msi(&all, shard),
            Kind::Pci(shard) => giver.pci(&all, shard)?,
            Kind::Client(id) => giver.client(&all, id),
        }
        giver.pd.first_free = giver.next;
        if giver.next >= giver.pd.slots_end() {
            return Err(PlanError::CSpaceFull(giver.pd.name.clone()));
        }
        giver.pd.grants.sort_by_key(|grant| grant.slot);
        let masters = giver.pd.masters().count() as u32;
        giver.pd.first_master = slots.take(masters)?;
    }
    plan.pds = pds;
    plan.slots_left = slots.left();
    Ok(())
}

/// What all PDs' grants are made from.
struct All<'a> {
    inputs: &'a Inputs<'a>,
    device: &'a DeviceUse,
    plan: &'a Plan,
    roster: &'a [(u16, Kind)],
}

impl All<'_> {
    /// Is this PD a client whose interrupts are counted?
    fn meters(&self, of: u16) -> bool {
        let kind = self.roster.iter().find(|(number, _)| *number == of);
        let client = kind.and_then(|(_, kind)| match kind {
            Kind::Client(id) => self.inputs.system.clients.get(usize::from(*id)),
            _ => None,
        });
        client.is_some_and(|client| client.interrupt_rate != 0)
    }

    fn numbers(&self, is: impl Fn(Kind) -> bool) -> impl Iterator<Item = u16> {
        self.roster
            .iter()
            .filter(move |(_, kind)| is(*kind))
            .map(|(number, _)| *number)
    }

    fn clients(&self) -> impl Iterator<Item = u16> {
        self.numbers(|kind| matches!(kind, Kind::Client(_)))
    }
}

struct Giver<'a> {
    pd: &'a mut Pd,
    next: u32,
}

impl Giver<'_> {
    fn at(&mut self, slot: u64, cap: Cap) {
        // Fixed slots are small numbers.
        self.pd.grants.push(Grant {
            slot: slot as u32,
            cap,
        });
    }

    fn next(&mut self, cap: Cap) -> u32 {
        let slot = self.next;
        self.next += 1;
        self.pd.grants.push(Grant { slot, cap });
        slot
    }

    fn call(&mut self, slot: u64, of: u16, kind: BadgeKind, index: u16) {
        self.at(
            slot,
            Cap::Call {
                of,
                badge: Badge::plain(kind, index),
            },
        );
    }

    /// What every PD has.
    fn fixed(&mut self) {
        let number = self.pd.number;
        self.at(slot::CNODE, Cap::OwnCNode);
        self.at(slot::VSPACE, Cap::OwnVSpace);
        self.at(slot::EVENTS, Cap::OwnEvents);
        self.call(slot::SUPERVISOR, pd::ROOT, BadgeKind::Pd, number);
        self.call(slot::FAULT, pd::ROOT, BadgeKind::Fault, number);
        self.at(
            slot::LOG,
            Cap::Signal {
                of: pd::CONSOLE,
                flags: event::INTERRUPT,
            },
        );
        // The services call nobody: a cycle between them would be one through every PD.
        if !matches!(self.pd.kind, Kind::Console | Kind::Timer) {
            self.call(slot::CONSOLE, pd::CONSOLE, BadgeKind::Pd, number);
            self.call(slot::TIMER, pd::TIMER, BadgeKind::Pd, number);
        }
        if self.pd.kind.is_server() {
            self.at(slot::ENDPOINT, Cap::OwnEndpoint);
        }
    }

    fn console(&mut self) {
        let (first, last) = SERIAL_PORTS;
        self.at(slot::SERIAL, Cap::Ports { first, last });
    }

    fn timer(&mut self, all: &All<'_>) {
        if let Some(irq) = all
            .plan
            .irqs
            .iter()
            .position(|irq| irq.pd == self.pd.number)
        {
            self.at(slot::IRQ, Cap::Irq(irq));
        }
        let mut signals = alloc::vec![0; all.roster.len() + 1];
        for number in all.numbers(|kind| !matches!(kind, Kind::Console | Kind::Timer)) {
            let signal = self.next(Cap::Signal {
                of: number,
                flags: event::TIMER,
            });
            if let Some(place) = signals.get_mut(usize::from(number)) {
                *place = signal;
            }
        }
        // Servers die at times of a test's choice only where tests may have them die.
        let deaths = all.inputs.system.testing && all.inputs.system.restarts > 0;
        if let Some(place) = signals.get_mut(usize::from(pd::ROOT)).filter(|_| deaths) {
            *place = self.next(Cap::Alarm);
        }
        self.pd.given.signals = signals;
    }

    /// Windows of all clients, and signals to them.
    fn clients(&mut self, all: &All<'_>, flags: Option<u64>) {
        for of in all.clients() {
            let window = self.next(Cap::Window { of });
            let events = flags.map_or(0, |flags| self.next(Cap::Signal { of, flags }));
            let passes_on = matches!(self.pd.kind, Kind::Msi(_)) && all.meters(of);
            let notification = match passes_on {
                true => self.next(Cap::Notification { of }),
                false => 0,
            };
            let given = (window, events, notification);
            self.pd.given.clients.push(given);
        }
    }

    fn iommu(&mut self, all: &All<'_>) -> Result<(), PlanError> {
        self.clients(all, Some(event::FAULT));
        for (index, irq) in all.plan.irqs.iter().enumerate() {
            if irq.pd == self.pd.number {
                let slot = self.next(Cap::Irq(index));
                self.pd.given.irqs.push(slot);
            }
        }
        for of in all.numbers(|kind| matches!(kind, Kind::Pci(_))) {
            let signal = self.next(Cap::Signal {
                of,
                flags: event::TROUBLE,
            });
            self.pd.given.shard_signals.push(signal);
        }
        if uses_kernel(all.inputs) {
            self.io_space(all)?;
        }
        let pool = all
            .plan
            .pool
            .iter()
            .map(|block| (block.slot, block.base, block.bits));
        self.untypeds("pieces of the DMA pool", pool)
    }

    /// The kernel's I/O spaces, and all memory for IOMMU tables.
    fn io_space(&mut self, all: &All<'_>) -> Result<(), PlanError> {
        let Block {
            slot: from,
            base,
            bits,
            ..
        } = all.plan.iommu_tables.block;
        let region = Region::sized(base, 1 << bits).ok_or(PlanError::TooMany {
            what: "bytes of IOMMU tables",
            limit: 0,
        })?;
        let master = self.next(Cap::IoSpace);
        let slot = self.next(Cap::Untyped { slot: from, region });
        let tables = UntypedPiece { slot, base, bits };
        self.pd.given.io_space = Some(IoSpaceInfo { master, tables });
        Ok(())
    }

    fn msi(&mut self, all: &All<'_>, shard: u8) {
        // Lines are the first shard's: those who share one may be of different pci-server shards.
        let first = shard == 0;
        self.at(slot::THREAD, Cap::OwnThread);
        self.clients(all, first.then_some(event::LINE));
        let (start, count) = all.plan.vectors_of(all.inputs.system.shards.msi, shard);
        self.pd.given.handlers = self.next;
        for vector in start..start.saturating_add(count) {
            self.next(Cap::Vector(vector));
        }
        let lines = if first { all.plan.lines.len() } else { 0 };
        for line in 0..lines {
            let handler = self.next(Cap::Line(line));
            self.pd.given.line_handlers.push(handler);
        }
        if !first && !all.clients().any(|of| all.meters(of)) {
            return;
        }
        for of in all.numbers(|kind| matches!(kind, Kind::Pci(_))) {
            let flags = event::LINE_TROUBLE;
            let signal = self.next(Cap::Signal { of, flags });
            self.pd.given.shard_signals.push(signal);
        }
    }

    fn pci(&mut self, all: &All<'_>, shard: u8) -> Result<(), PlanError> {
        for (index, iommu) in all
            .numbers(|kind| matches!(kind, Kind::Iommu(_)))
            .enumerate()
        {
            self.call(
                slot::IOMMU + index as u64,
                iommu,
                BadgeKind::Shard,
                shard.into(),
            );
        }
        for (index, msi) in all.numbers(|kind| matches!(kind, Kind::Msi(_))).enumerate() {
            self.call(
                slot::MSI + index as u64,
                msi,
                BadgeKind::Shard,
                shard.into(),
            );
        }
        self.clients(all, Some(event::DEVICE));
        self.pd.given.done = self.next(Cap::Signal {
            of: pd::ROOT,
            flags: event::SHARD_DONE << (shard % 8),
        });
        if all.inputs.machine.configuration == Configuration::Ports {
            let (first, last) = CONFIG_PORTS;
            self.pd.given.config_ports = self.next(Cap::Ports { first, last });
        }
        let own = self.pd.number;
        if let Some(index) = all.plan.irqs.iter().position(|irq| irq.pd == own) {
            self.pd.given.port_interrupt = Some((self.next(Cap::Irq(index)), index));
        }
        let wants = all
            .device
            .memory
            .get(usize::from(shard))
            .map_or(&[][..], |wants| wants.as_slice());
        let pieces = wants
            .iter()
            .flat_map(|want| pieces_of(&all.plan.device_cuts, *want));
        let pieces = pieces.filter_map(|(slot, base, piece)| match piece {
            Piece::Untyped(bits) => Some((slot, base, bits)),
            Piece::SmallFrame | Piece::LargeFrame => None,
        });
        self.untypeds("pieces of a pci-server's memory", pieces)
    }

    fn untypeds(
        &mut self,
        what: &'static str,
        pieces: impl Iterator<Item = (u32, u64, u8)>,
    ) -> Result<(), PlanError> {
        for (from, base, bits) in pieces {
            let Some(region) = Region::sized(base, 1 << bits) else {
                continue;
            };
            if self.pd.given.untypeds.len() == MAX_UNTYPED {
                return Err(PlanError::TooMany {
                    what,
                    limit: MAX_UNTYPED,
                });
            }
            let slot = self.next(Cap::Untyped { slot: from, region });
            self.pd
                .given
                .untypeds
                .push(UntypedPiece { slot, base, bits });
        }
        Ok(())
    }

    fn client(&mut self, all: &All<'_>, id: u16) {
        self.at(slot::WINDOW, Cap::OwnWindow);
        self.at(slot::UNTYPED, Cap::OwnUntyped);
        let Some(client) = all.inputs.system.clients.get(usize::from(id)) else {
            return;
        };
        self.privileged(all, id);
        self.channels(all);
        for (shard, server) in all.numbers(|kind| matches!(kind, Kind::Pci(_))).enumerate() {
            // Who looks or administers asks a shard in its own name what the shard has.
            let privileged = self.pd.privileges != Privileges::default();
            let mut meant = all.plan.shards.get(shard).into_iter();
            if privileged || meant.any(|shard| may_have_devices(client, shard)) {
                self.call(slot::PCI + shard as u64, server, BadgeKind::Client, id);
                self.pd.given.shards.push(shard as u8);
            }
        }
        // The share of a buffer that comes over a channel costs no quota.
        let may_share = !self.pd.given.channels.is_empty();
        if !client.devices.is_empty() || client.dma_quota > 0 || may_share {
            for (index, server) in all
                .numbers(|kind| matches!(kind, Kind::Iommu(_)))
                .enumerate()
            {
                self.call(slot::IOMMU + index as u64, server, BadgeKind::Client, id);
                self.pd.given.iommu = true;
            }
        }
        if !client.devices.is_empty() || client.vectors > 0 {
            for (index, server) in all.numbers(|kind| matches!(kind, Kind::Msi(_))).enumerate() {
                self.call(slot::MSI + index as u64, server, BadgeKind::Client, id);
            }
        }
    }

    /// The client's ends of channels.
    fn channels(&mut self, all: &All<'_>) {
        for (number, channel) in all.plan.channels.iter().enumerate() {
            if let Some((_, peer)) = channel.of(self.pd.number) {
                let mailbox = self.next(Cap::Mailbox(number));
                let signal = self.next(Cap::Signal {
                    of: peer.pd,
                    flags: peer.flags(),
                });
                self.pd.given.channels.push((number, mailbox, signal));
            }
        }
    }

    /// What the description lets a client look at or administer. That needs no device of its own.
    fn privileged(&mut self, all: &All<'_>, id: u16) {
        let Privileges { inspect, admin } = self.pd.privileges;
        let (mut pci, mut iommu, mut msi) = (0, 0, 0);
        for (number, kind) in all.roster {
            let look = match kind {
                Kind::Pci(_) => {
                    pci += 1;
                    if admin {
                        self.call(slot::ADMIN_PCI + pci - 1, *number, BadgeKind::Admin, id);
                    }
                    slot::INSPECT_PCI + pci - 1
                }
                Kind::Iommu(_) => {
                    iommu += 1;
                    slot::INSPECT_IOMMU + iommu - 1
                }
                Kind::Msi(_) => {
                    msi += 1;
                    slot::INSPECT_MSI + msi - 1
                }
                Kind::Console | Kind::Timer | Kind::Client(_) => continue,
            };
            if inspect {
                self.call(look, *number, BadgeKind::Inspect, id);
            }
        }
    }
}

/// Can any rule of the client mean a device of this shard?
fn may_have_devices(client: &Client, shard: &Shard) -> bool {
    client.devices.iter().any(|rule| match rule {
        DeviceMatch::Address(bits) => {
            let at = hw::Sbdf::from_bits(*bits);
            at.segment() == shard.segment && shard.buses.contains(at.bus())
        }
        DeviceMatch::Ids { .. } | DeviceMatch::Class { .. } => true,
    })
}
