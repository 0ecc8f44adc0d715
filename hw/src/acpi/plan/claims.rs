//! A plan in numbers: [`Claims`] says for each requester id which unit serves it and
//! which memory is reserved for it, as the buses are set up now.

use heapless::Vec;
use thiserror::Error;

use super::{AtsKind, Extent, IommuPlan, MAX_UNITS, Source};
use crate::acpi::dmar::Path;
use crate::acpi::ivrs::Declared;
use crate::header::{self, BusNumbers};
use crate::{BusRange, ConfigSpace, Sbdf};

/// Ranges of requester ids that are kept of each sort: a bridge takes two.
const MAX_CLAIMS: usize = 768;
/// Scopes that lead nowhere that are kept.
const MAX_OPEN: usize = 384;

/// Tells which buses are behind a bridge.
pub trait Topology {
    /// The buses behind the function `bridge`; `None` if it is no bridge, or has no buses yet.
    fn behind(&self, bridge: Sbdf) -> Option<BusRange>;
}

/// Configuration space tells.
impl<C: ConfigSpace + ?Sized> Topology for C {
    fn behind(&self, bridge: Sbdf) -> Option<BusRange> {
        // The type of the header: in a device the same register is an address.
        match self.read8(bridge, header::register::HEADER_TYPE) & 0x7f {
            1 | 2 => BusNumbers::read(self, bridge).behind(),
            _ => None,
        }
    }
}

/// Nothing is known of what is behind bridges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoTopology;

impl Topology for NoTopology {
    fn behind(&self, _: Sbdf) -> Option<BusRange> {
        None
    }
}

impl Path {
    /// The function that the path leads to, through the bridges on the way; `None` if one of them
    /// is no bridge or has no buses.
    pub fn resolve<T: Topology + ?Sized>(&self, topology: &T, segment: u16) -> Option<Sbdf> {
        let mut bus = self.bus;
        let (last, bridges) = self.hops.split_last()?;
        for hop in bridges {
            let bridge = Sbdf::from_parts(segment, bus, hop.device, hop.function).ok()?;
            bus = topology.behind(bridge)?.first();
        }
        Sbdf::from_parts(segment, bus, last.device, last.function).ok()
    }
}

/// A range of requester ids that belongs to a unit or region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Claim {
    /// Index in [`IommuPlan::units`] or [`IommuPlan::reserved`], or of [`IommuPlan::ats`].
    pub owner: u8,
    /// PCI segment.
    pub segment: u16,
    /// First requester id.
    pub first: u16,
    /// Last requester id, included.
    pub last: u16,
    /// What else the table says about the devices (AMD only).
    pub declared: Declared,
}

impl Claim {
    /// Does it take this function?
    #[must_use]
    pub const fn takes(&self, at: Sbdf) -> bool {
        let id = at.requester_id();
        self.segment == at.segment() && self.first <= id && id <= self.last
    }

    /// Do both take some function?
    #[must_use]
    pub const fn meets(&self, other: &Self) -> bool {
        self.segment == other.segment && self.first <= other.last && other.first <= self.last
    }
}

/// The unit that serves a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Served {
    /// Index in [`IommuPlan::units`].
    pub unit: u8,
    /// What the table says about the device.
    pub declared: Declared,
}

/// Why no unit can be said to serve a device. Such a device must not be assigned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Unserved {
    /// No unit names it, and none takes the rest of its segment.
    #[error("no remapping unit serves {0}")]
    NoUnit(Sbdf),
    /// Two units name it.
    #[error("{at} is named by remapping units {first} and {second}")]
    Contested {
        /// The device.
        at: Sbdf,
        /// One unit.
        first: u8,
        /// Another unit.
        second: u8,
    },
}

/// More ranges than are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[error("the plan has more than {limit} ranges of requester ids")]
pub struct TooManyClaims {
    /// How many are kept.
    pub limit: u32,
}

/// Requester ids, and what they belong to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// What belongs to units, in the order of the table.
    pub units: Vec<Claim, MAX_CLAIMS, u16>,
    /// What uses reserved memory.
    pub reserved: Vec<Claim, { super::MAX_RESERVED_SCOPES * 2 }, u16>,
    /// What may use address translation services.
    pub ats: Vec<Claim, { super::MAX_ATS * 2 }, u16>,
    /// Scopes that lead through a bridge, or name one, whose buses are not known: indices in
    /// [`IommuPlan::unit_scopes`]. The devices behind it have no claims yet.
    pub open: Vec<u16, MAX_OPEN, u16>,
    /// For each unit that takes the rest of its segment: the segment.
    rest: Vec<(u16, u8), MAX_UNITS, u8>,
}

impl IommuPlan {
    /// The plan in numbers, as `topology` has the buses now. To be asked again when buses change.
    ///
    /// # Errors
    /// More ranges than are kept.
    pub fn claims<T: Topology + ?Sized>(&self, topology: &T) -> Result<Claims, TooManyClaims> {
        let mut claims = Claims::default();
        for (index, scope) in self.unit_scopes.iter().enumerate() {
            let Some(unit) = self.units.get(usize::from(scope.owner)) else {
                continue;
            };
            let found = Found {
                owner: scope.owner,
                segment: unit.segment,
                declared: scope.declared,
            };
            if !found.add(&scope.extent, topology, &mut claims.units)? {
                // At most `MAX_SCOPES`.
                keep(&mut claims.open, index as u16)?;
            }
        }
        for scope in &self.reserved_scopes {
            let Some(region) = self.reserved.get(usize::from(scope.owner)) else {
                continue;
            };
            let found = Found {
                owner: scope.owner,
                segment: region.segment,
                declared: scope.declared,
            };
            found.add(&scope.extent, topology, &mut claims.reserved)?;
        }
        for (index, scope) in self.ats.iter().enumerate() {
            let found = Found {
                owner: index as u8,
                segment: scope.segment,
                declared: Declared::default(),
            };
            found.add(&scope.extent, topology, &mut claims.ats)?;
        }
        for (index, unit) in self.units.iter().enumerate() {
            if unit.include_all {
                keep(&mut claims.rest, (unit.segment, index as u8))?;
            }
        }
        Ok(claims)
    }

    /// Requester id that a source's transactions carry, and in which segment; `None` if the way to
    /// it leads through a bridge without buses.
    pub fn source_id<T: Topology + ?Sized>(&self, source: &Source, topology: &T) -> Option<Sbdf> {
        let unit = self.units.get(usize::from(source.unit))?;
        source.path.resolve(topology, unit.segment)
    }
}

/// Whose claims are being collected.
struct Found {
    owner: u8,
    segment: u16,
    declared: Declared,
}

impl Found {
    /// Adds the claims of an extent. Whether all of it is known.
    fn add<T: Topology + ?Sized, const N: usize>(
        &self,
        extent: &Extent,
        topology: &T,
        list: &mut Vec<Claim, N, u16>,
    ) -> Result<bool, TooManyClaims> {
        let mut push = |first, last| {
            let claim = Claim {
                owner: self.owner,
                segment: self.segment,
                first,
                last,
                declared: self.declared,
            };
            keep(list, claim)
        };
        match extent {
            Extent::All => push(0, u16::MAX)?,
            Extent::Ids { first, last } => push(*first, *last)?,
            Extent::Function(path) => match path.resolve(topology, self.segment) {
                Some(at) => push(at.requester_id(), at.requester_id())?,
                None => return Ok(false),
            },
            Extent::Hierarchy(path) => {
                let Some(bridge) = path.resolve(topology, self.segment) else {
                    return Ok(false);
                };
                push(bridge.requester_id(), bridge.requester_id())?;
                let Some(buses) = topology.behind(bridge) else {
                    return Ok(false);
                };
                push(
                    u16::from(buses.first()) << 8,
                    u16::from(buses.last()) << 8 | 0xff,
                )?;
            }
        }
        Ok(true)
    }
}

fn keep<T, L: heapless::LenType, const N: usize>(
    list: &mut Vec<T, N, L>,
    item: T,
) -> Result<(), TooManyClaims> {
    let limit = N as u32;
    list.push(item).map_err(|_| TooManyClaims { limit })
}

impl Claims {
    /// The unit that serves a function.
    ///
    /// # Errors
    /// None does, or it cannot be told which.
    pub fn unit_of(&self, at: Sbdf) -> Result<Served, Unserved> {
        let mut served: Option<Served> = None;
        for claim in self.units.iter().filter(|claim| claim.takes(at)) {
            match served {
                Some(Served { unit, .. }) if unit != claim.owner => {
                    return Err(Unserved::Contested {
                        at,
                        first: unit,
                        second: claim.owner,
                    });
                }
                // Of two entries of a unit the later counts.
                _ => {
                    served = Some(Served {
                        unit: claim.owner,
                        declared: claim.declared,
                    });
                }
            }
        }
        let rest = || {
            let (_, unit) = self
                .rest
                .iter()
                .find(|(segment, _)| *segment == at.segment())?;
            Some(Served {
                unit: *unit,
                declared: Declared::default(),
            })
        };
        served.or_else(rest).ok_or(Unserved::NoUnit(at))
    }

    /// The reserved regions that a function uses: indices in [`IommuPlan::reserved`].
    pub fn reserved_for(&self, at: Sbdf) -> impl Iterator<Item = u8> + '_ {
        self.reserved
            .iter()
            .filter(move |claim| claim.takes(at))
            .map(|claim| claim.owner)
    }

    /// What the table says about address translation services of a function. A claim of
    /// [`AtsKind::BehindPort`] for a whole segment takes integrated devices too, which it is not about.
    pub fn ats_of<'a>(
        &'a self,
        plan: &'a IommuPlan,
        at: Sbdf,
    ) -> impl Iterator<Item = AtsKind> + 'a {
        let kind = |claim: &Claim| plan.ats.get(usize::from(claim.owner)).map(|ats| ats.kind);
        self.ats
            .iter()
            .filter(move |claim| claim.takes(at))
            .filter_map(kind)
    }

    /// Pairs of claims of different units that take the same functions.
    pub fn contested(&self) -> impl Iterator<Item = (Claim, Claim)> + '_ {
        self.units.iter().enumerate().flat_map(move |(index, one)| {
            let earlier = self.units.iter().take(index);
            earlier
                .filter(move |other| other.owner != one.owner && other.meets(one))
                .map(move |other| (*other, *one))
        })
    }
}
