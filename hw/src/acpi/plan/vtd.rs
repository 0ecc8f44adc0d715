//! A plan from a DMAR.

use heapless::Vec;

use super::{
    Access, AtsKind, AtsScope, Declared, DeviceSettings, Extent, IommuPlan, MAX_UNITS, Name,
    OwnedExtent, Reserved, Source, SourceKind, UnitKind, UnitPlan, name,
};
use crate::acpi::dmar::{Andd, Dmar, DmarFlags, Remapping, Rhsa, Scope, ScopeKind, Scopes};
use crate::acpi::table::{Record, Rule, Signature, TableError};

pub fn plan(bytes: &[u8]) -> Result<IommuPlan, TableError> {
    let dmar = Dmar::parse(bytes)?;
    let mut plan = IommuPlan::empty(Signature::DMAR);
    plan.host_address_bits = dmar.host_address_bits;
    plan.interrupt_remapping = dmar.flags.contains(DmarFlags::INTERRUPT_REMAPPING);
    // Units may come before what is said about them.
    let mut domains: Vec<Rhsa, MAX_UNITS> = Vec::new();
    for record in dmar.records() {
        let record = record?;
        let at = record.offset;
        match record.body {
            Remapping::Drhd(unit) => {
                let entry = UnitPlan {
                    kind: UnitKind::Vtd,
                    base: unit.base,
                    size: unit.size,
                    segment: unit.segment,
                    include_all: unit.include_all,
                    domain: None,
                };
                let owner = plan.add_unit(entry, at)?;
                unit_scopes(&mut plan, owner, unit.scopes, &dmar)?;
            }
            Remapping::Rmrr(region) => {
                let entry = Reserved {
                    segment: region.segment,
                    base: region.base,
                    limit: region.limit,
                    access: Access::Identity {
                        read: true,
                        write: true,
                    },
                };
                let owner = plan.add_reserved(entry, at)?;
                for scope in region.scopes.records() {
                    let scope = scope?;
                    let entry = owned(owner, pci(&scope)?);
                    plan.add_reserved_scope(entry, scope.offset)?;
                }
            }
            Remapping::Atsr(ports) if ports.all_ports => {
                let entry = AtsScope {
                    kind: AtsKind::BehindPort,
                    segment: ports.segment,
                    extent: Extent::All,
                };
                plan.add_ats(entry, at)?;
            }
            Remapping::Atsr(ports) => {
                ats(&mut plan, AtsKind::BehindPort, ports.segment, ports.scopes)?;
            }
            Remapping::Satc(devices) => {
                let kind = match devices.required {
                    true => AtsKind::Required,
                    false => AtsKind::Integrated,
                };
                ats(&mut plan, kind, devices.segment, devices.scopes)?;
            }
            Remapping::Rhsa(domain) => {
                let full = plan.too_many(at, "domains", MAX_UNITS);
                domains.push(domain).map_err(|_| full)?;
            }
            // Names are looked up where they are used. Properties of integrated devices are about
            // address spaces of processes, which are not used.
            Remapping::Andd(_) | Remapping::Sidp(_) | Remapping::Other { .. } => {}
        }
    }
    for unit in &mut plan.units {
        unit.domain = domains
            .iter()
            .find(|domain| domain.base == unit.base)
            .map(|domain| domain.domain);
    }
    Ok(plan)
}

fn owned(owner: u8, extent: Extent) -> OwnedExtent {
    OwnedExtent {
        owner,
        extent,
        declared: Declared::default(),
    }
}

fn unit_scopes(
    plan: &mut IommuPlan,
    unit: u8,
    scopes: Scopes<'_>,
    dmar: &Dmar<'_>,
) -> Result<(), TableError> {
    for scope in scopes.records() {
        let scope = scope?;
        let number = scope.body.enumeration_id;
        let kind = match scope.body.kind {
            ScopeKind::IoApic => SourceKind::IoApic(number),
            ScopeKind::Hpet => SourceKind::Hpet(number),
            ScopeKind::NameSpace => SourceKind::NameSpace(name_of(number, dmar)),
            _ => {
                plan.add_unit_scope(owned(unit, pci(&scope)?), scope.offset)?;
                continue;
            }
        };
        let source = Source {
            unit,
            kind,
            path: scope.body.path,
            settings: DeviceSettings::empty(),
        };
        plan.add_source(source, scope.offset)?;
    }
    Ok(())
}

/// Devices of a scope that names PCI functions. Of a scope of a kind that this code does not know
/// the unit cannot be told, and another would wrongly be taken to serve it.
fn pci(scope: &Record<Scope>) -> Result<Extent, TableError> {
    match scope.body.kind {
        ScopeKind::Endpoint => Ok(Extent::Function(scope.body.path.clone())),
        ScopeKind::Bridge => Ok(Extent::Hierarchy(scope.body.path.clone())),
        _ => Err(TableError {
            table: Signature::DMAR,
            offset: scope.offset,
            rule: Rule::BadValue {
                field: "type of a device scope",
                value: u64::from(scope.kind),
            },
        }),
    }
}

fn ats(
    plan: &mut IommuPlan,
    kind: AtsKind,
    segment: u16,
    scopes: Scopes<'_>,
) -> Result<(), TableError> {
    for scope in scopes.records() {
        let scope = scope?;
        let entry = AtsScope {
            kind,
            segment,
            extent: pci(&scope)?,
        };
        plan.add_ats(entry, scope.offset)?;
    }
    Ok(())
}

/// Name of a device of the name space; empty if the table does not give one.
fn name_of(number: u8, dmar: &Dmar<'_>) -> Name {
    let named = |structure| match structure {
        Ok(Remapping::Andd(Andd {
            number: this,
            name: text,
        })) if this == number => Some(name(text)),
        _ => None,
    };
    dmar.structures().find_map(named).unwrap_or_default()
}
