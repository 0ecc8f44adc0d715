//! What must be true of a plan of remapping units.

use hw::Sbdf;
use hw::acpi::plan::{Claims, NoTopology, Unserved};
use hw::acpi::{IommuPlan, Signature};

use super::{Checked, Input, Outcome, hold};
use crate::mutate::Random;
use crate::topology::Wild;

impl Outcome {
    pub(super) fn plans(&mut self, input: Input<'_>, random: &mut Random) -> Checked {
        let plan = match IommuPlan::from_bytes(input.bytes) {
            Ok(plan) => plan,
            Err(error) => return self.error(input, &error),
        };
        self.plans += 1;
        hold(input.is_whole(plan.table), || {
            "a plan of what is not whole".into()
        })?;
        sound(&plan)?;
        let wild = Wild(random.any());
        for claims in [plan.claims(&NoTopology), plan.claims(&wild)]
            .into_iter()
            .flatten()
        {
            for _ in 0..8 {
                // Half of them near what is claimed.
                let near = claims.units.get(random.below(claims.units.len()));
                let id = match near {
                    Some(claim) if random.once_in(2) => {
                        claim.last.wrapping_add(random.below(3) as u16)
                    }
                    _ => random.any() as u16,
                };
                let segment = match random.below(4) {
                    0 => random.any() as u16,
                    _ => near.map_or(0, |claim| claim.segment),
                };
                served(&plan, &claims, Sbdf::from_requester_id(segment, id))?;
            }
        }
        if random.once_in(16) {
            let text = plan.show(&wild).to_string();
            let least = 1 + plan.units.len() + plan.unit_scopes.len() + plan.sources.len();
            hold(text.lines().count() >= least, || {
                format!("lines are missing:\n{text}")
            })?;
        }
        Ok(())
    }
}

/// Every index leads somewhere, and every region is one.
fn sound(plan: &IommuPlan) -> Checked {
    let units = plan.units.len();
    let scopes = plan.unit_scopes.iter().map(|scope| scope.owner);
    let sources = plan.sources.iter().map(|source| source.unit);
    for owner in scopes.chain(sources) {
        hold(usize::from(owner) < units, || {
            format!("unit {owner} of {units}")
        })?;
    }
    for scope in &plan.reserved_scopes {
        let owner = usize::from(scope.owner);
        hold(owner < plan.reserved.len(), || format!("region {owner}"))?;
    }
    for region in &plan.reserved {
        let pages = region.base % 4096 == 0 && region.limit % 4096 == 4095;
        hold(pages && region.base < region.limit, || {
            format!("{region:?}")
        })?;
    }
    for (index, unit) in plan.units.iter().enumerate() {
        hold(unit.base % 4096 == 0 && unit.size >= 4096, || {
            format!("{unit:?}")
        })?;
        let rest =
            |other: &&hw::acpi::plan::UnitPlan| other.include_all && other.segment == unit.segment;
        let all = plan.units.iter().filter(rest).count();
        hold(all <= 1, || {
            format!("{all} units for the rest of a segment")
        })?;
        let mut others = plan.units.iter().skip(index + 1);
        let apart = others.all(|other| other.base != unit.base);
        hold(apart, || format!("two units at {:#x}", unit.base))?;
    }
    let bits = plan.host_address_bits;
    hold((1..=64).contains(&bits), || format!("{bits} bits"))?;
    let ats = plan.table == Signature::DMAR || plan.ats.is_empty();
    hold(ats, || "ATS of AMD".into())
}

/// A device is served by the only unit that names it, or by the one for the rest; found here the
/// long way.
fn served(plan: &IommuPlan, claims: &Claims, at: Sbdf) -> Checked {
    let mut naming: Vec<u8> = claims
        .units
        .iter()
        .filter(|claim| claim.segment == at.segment())
        .filter(|claim| (claim.first..=claim.last).contains(&at.requester_id()))
        .map(|claim| claim.owner)
        .collect();
    naming.sort_unstable();
    naming.dedup();
    let rest = plan
        .units
        .iter()
        .position(|unit| unit.include_all && unit.segment == at.segment());
    let expected = match (naming[..].as_ref(), rest) {
        ([one], _) => Some(usize::from(*one)),
        ([], Some(rest)) => Some(rest),
        _ => None,
    };
    let found = claims.unit_of(at);
    let right = match (found, expected) {
        (Ok(served), Some(unit)) => usize::from(served.unit) == unit,
        (Err(Unserved::NoUnit(_)), None) => naming.is_empty(),
        (Err(Unserved::Contested { first, second, .. }), None) => {
            first != second && naming.contains(&first) && naming.contains(&second)
        }
        _ => false,
    };
    hold(right, || {
        format!("{at}: {found:?}, but {naming:?} name it, rest {rest:?}")
    })
}
