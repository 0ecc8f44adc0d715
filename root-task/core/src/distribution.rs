//! Who can reach whom: [`check`] computes it from a plan and holds it against
//! the rules of the design. The root task runs it at every boot before it makes
//! the first object, so a plan that breaks a rule never comes to life.
//!
//! The rules: calls run one way, client -> pci -> {iommu, msi} -> services; a
//! badge says who really calls, and only a client that the description lets look
//! or administer has a capability for it; signals go to clients, the supervisor
//! and the console, from an iommu-server or msi-server to the shards whose devices it
//! serves, and between clients that a channel joins, who alone have its mailbox; a grant window is reached by its owner and by
//! the three servers; device memory, configuration space, interrupts and ports
//! have one owner; each interrupt vector is one msi-server's alone. (That no server
//! has a client's address space needs no check: [`Cap`] cannot express it.)

use alloc::vec::Vec;

use ipc_proto::{Badge, BadgeKind};
use system::layout::{event, pd};
use thiserror::Error;

use crate::plan::{CONFIG_PORTS, Cap, Foreign, Grant, Kind, Pd, Plan, Privileges, SERIAL_PORTS};
use crate::region::{Region, RegionSet};

/// A rule that the plan breaks: which PD (by number), and with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Violation {
    /// A PD can call one that is not below it.
    #[error("PD {caller} can call PD {callee}, which is not below it")]
    Upwards {
        /// The caller.
        caller: u16,
        /// The called.
        callee: u16,
    },
    /// A capability to call bears a badge that is not the caller's own.
    #[error("PD {caller} can call PD {callee} with the badge {badge:#x}, which is not its own")]
    ForeignBadge {
        /// The caller.
        caller: u16,
        /// The called.
        callee: u16,
        /// The badge.
        badge: u64,
    },
    /// A PD holds a kind of capability that its kind must not have.
    #[error("PD {pd} holds {what}")]
    Forbidden {
        /// Who.
        pd: u16,
        /// What.
        what: &'static str,
    },
    /// Two PDs have the same memory.
    #[error("PDs {first} and {second} share the memory {region}")]
    SharedMemory {
        /// One.
        first: u16,
        /// The other.
        second: u16,
        /// What.
        region: Region,
    },
    /// A PD maps what is another's.
    #[error("PD {pd} maps {what}")]
    ForeignMapping {
        /// Who.
        pd: u16,
        /// What.
        what: &'static str,
    },
    /// Two capabilities are meant for one slot, or the slot does not exist.
    #[error("slot {slot} of PD {pd} is given twice, or does not exist")]
    Slot {
        /// Whose.
        pd: u16,
        /// Which.
        slot: u32,
    },
}

/// Checks every capability and every mapping of the plan.
///
/// # Errors
/// The first rule that is broken.
pub fn check(plan: &Plan) -> Result<(), Violation> {
    for pd in &plan.pds {
        for grant in &pd.grants {
            capability(plan, pd, grant.cap)?;
        }
        slots(pd)?;
        for mapping in &pd.mappings {
            mapped(pd, mapping.frames)?;
        }
    }
    memory(plan)
}

/// The layer of a kind: it may call what is in lower ones.
const fn layer(kind: Kind) -> u8 {
    match kind {
        Kind::Client(_) => 3,
        Kind::Pci(_) => 2,
        Kind::Iommu(_) | Kind::Msi(_) => 1,
        Kind::Console | Kind::Timer => 0,
    }
}

fn capability(plan: &Plan, pd: &Pd, cap: Cap) -> Result<(), Violation> {
    let forbidden = |what| {
        Err(Violation::Forbidden {
            pd: pd.number,
            what,
        })
    };
    match cap {
        Cap::Call { of, badge } => call(plan, pd, of, badge),
        Cap::Signal { of, flags } => {
            let to_client = plan.pd(of).is_some_and(|to| to.client().is_some());
            match pd.kind {
                // Only what a channel of the description says.
                Kind::Client(_) if to_client && plan.joins(pd.number, of, flags) => Ok(()),
                Kind::Client(_) | Kind::Console if of != pd::CONSOLE => {
                    forbidden("a signal to another than the console")
                }
                // Only the first shard has lines; others have trouble where they meter.
                Kind::Msi(shard)
                    if shard != 0
                        && of != pd::CONSOLE
                        && !(flags == trouble(pd.kind)
                            && plan.pds.iter().any(|client| client.metered)) =>
                {
                    forbidden("a signal that it has no use for")
                }
                Kind::Msi(_) if to_client && flags != event::LINE => {
                    forbidden("a signal that it has no use for")
                }
                // A shard learns from below that one of its devices is in trouble.
                Kind::Iommu(_) | Kind::Msi(_)
                    if flags == trouble(pd.kind)
                        && plan
                            .pd(of)
                            .is_some_and(|to| matches!(to.kind, Kind::Pci(_))) =>
                {
                    Ok(())
                }
                Kind::Iommu(_) | Kind::Pci(_) | Kind::Msi(_)
                    if !(to_client || of == pd::ROOT || of == pd::CONSOLE) =>
                {
                    forbidden("a signal to another server")
                }
                _ => Ok(()),
            }
        }
        Cap::Alarm if pd.kind != Kind::Timer => forbidden("the way to have servers killed"),
        Cap::Window { of } => match pd.kind {
            Kind::Iommu(_) | Kind::Msi(_) | Kind::Pci(_)
                if plan.pd(of).is_some_and(|of| of.client().is_some()) =>
            {
                Ok(())
            }
            _ => forbidden("another PD's grant window"),
        },
        Cap::Notification { of } => match pd.kind {
            Kind::Msi(_) if plan.pd(of).is_some_and(|of| of.metered) => Ok(()),
            _ => forbidden("another PD's notification"),
        },
        Cap::Mailbox(channel)
            if plan
                .channels
                .get(channel)
                .is_none_or(|channel| channel.of(pd.number).is_none()) =>
        {
            forbidden("the mailbox of a channel of others")
        }
        Cap::OwnWindow | Cap::OwnUntyped if pd.kind.is_server() => {
            forbidden("what only clients have")
        }
        Cap::OwnThread if !matches!(pd.kind, Kind::Msi(_)) => forbidden("its own thread"),
        Cap::OwnEndpoint if !pd.kind.is_server() => forbidden("an endpoint to serve"),
        Cap::Untyped { .. } if !matches!(pd.kind, Kind::Iommu(_) | Kind::Pci(_)) => {
            forbidden("untyped memory")
        }
        Cap::Vector(vector) if !owns_vector(plan, pd, vector) => forbidden("another PD's vector"),
        Cap::Line(_) if pd.kind != Kind::Msi(0) => forbidden("an interrupt line"),
        Cap::IoSpace if !matches!(pd.kind, Kind::Iommu(_)) => forbidden("I/O spaces"),
        Cap::Irq(index) if plan.irqs.get(index).is_none_or(|irq| irq.pd != pd.number) => {
            forbidden("another PD's interrupt")
        }
        Cap::Ports { first, last } => match (pd.kind, (first, last)) {
            (Kind::Console, SERIAL_PORTS) => Ok(()),
            // Two would disturb each other: an access takes two steps.
            (Kind::Pci(0), CONFIG_PORTS) if plan.shards.len() == 1 => Ok(()),
            _ => forbidden("I/O ports"),
        },
        _ => Ok(()),
    }
}

/// The flag by which a server below tells a pci-server shard of trouble.
const fn trouble(kind: Kind) -> u64 {
    match kind {
        Kind::Msi(_) => event::LINE_TROUBLE,
        _ => event::TROUBLE,
    }
}

/// Is the vector this msi-server's, and no other's? (Who is none has no vectors: each PD is looked at.)
fn owns_vector(plan: &Plan, pd: &Pd, vector: u16) -> bool {
    let is_server = |pd: &&Pd| matches!(pd.kind, Kind::Msi(_));
    let servers = plan.pds.iter().filter(is_server);
    let same = |grant: &&Grant| grant.cap == Cap::Vector(vector);
    is_server(&pd)
        && servers.flat_map(|pd| &pd.grants).filter(same).count() == 1
        && plan.lines.iter().all(|(_, other)| *other != vector)
        && plan.irqs.iter().all(|irq| u16::from(irq.vector) != vector)
}

fn call(plan: &Plan, pd: &Pd, of: u16, badge: Badge) -> Result<(), Violation> {
    let caller = pd.number;
    let own = |kind, index| badge == Badge::plain(kind, index);
    let allowed = match plan.pd(of).map(|to| to.kind) {
        None if of == pd::ROOT => own(BadgeKind::Pd, caller) || own(BadgeKind::Fault, caller),
        None => false,
        Some(to) if layer(to) >= layer(pd.kind) => {
            return Err(Violation::Upwards { caller, callee: of });
        }
        Some(Kind::Console | Kind::Timer) => own(BadgeKind::Pd, caller),
        Some(to) => match pd.kind {
            Kind::Client(id) => {
                let Privileges { inspect, admin } = pd.privileges;
                own(BadgeKind::Client, id)
                    || inspect && own(BadgeKind::Inspect, id)
                    || admin && matches!(to, Kind::Pci(_)) && own(BadgeKind::Admin, id)
            }
            Kind::Pci(shard) => own(BadgeKind::Shard, shard.into()),
            _ => false,
        },
    };
    if allowed {
        Ok(())
    } else {
        Err(Violation::ForeignBadge {
            caller,
            callee: of,
            badge: badge.to_word(),
        })
    }
}

fn slots(pd: &Pd) -> Result<(), Violation> {
    let mut seen: Vec<u32> = pd.grants.iter().map(|grant| grant.slot).collect();
    seen.sort_unstable();
    let twice = seen
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0]);
    let beyond = seen
        .iter()
        .copied()
        .find(|slot| *slot == 0 || *slot >= pd.first_free || *slot >= pd.slots_end());
    match twice.or(beyond) {
        Some(slot) => Err(Violation::Slot {
            pd: pd.number,
            slot,
        }),
        None => Ok(()),
    }
}

fn mapped(pd: &Pd, frames: Foreign) -> Result<(), Violation> {
    let foreign = |what| {
        Err(Violation::ForeignMapping {
            pd: pd.number,
            what,
        })
    };
    match frames {
        Foreign::Ring(of) if of != pd.number && pd.kind != Kind::Console => {
            foreign("another PD's log ring")
        }
        Foreign::Device(_) if !matches!(pd.kind, Kind::Pci(_) | Kind::Iommu(_) | Kind::Timer) => {
            foreign("device registers")
        }
        Foreign::IommuTables if !matches!(pd.kind, Kind::Iommu(_)) => foreign("IOMMU tables"),
        _ => Ok(()),
    }
}

/// Every address that a PD owns, by frames or by untypeds, is no other PD's.
fn memory(plan: &Plan) -> Result<(), Violation> {
    let mut owners: Vec<(u16, RegionSet)> = Vec::new();
    for pd in &plan.pds {
        let mut own = RegionSet::new();
        let mut take = |region: Region| {
            let mine: RegionSet = [region].into_iter().collect();
            let owned = core::iter::once((pd.number, &own))
                .chain(owners.iter().map(|(number, set)| (*number, set)));
            for (first, set) in owned {
                if let Some(region) = set.intersection(&mine).regions().first() {
                    return Err(Violation::SharedMemory {
                        first,
                        second: pd.number,
                        region: *region,
                    });
                }
            }
            own.insert(region);
            Ok(())
        };
        for grant in &pd.grants {
            if let Cap::Untyped { region, .. } = grant.cap {
                take(region)?;
            }
        }
        for mapping in &pd.mappings {
            let region = match mapping.frames {
                Foreign::Device(want) => plan.wants.get(want).map(|want| want.region),
                Foreign::IommuTables => {
                    let block = plan.iommu_tables.block;
                    Region::sized(block.base, 1 << block.bits)
                }
                Foreign::Ring(_) => None,
            };
            region.map(&mut take).transpose()?;
        }
        region_of_block(pd).map(&mut take).transpose()?;
        owners.push((pd.number, own));
    }
    Ok(())
}

fn region_of_block(pd: &Pd) -> Option<Region> {
    Region::sized(pd.block.base, 1 << pd.block.bits)
}

#[cfg(test)]
mod tests;
