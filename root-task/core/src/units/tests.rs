//! Plans of sample tables, in numbers.

use super::*;
use alloc::vec;
use hw::BusRange;
use hw::acpi::plan::NoTopology;

/// A table with its header and checksum.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.resize(36, 0);
    bytes.extend_from_slice(body);
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = sum.wrapping_neg();
    bytes
}

fn structure(kind: u16, rest: &[u8], scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let length = (4 + rest.len() + scopes.len()) as u16;
    [
        &kind.to_le_bytes()[..],
        &length.to_le_bytes(),
        rest,
        &scopes,
    ]
    .concat()
}

/// A device scope: its type, enumeration id, start bus and path.
fn names(kind: u8, id: u8, bus: u8, path: &[(u8, u8)]) -> Vec<u8> {
    let mut scope = vec![kind, 6 + 2 * path.len() as u8, 0, 0, id, bus];
    scope.extend(
        path.iter()
            .flat_map(|(device, function)| [*device, *function]),
    );
    scope
}

fn drhd(all: u8, segment: u16, base: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = vec![all, 0];
    rest.extend(segment.to_le_bytes());
    rest.extend(base.to_le_bytes());
    structure(0, &rest, scopes)
}

fn rmrr(base: u64, limit: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = vec![0; 4];
    rest.extend(base.to_le_bytes());
    rest.extend(limit.to_le_bytes());
    structure(1, &rest, scopes)
}

fn dmar(structures: &[Vec<u8>]) -> IommuPlan {
    let mut body = vec![38, 1];
    body.resize(12, 0);
    body.extend(structures.concat());
    IommuPlan::from_bytes(&table(b"DMAR", &body)).unwrap()
}

/// Bridges by requester id, with the buses behind each.
struct Bridges(Vec<(u16, u8, u8)>);

impl Topology for Bridges {
    fn behind(&self, bridge: Sbdf) -> Option<BusRange> {
        let found = self.0.iter().find(|(id, ..)| *id == bridge.requester_id());
        found.and_then(|(_, first, last)| BusRange::new(*first, *last))
    }
}

#[test]
fn scopes_are_followed_through_several_bridges() {
    let plan = dmar(&[
        drhd(
            0,
            0,
            0xfed9_0000,
            &[
                names(1, 0, 0, &[(2, 0)]),
                // 00:1c.0 leads to bus 3, there 00.0 to bus 4, there 01.0 is a bridge to 5 and 6.
                names(2, 0, 0, &[(0x1c, 0), (0, 0), (1, 0)]),
                names(3, 2, 0xf0, &[(0x1f, 0)]),
                names(4, 0, 0, &[(0x1f, 7)]),
            ],
        ),
        drhd(1, 0, 0xfed9_1000, &[]),
        rmrr(0x7b00_0000, 0x7b7f_ffff, &[names(1, 0, 0, &[(0x14, 0)])]),
    ]);
    let bridges = Bridges(vec![(0x00e0, 3, 6), (0x0300, 4, 6), (0x0408, 5, 6)]);
    let resolved = resolve(&plan, &bridges);
    assert_eq!(resolved.troubles, []);
    let [first, second] = &resolved.units[..] else {
        panic!()
    };
    assert_eq!(
        first.scopes,
        [
            Scope::Function(0x10),
            Scope::Function(0x0408),
            Scope::Buses(5, 6),
            Scope::IoApic {
                id: 2,
                requester: 0xf0f8
            },
            Scope::Hpet {
                id: 0,
                requester: 0x00ff
            },
        ]
    );
    assert_eq!((first.base, first.include_all), (0xfed9_0000, false));
    assert_eq!((second.scopes.len(), second.include_all), (0, true));
    assert_eq!(
        (first.kind, second.kind, first.function),
        (IommuChoice::Vtd, IommuChoice::Vtd, None)
    );
    let [region] = &resolved.reserved[..] else {
        panic!()
    };
    assert_eq!((region.base, region.last), (0x7b00_0000, 0x7b7f_ffff));
    assert_eq!(region.scopes[..], [Scope::Function(0xa0)]);
}

#[test]
fn bridges_without_buses_and_contests_are_told() {
    let behind = names(2, 0, 0, &[(0x1c, 0)]);
    let both = names(1, 0, 0, &[(2, 0)]);
    let plan = dmar(&[
        drhd(0, 0, 0xfed9_0000, &[behind.clone(), both.clone()]),
        drhd(0, 0, 0xfed9_1000, &[both]),
        rmrr(
            0x7b00_0000,
            0x7b7f_ffff,
            &[names(1, 0, 0, &[(0x1c, 0), (0, 0)])],
        ),
    ]);
    let resolved = resolve(&plan, &NoTopology);
    assert_eq!(
        resolved.troubles,
        [
            Trouble::Open { unit: 0, count: 1 },
            Trouble::Contested {
                first: 0,
                second: 1,
                from: 0x10,
                to: 0x10
            },
        ]
    );
    // The bridge itself is known, what is behind it is not; a region that nobody can use is none.
    assert_eq!(
        resolved.units[0].scopes,
        [Scope::Function(0x10), Scope::Function(0xe0)]
    );
    assert_eq!(resolved.reserved, []);
}

#[test]
fn too_many_scopes_are_joined_before_they_are_cut() {
    let functions = |step: u8| -> Vec<Vec<u8>> {
        let all = (0..32u8).flat_map(|device| (0..8u8).map(move |function| (device, function)));
        let some = all.filter(|(device, function)| (device * 8 + function).is_multiple_of(step));
        some.map(|(device, function)| names(1, 0, 0, &[(device, function)]))
            .take(80)
            .collect()
    };
    let one = |scopes: &[Vec<u8>]| resolve(&dmar(&[drhd(0, 0, 0xfed9_0000, scopes)]), &NoTopology);
    let neighbours = one(&functions(1));
    assert_eq!(neighbours.troubles, []);
    assert_eq!(neighbours.units[0].scopes, [Scope::Buses(0, 0)]);
    let apart = one(&functions(2));
    assert_eq!(apart.troubles, [Trouble::Scopes { unit: 0, count: 80 }]);
    assert_eq!(apart.units[0].scopes.len(), MAX_SCOPES);
    let few = one(&functions(1)[..3]);
    assert_eq!(few.units[0].scopes, [0, 1, 2].map(Scope::Function));
}

#[test]
fn amd_units_keep_their_ranges_and_their_own_function() {
    // IVHD type 10h of 00:00.2 at 0xfed80000: devices 00:01.0 to 1f:1f.6, the IOAPIC 33 by 00:14.0.
    let mut ivhd = vec![0x10, 0];
    let mut entries = vec![3, 0x08, 0, 0, 4, 0xfe, 0x1f, 0];
    entries.extend([0x48, 0, 0, 0, 33, 0xa0, 0, 1]);
    // Everything on bus 0x21 is 20:00.0 to the unit.
    entries.extend([0x43, 0x00, 0x21, 0, 0, 0x00, 0x20, 0]);
    entries.extend([4, 0xff, 0x21, 0]);
    ivhd.extend((24 + entries.len() as u16).to_le_bytes());
    ivhd.extend(2u16.to_le_bytes());
    ivhd.extend(0x40u16.to_le_bytes());
    ivhd.extend(0xfed8_0000u64.to_le_bytes());
    ivhd.extend([0; 8]);
    ivhd.extend(entries);
    // IVMD of one device (21h): 00:02.0 reads and writes 0x7c000000 and 1 MiB.
    let mut ivmd = vec![0x21, 0x08 | 0x04 | 0x02 | 0x01];
    ivmd.extend(32u16.to_le_bytes());
    ivmd.extend(0x10u16.to_le_bytes());
    ivmd.extend([0; 10]);
    ivmd.extend(0x7c00_0000u64.to_le_bytes());
    ivmd.extend(0x10_0000u64.to_le_bytes());
    // The same device reads the page before.
    let mut read_only = ivmd.clone();
    read_only[1] = 0x02 | 0x01;
    read_only[16..24].copy_from_slice(&0x7bff_f000u64.to_le_bytes());
    read_only[24..32].copy_from_slice(&0x1000u64.to_le_bytes());
    let mut body = vec![0; 12];
    body.extend(ivhd);
    body.extend(ivmd);
    body.extend(read_only);
    let plan = IommuPlan::from_bytes(&table(b"IVRS", &body)).unwrap();
    let resolved = resolve(&plan, &NoTopology);
    assert_eq!(resolved.troubles, []);
    let [unit] = &resolved.units[..] else {
        panic!()
    };
    assert_eq!((unit.kind, unit.base), (IommuChoice::AmdVi, 0xfed8_0000));
    assert_eq!(unit.function, Some(Sbdf::from_requester_id(0, 2)));
    assert_eq!(
        unit.scopes,
        [
            Scope::Buses(0, 0x1f),
            Scope::Buses(0x21, 0x21),
            Scope::IoApic {
                id: 33,
                requester: 0x00a0
            }
        ]
    );
    assert_eq!(resolved.reserved[0].scopes[..], [Scope::Function(0x10)]);
    assert_eq!(resolved.reserved[0].last, 0x7c0f_ffff);
    let used: Vec<_> = resolved.reserved.iter().map(|region| region.used).collect();
    assert_eq!(used, [ReservedUse::ReadWrite, ReservedUse::Read]);
    let alias = AliasRange {
        segment: 0,
        first: 0x2100,
        last: 0x21ff,
        alias: 0x2000,
    };
    assert_eq!(resolved.aliases, [alias]);
}

#[test]
fn a_bus_of_two_units_is_not_widened_over_the_other() {
    let all = (0..32u8).flat_map(|device| (0..8u8).map(move |function| (device, function)));
    let some = all
        .take(40)
        .map(|(device, function)| names(1, 0, 0, &[(device, function)]));
    let some: Vec<_> = some.collect();
    let plan = dmar(&[
        drhd(0, 0, 0xfed9_0000, &some),
        drhd(0, 0, 0xfed9_1000, &[names(1, 0, 0, &[(31, 0)])]),
    ]);
    let resolved = resolve(&plan, &NoTopology);
    assert_eq!(resolved.troubles, [Trouble::Scopes { unit: 0, count: 40 }]);
    let kept = resolved.units[0].scopes.iter();
    assert!(kept.eq((0..32).map(Scope::Function).collect::<Vec<_>>().iter()));
    assert_eq!(resolved.units[1].scopes, [Scope::Function(0xf8)]);
}
