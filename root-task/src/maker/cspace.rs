//! The CSpace of a PD: its CNodes, and each capability that the plan grants.

use alloc::format;
use alloc::string::String;

use ipc_proto::Badge;
use root_core::objects::Part;
use root_core::plan::{CONFIG_PORTS, Cap, Grant, Pd, SERIAL_PORTS};
use sel4::bootinfo::slot as boot_slot;
use sel4::irq::{MsiSource, Polarity, Trigger, Vector};
use sel4::{CNode, CapData, Error, IrqControl, Rights, Slot};
use system::layout::{INDEX_BITS, event, pd};

use super::{Maker, doing};
use crate::stock::{CNODE, own};

/// The kernel wants to know whose messages they are, and does nothing with it.
pub(super) const NO_DEVICE: MsiSource = MsiSource {
    bus: 0,
    device: 0,
    function: 0,
    handle: 0,
};

impl Maker<'_> {
    /// Puts a PD's CNodes together and fills its private one.
    pub(super) fn cspace(&self, pd: &Pd) -> Result<(), String> {
        if let Some(top) = pd.layout.slot(Part::TopCNode) {
            self.entries(pd, CNode::at(top.into()))?;
        }
        for grant in &pd.grants {
            let later = match grant.cap {
                Cap::Window { of } | Cap::Signal { of, .. } | Cap::Notification { of } => {
                    pd.kind.is_server() && self.plan.pd(of).is_some_and(|of| of.client().is_some())
                }
                _ => false,
            };
            if !later {
                self.give(pd, grant)?;
            }
        }
        Ok(())
    }

    /// Puts a client's private CNode and its window below its top one.
    fn entries(&self, pd: &Pd, top: CNode) -> Result<(), String> {
        let private = own(self.slot_of(pd, Part::PrivateCNode)?);
        let below = |bits: u8| CapData::guard((INDEX_BITS as u8).saturating_sub(bits));
        doing(
            top.slot_at(0, 1)
                .mint_from(private, Rights::ALL, below(pd.cnode_bits)),
            "private CNode",
        )?;
        if let (Some(bits), Some(window)) = (pd.window_bits, pd.layout.slot(Part::Window)) {
            doing(
                top.slot_at(1, 1)
                    .mint_from(own(window), Rights::ALL, below(bits)),
                "grant window",
            )?;
        }
        Ok(())
    }

    /// Puts one capability into a PD's private CNode.
    pub(super) fn give(&self, pd: &Pd, grant: &Grant) -> Result<(), String> {
        self.try_give(pd, grant)
            .map_err(|error| format!("{}: slot {}: {error}", pd.name, grant.slot))
    }

    /// The root task's own capability for a range of ports.
    fn ports(&self, range: (u16, u16)) -> Result<u32, &'static str> {
        match range {
            SERIAL_PORTS => Ok(self.own.serial),
            CONFIG_PORTS => self
                .own
                .config_ports
                .ok_or("no ports of configuration space"),
            _ => Err("ports that nobody asked the kernel for"),
        }
    }

    fn try_give(&self, pd: &Pd, grant: &Grant) -> Result<(), String> {
        let private = CNode::at(self.slot_of(pd, Part::PrivateCNode)?.into());
        let dest = private.slot_at(grant.slot.into(), pd.cnode_bits);
        let control = IrqControl::at(boot_slot::IRQ_CONTROL);
        let of = |number: u16| self.plan.pd(number).ok_or("no such PD");
        // What is minted for a client is a copy of a master.
        let master = pd.master_of(grant.slot).map(own);
        let minted = master.unwrap_or(dest);
        let handed = |rights| match master {
            Some(master) => doing(dest.copy_from(master, rights), "copy of a master"),
            None => Ok(()),
        };
        let copy = |part, rights| Ok::<_, String>((self.slot_of(pd, part)?, rights));
        let (source, rights) = match grant.cap {
            Cap::OwnCNode => copy(Part::PrivateCNode, Rights::ALL)?,
            Cap::OwnVSpace => copy(Part::VSpace, Rights::ALL)?,
            Cap::OwnEvents => copy(Part::Events, Rights::READ_WRITE)?,
            Cap::OwnEndpoint => copy(Part::Endpoint, Rights::ALL)?,
            Cap::OwnThread => copy(Part::Tcb, Rights::ALL)?,
            Cap::OwnWindow => copy(Part::Window, Rights::ALL)?,
            Cap::OwnUntyped => copy(Part::OwnUntyped, Rights::ALL)?,
            Cap::Window { of: number } => (self.slot_of(of(number)?, Part::Window)?, Rights::ALL),
            Cap::Mailbox(channel) => (
                self.plan.mailbox(channel).ok_or("no such mailbox")?,
                Rights::ALL,
            ),
            Cap::Untyped { slot, .. } => (slot, Rights::ALL),
            Cap::Irq(index) => (
                self.plan.irqs.get(index).ok_or("no such interrupt")?.slot,
                Rights::ALL,
            ),
            Cap::Ports { first, last } => (self.ports((first, last))?, Rights::ALL),
            // Made where they belong: copies of what the kernel makes are not revoked from copies.
            Cap::Vector(vector) => {
                let vector = u8::try_from(vector).ok().and_then(Vector::new);
                let vector = vector.ok_or("a vector that the kernel does not have")?;
                let made = control.get_msi(dest, NO_DEVICE, vector);
                return doing(made, "interrupt vector");
            }
            Cap::Line(index) => {
                let (line, vector) = self.plan.lines.get(index).ok_or("no such line")?;
                let vector = u8::try_from(*vector).ok().and_then(Vector::new);
                let vector = vector.ok_or("a vector that the kernel does not have")?;
                let pin = (0, u64::from(*line));
                let made =
                    control.get_ioapic(dest, pin, Trigger::Level, Polarity::ActiveLow, vector);
                return doing(made, "interrupt line");
            }
            // Moved too: nobody else can let a device through.
            Cap::IoSpace => {
                return doing(
                    dest.move_from(own(boot_slot::IO_SPACE as u32)),
                    "I/O spaces",
                );
            }
            Cap::Call { of: number, badge } => {
                let endpoint = match number {
                    // The supervisor may be waiting for a server shard: they go to the medic.
                    pd::ROOT if pd.kind.is_shard() => self.own.medic.cptr(),
                    pd::ROOT => self.own.endpoint.cptr(),
                    number => self.slot_of(of(number)?, Part::Endpoint)?.into(),
                };
                // Capabilities are sent along (buffers), so it is more than the right to be replied to.
                let rights = Rights::CALL.and(Rights::GRANT);
                return doing(mint(minted, endpoint, rights, badge), "badged endpoint")
                    .and_then(|()| handed(rights));
            }
            Cap::Alarm => {
                let badge =
                    Badge::from_word(Badge::event(event::TIMER)).ok_or("no badge for an alarm")?;
                return doing(
                    mint(dest, self.own.alarm.cptr(), Rights::WRITE, badge),
                    "the medic's notification",
                );
            }
            Cap::Notification { of: number } => {
                (self.slot_of(of(number)?, Part::Events)?, Rights::WRITE)
            }
            Cap::Signal { of: number, flags } => {
                let events = match number {
                    pd::ROOT => self.own.events.cptr(),
                    number => self.slot_of(of(number)?, Part::Events)?.into(),
                };
                let badge =
                    Badge::from_word(Badge::event(flags)).ok_or("flags that no badge holds")?;
                return doing(
                    mint(minted, events, Rights::WRITE, badge),
                    "badged notification",
                )
                .and_then(|()| handed(Rights::WRITE));
            }
        };
        doing(dest.copy_from(own(source), rights), "capability")
    }
}

/// Makes a badged capability of the root task's own.
pub fn mint(dest: Slot, source: u64, rights: Rights, badge: Badge) -> sel4::Result {
    // 28 bits by construction.
    let badge = sel4::Badge::new(badge.to_word()).ok_or(Error::RangeError)?;
    dest.mint_badged(CNODE.slot(source), rights, badge)
}
