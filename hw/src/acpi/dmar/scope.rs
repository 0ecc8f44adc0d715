//! Device scopes: the devices that a structure of the DMAR is about, [`Scope`],
//! named by the way through bridges (VT-d 4.0, 8.3.1).

use core::iter::FusedIterator;

use heapless::Vec;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::Sbdf;
use crate::acpi::table::{Record, RecordHead, Rule, Span, TableError, body, record_head, records};

/// Longest path of a device scope that is understood.
pub const MAX_PATH: usize = 8;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawScope {
    kind: u8,
    length: u8,
    flags: u8,
    reserved: u8,
    enumeration_id: u8,
    bus: u8,
}

record_head!(RawScope);

/// What a device scope names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScopeKind {
    /// One function.
    Endpoint,
    /// A bridge and everything behind it.
    Bridge,
    /// An IOAPIC; its id is the enumeration id.
    IoApic,
    /// A timer block that sends MSIs; the enumeration id is its number.
    Hpet,
    /// A device that only ACPI's name space has; the enumeration id is its number in the table.
    NameSpace,
    /// A kind that this code does not know.
    Other(u8),
}

impl ScopeKind {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Endpoint,
            2 => Self::Bridge,
            3 => Self::IoApic,
            4 => Self::Hpet,
            5 => Self::NameSpace,
            other => Self::Other(other),
        }
    }
}

/// One step of a path: device and function on the bus that the step before leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathHop {
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// The way to a function through bridges, which stays true when buses are renumbered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// Bus that the path starts on.
    pub bus: u8,
    /// Bridges, then the function: at least one step.
    pub hops: Vec<PathHop, MAX_PATH, u8>,
}

/// A device that a remapping structure is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scope {
    /// What it names.
    pub kind: ScopeKind,
    /// Properties of the device; have a meaning in a [`super::Sidp`] only.
    pub flags: u8,
    /// Meaning depends on [`Self::kind`].
    pub enumeration_id: u8,
    /// The way to the device.
    pub path: Path,
}

/// The device scopes of a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scopes<'a>(pub(super) Span<'a>);

impl<'a> Scopes<'a> {
    /// The scopes in order. One with a bad value is an error and passed over.
    pub fn iter(&self) -> impl FusedIterator<Item = Result<Scope, TableError>> + 'a {
        self.records().map(body)
    }

    /// The scopes, and where they are.
    pub fn records(&self) -> impl FusedIterator<Item = Result<Record<Scope>, TableError>> + 'a {
        records(self.0, scope)
    }
}

fn scope(head: &RawScope, span: Span<'_>) -> Result<Scope, TableError> {
    let (_, steps) = span.record::<RawScope>()?;
    if steps.bytes.is_empty() || steps.bytes.len() % 2 != 0 {
        return Err(span.bad("length of a device scope", head.length));
    }
    let mut hops = Vec::new();
    for step in steps.bytes.chunks_exact(2) {
        let [device, function] = *step else {
            continue;
        };
        if device > Sbdf::MAX_DEVICE {
            return Err(span.bad("device in a path", device));
        }
        if function > Sbdf::MAX_FUNCTION {
            return Err(span.bad("function in a path", function));
        }
        hops.push(PathHop { device, function }).map_err(|_| {
            span.error(Rule::TooMany {
                what: "steps in a path",
                limit: MAX_PATH as u32,
            })
        })?;
    }
    Ok(Scope {
        kind: ScopeKind::from_byte(head.kind),
        flags: head.flags,
        enumeration_id: head.enumeration_id,
        path: Path {
            bus: head.bus,
            hops,
        },
    })
}
