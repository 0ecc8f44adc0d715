//! What a DMAR or IVRS means on this machine: [`resolve`] turns its plan into
//! [`Unit`]s with scopes in numbers and the memory that is reserved for devices,
//! as the buses are numbered now.
//!
//! A unit or region with more scopes than a server can be told is given whole
//! buses, where no other unit has anything on them; where that does not suffice a
//! [`Trouble`] says so, and the devices that are left out have no unit.

use alloc::vec::Vec;

use hw::Sbdf;
use hw::acpi::IommuPlan;
use hw::acpi::plan::{Access, Claim, Claims, Extent, SourceKind, Topology, UnitKind};
use system::info::{
    AliasRange, MAX_ALIAS_RANGES, MAX_RESERVED, MAX_SCOPES, Reserved, ReservedUse, Scope,
};
use system::model::IommuChoice;
use thiserror::Error;

use crate::facts::Unit;

/// Scopes of a reserved region that a server is told ([`Reserved::scopes`]).
const MAX_REGION_SCOPES: usize = 8;

/// What the table says and cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Trouble {
    /// The way to some devices leads through a bridge without bus numbers.
    #[error(
        "unit {unit}: {count} of its devices lie behind bridges without bus numbers: no unit has them"
    )]
    Open {
        /// The unit, in the order of the table.
        unit: usize,
        /// How many scopes.
        count: usize,
    },
    /// Two units claim the same devices: none of them can be assigned.
    #[error("units {first} and {second} both claim requester ids {from:#06x} to {to:#06x}")]
    Contested {
        /// One unit.
        first: usize,
        /// The other.
        second: usize,
        /// First requester id of both.
        from: u16,
        /// Last of them.
        to: u16,
    },
    /// More scopes than a server can be told, after neighbours were joined.
    #[error("unit {unit} names its devices in {count} ranges, {max} are kept", max = MAX_SCOPES)]
    Scopes {
        /// The unit.
        unit: usize,
        /// How many ranges.
        count: usize,
    },
    /// More devices of a reserved region than a server can be told.
    #[error("the region at {base:#x} is reserved for devices in {count} ranges, {max} are kept", max = MAX_REGION_SCOPES)]
    RegionScopes {
        /// Where it begins.
        base: u64,
        /// How many ranges.
        count: usize,
    },
    /// More reserved regions than a server can be told.
    #[error("{0} regions are reserved for devices, {max} are kept", max = MAX_RESERVED)]
    Regions(usize),
    /// More ranges of aliases than a server can be told: their devices have no unit that confines them.
    #[error("requester ids have other names in {0} ranges, {max} are kept", max = MAX_ALIAS_RANGES)]
    Aliases(usize),
    /// More ranges than the table's reader keeps.
    #[error("the table names devices in more than {0} ranges")]
    Ranges(u32),
}

/// Units and reserved regions of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resolved {
    /// The units, in the order of the table.
    pub units: Vec<Unit>,
    /// The regions, in the order of the table; those that no device uses are left out.
    pub reserved: Vec<Reserved>,
    /// Requester ids whose transactions carry another one.
    pub aliases: Vec<AliasRange>,
    /// What cannot be had. A unit that is named in [`Trouble::Scopes`] or [`Trouble::Ranges`] knows
    /// less than all its devices: the others have none.
    pub troubles: Vec<Trouble>,
}

/// Makes numbers of a plan, with `topology` as the bridges' bus numbers are now.
#[must_use]
pub fn resolve<T: Topology + ?Sized>(plan: &IommuPlan, topology: &T) -> Resolved {
    let mut resolved = Resolved::default();
    let claims = match plan.claims(topology) {
        Ok(claims) => claims,
        Err(error) => {
            resolved.troubles.push(Trouble::Ranges(error.limit));
            Claims::default()
        }
    };
    for (index, unit) in plan.units.iter().enumerate() {
        let (kind, function) = match unit.kind {
            UnitKind::Vtd => (IommuChoice::Vtd, None),
            UnitKind::Amdvi(amd) => {
                let at = Sbdf::from_requester_id(unit.segment, amd.id);
                (IommuChoice::AmdVi, Some(at))
            }
        };
        let mut scopes = scopes(&claims.units, index, MAX_SCOPES, |first, last| {
            let others = claims
                .units
                .iter()
                .filter(|claim| usize::from(claim.owner) != index);
            !others
                .filter(|claim| claim.segment == unit.segment)
                .any(|claim| claim.first <= last && first <= claim.last)
        });
        let count = scopes.len();
        if count > MAX_SCOPES && !unit.include_all {
            resolved
                .troubles
                .push(Trouble::Scopes { unit: index, count });
        }
        scopes.truncate(MAX_SCOPES);
        for source in plan
            .sources
            .iter()
            .filter(|source| usize::from(source.unit) == index)
        {
            let Some(at) = plan.source_id(source, topology) else {
                continue;
            };
            let requester = at.requester_id();
            let scope = match source.kind {
                SourceKind::IoApic(id) => Scope::IoApic { id, requester },
                SourceKind::Hpet(id) => Scope::Hpet { id, requester },
                SourceKind::NameSpace(_) => Scope::Function(requester),
            };
            if scopes.len() < MAX_SCOPES && !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let open = claims.open.iter().filter(|scope| {
            let scope = plan.unit_scopes.get(usize::from(**scope));
            scope.is_some_and(|scope| usize::from(scope.owner) == index)
        });
        let count = open.count();
        if count > 0 && !unit.include_all {
            resolved.troubles.push(Trouble::Open { unit: index, count });
        }
        resolved.units.push(Unit {
            kind,
            base: unit.base,
            // At most 512 KiB.
            bytes: unit.size as u32,
            segment: unit.segment,
            include_all: unit.include_all,
            scopes,
            function,
        });
    }
    contested(&claims, &mut resolved.troubles);
    reserved(plan, &claims, &mut resolved);
    aliases(plan, &mut resolved);
    resolved
}

/// Only AMD's table has such, and only of requester ids in numbers.
fn aliases(plan: &IommuPlan, resolved: &mut Resolved) {
    let named = plan.unit_scopes.iter().filter_map(|scope| {
        let unit = plan.units.get(usize::from(scope.owner))?;
        let (alias, Extent::Ids { first, last }) = (scope.declared.alias?, &scope.extent) else {
            return None;
        };
        Some(AliasRange {
            segment: unit.segment,
            first: *first,
            last: *last,
            alias,
        })
    });
    let all: Vec<AliasRange> = named.collect();
    if all.len() > MAX_ALIAS_RANGES {
        resolved.troubles.push(Trouble::Aliases(all.len()));
    }
    resolved
        .aliases
        .extend(all.into_iter().take(MAX_ALIAS_RANGES));
}

/// The first few pairs of units that claim the same devices: broken firmware does it wholesale.
fn contested(claims: &Claims, troubles: &mut Vec<Trouble>) {
    let pairs = claims.contested().take(8);
    troubles.extend(pairs.map(|(one, other)| Trouble::Contested {
        first: one.owner.into(),
        second: other.owner.into(),
        from: one.first.max(other.first),
        to: one.last.min(other.last),
    }));
}

fn reserved(plan: &IommuPlan, claims: &Claims, resolved: &mut Resolved) {
    let mut count = 0;
    for (index, region) in plan.reserved.iter().enumerate() {
        let scopes = scopes(&claims.reserved, index, MAX_REGION_SCOPES, |_, _| {
            // A device more that is refused unless the description allows it.
            true
        });
        if scopes.is_empty() {
            continue;
        }
        let used = match region.access {
            Access::Identity {
                read: true,
                write: false,
            } => ReservedUse::Read,
            Access::Identity {
                read: false,
                write: true,
            } => ReservedUse::Write,
            // Neither: it is said to be used all the same.
            Access::Identity { .. } | Access::Excluded => ReservedUse::ReadWrite,
        };
        count += 1;
        if resolved.reserved.len() == MAX_RESERVED {
            continue;
        }
        let kept = scopes
            .iter()
            .copied()
            .take(MAX_REGION_SCOPES)
            .collect::<heapless::Vec<_, MAX_REGION_SCOPES>>();
        if kept.len() < scopes.len() {
            resolved.troubles.push(Trouble::RegionScopes {
                base: region.base,
                count: scopes.len(),
            });
        }
        resolved.reserved.push(Reserved {
            segment: region.segment,
            base: region.base,
            last: region.limit,
            used,
            scopes: kept,
        });
    }
    if count > MAX_RESERVED {
        resolved.troubles.push(Trouble::Regions(count));
    }
}

/// The scopes of one owner, sorted. Ranges that meet are one. Where that gives too many, neighbours are joined and
/// ranges become whole buses, if nobody has what is `free` to be added.
fn scopes(
    claims: &[Claim],
    owner: usize,
    most: usize,
    free: impl Fn(u16, u16) -> bool,
) -> Vec<Scope> {
    let own = claims
        .iter()
        .filter(|claim| usize::from(claim.owner) == owner);
    let mut ranges: Vec<(u16, u16)> = own.map(|claim| (claim.first, claim.last)).collect();
    ranges.sort_unstable();
    let exact: Vec<Scope> = join(&ranges, 0).into_iter().flat_map(exactly).collect();
    if exact.len() <= most {
        return exact;
    }
    let widened = join(&ranges, 1).into_iter().map(|(first, last)| {
        let (from, to) = (first & 0xff00, last | 0xff);
        let before = from == first || free(from, first.saturating_sub(1));
        let after = to == last || free(last.saturating_add(1), to);
        if first != last && before && after {
            (from, to)
        } else {
            (first, last)
        }
    });
    let widened: Vec<(u16, u16)> = widened.collect();
    join(&widened, 1).into_iter().flat_map(exactly).collect()
}

/// Joins sorted ranges that meet, or lie up to `apart` from each other.
fn join(ranges: &[(u16, u16)], apart: u32) -> Vec<(u16, u16)> {
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, before)) if u32::from(*first) <= u32::from(*before) + apart => {
                *before = (*before).max(*last);
            }
            _ => joined.push((*first, *last)),
        }
    }
    joined
}

/// A range of requester ids as scopes: functions up to the first whole bus, buses, and functions after them.
fn exactly((first, last): (u16, u16)) -> impl Iterator<Item = Scope> {
    let (first, end) = (u32::from(first), u32::from(last) + 1);
    let buses_from = first.next_multiple_of(0x100).min(end);
    let buses_to = (end / 0x100 * 0x100).max(buses_from);
    // Requester ids and bus numbers fit: they come from 16 bits.
    let functions = |from: u32, to: u32| (from..to).map(|id| Scope::Function(id as u16));
    let buses = (buses_from < buses_to)
        .then(|| Scope::Buses((buses_from >> 8) as u8, ((buses_to >> 8) - 1) as u8));
    functions(first, buses_from)
        .chain(buses)
        .chain(functions(buses_to, end))
}

#[cfg(test)]
mod tests;
