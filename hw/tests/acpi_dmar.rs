//! A DMAR built byte by byte here, read by `hw::acpi`: structures, scopes, and which
//! rule each broken one breaks.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use hw::acpi::{
    Dmar, DmarFlags, IommuPlan, MAX_PATH, Remapping, Rule, Scope, ScopeKind, Signature, TableError,
};
use portcullis_hw as hw;
use tables::{dmar, drhd, full_dmar, listing, remapping, rmrr, scope};

fn error(table: Signature, offset: u32, rule: Rule) -> TableError {
    TableError {
        table,
        offset,
        rule,
    }
}

#[test]
fn remapping_structures_are_read() {
    let bytes = full_dmar();
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.host_address_bits, 39);
    assert_eq!(
        dmar.flags,
        DmarFlags::INTERRUPT_REMAPPING | DmarFlags::X2APIC_OPT_OUT
    );
    let all: Vec<_> = dmar.structures().map(Result::unwrap).collect();
    let [
        Remapping::Drhd(graphics),
        Remapping::Drhd(rest),
        Remapping::Rmrr(region),
        Remapping::Atsr(ports),
        Remapping::Rhsa(domain),
        Remapping::Andd(device),
        Remapping::Satc(caches),
        Remapping::Sidp(properties),
        Remapping::Other { kind: 9, length: 8 },
    ] = all[..]
    else {
        unreachable!("{all:?}");
    };
    assert_eq!(
        (graphics.include_all, graphics.base, graphics.size),
        (false, 0xfed9_0000, 0x1000)
    );
    let scopes: Vec<_> = graphics.scopes.iter().map(Result::unwrap).collect();
    assert_eq!(
        (scopes.len(), scopes[0].kind, scopes[0].path.bus),
        (1, ScopeKind::Endpoint, 0)
    );
    assert_eq!((rest.include_all, rest.size), (true, 0x2000));
    let kinds: Vec<_> = rest
        .scopes
        .iter()
        .map(|s| s.unwrap())
        .map(|s| (s.kind, s.enumeration_id))
        .collect();
    assert_eq!(
        kinds,
        [
            (ScopeKind::IoApic, 2),
            (ScopeKind::Hpet, 0),
            (ScopeKind::NameSpace, 1)
        ]
    );
    assert_eq!((region.base, region.limit), (0x7a00_0000, 0x7a0f_ffff));
    assert_eq!(
        region.scopes.iter().next().unwrap().unwrap().path.hops[0].device,
        0x14
    );
    assert!(!ports.all_ports);
    assert_eq!(
        ports.scopes.iter().next().unwrap().unwrap().kind,
        ScopeKind::Bridge
    );
    assert_eq!((domain.base, domain.domain), (0xfed9_1000, 3));
    assert_eq!((device.number, device.name), (1, "\\_SB.X"));
    assert!(caches.required);
    let kind = |scope: Result<Scope, _>| scope.unwrap().kind;
    assert_eq!(
        caches.scopes.iter().map(kind).collect::<Vec<_>>(),
        [ScopeKind::Endpoint]
    );
    assert_eq!(
        (properties.segment, properties.scopes.iter().count()),
        (0, 1)
    );
}

#[test]
fn a_bad_structure_is_an_error_and_the_next_is_read() {
    let bytes = dmar(
        0,
        &[
            drhd(0, 0, 0, 0xfed9_0010, &[]),
            rmrr(0x1000, 0x0fff, &[]),
            rmrr(
                0x1000,
                0x1fff,
                &[scope(1, 0, 0, &[(32, 0)]), scope(1, 0, 0, &[(1, 8)])],
            ),
            remapping(0, &[0; 4]),
            drhd(1, 0, 0, 0xfed9_0000, &[]),
        ],
    );
    let all: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
    let bad =
        |offset, field, value| error(Signature::DMAR, offset, Rule::BadValue { field, value });
    assert_eq!(all[0], Err(bad(48, "register base address", 0xfed9_0010)));
    assert_eq!(all[1], Err(bad(64, "reserved region's limit", 0x0fff)));
    let Ok(Remapping::Rmrr(region)) = all[2] else {
        unreachable!("{:?}", all[2]);
    };
    let scopes: Vec<_> = region.scopes.iter().collect();
    assert_eq!(scopes[0], Err(bad(112, "device in a path", 32)));
    assert_eq!(scopes[1], Err(bad(120, "function in a path", 8)));
    let short = Rule::RecordTooShort {
        length: 8,
        minimum: 16,
    };
    assert_eq!(all[3], Err(error(Signature::DMAR, 128, short)));
    assert!(matches!(all[4], Ok(Remapping::Drhd(unit)) if unit.include_all));
    assert_eq!(
        IommuPlan::from_bytes(&bytes),
        Err(bad(48, "register base address", 0xfed9_0010))
    );
}

#[test]
fn records_that_do_not_fit_end_the_iteration() {
    for (length, expected) in [
        (
            0u16,
            Rule::RecordTooShort {
                length: 0,
                minimum: 4,
            },
        ),
        (
            3,
            Rule::RecordTooShort {
                length: 3,
                minimum: 4,
            },
        ),
        (
            0x100,
            Rule::RecordBeyondEnd {
                length: 0x100,
                available: 32,
            },
        ),
    ] {
        let mut broken = drhd(0, 0, 0, 0xfed9_0000, &[]);
        broken[2..4].copy_from_slice(&length.to_le_bytes());
        let bytes = dmar(0, &[broken, drhd(1, 0, 0, 0xfed9_1000, &[])]);
        let all: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
        assert_eq!(all, [Err(error(Signature::DMAR, 48, expected))]);
    }
    // Bytes left over that are no head.
    let bytes = dmar(0, &[vec![0, 0, 16]]);
    let all: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
    let rule = Rule::RecordBeyondEnd {
        length: 4,
        available: 3,
    };
    assert_eq!(all, [Err(error(Signature::DMAR, 48, rule))]);
}

#[test]
fn scopes_are_checked() {
    let unit = |scope: Vec<u8>| {
        let bytes = dmar(0, &[drhd(0, 0, 0, 0xfed9_0000, &[scope])]);
        let first = Dmar::parse(&bytes).unwrap().structures().next().unwrap();
        let Ok(Remapping::Drhd(unit)) = first else {
            unreachable!("{first:?}");
        };
        unit.scopes.iter().next().unwrap()
    };
    let path = [(1, 0); MAX_PATH];
    assert_eq!(
        unit(scope(2, 0, 0, &path)).unwrap().path.hops.len(),
        MAX_PATH
    );
    let (what, limit) = ("steps in a path", MAX_PATH as u32);
    let long = [(1, 0); MAX_PATH + 1];
    let too_many = error(Signature::DMAR, 64, Rule::TooMany { what, limit });
    assert_eq!(unit(scope(2, 0, 0, &long)), Err(too_many));
    let (field, value) = ("length of a device scope", 6);
    let no_path = error(Signature::DMAR, 64, Rule::BadValue { field, value });
    assert_eq!(unit(scope(1, 0, 0, &[])), Err(no_path));
    let other = unit(scope(9, 0, 0, &[(1, 0)])).unwrap();
    assert_eq!(other.kind, ScopeKind::Other(9));
}

#[test]
fn names_are_text() {
    let name = |bytes: &[u8]| {
        let bytes = dmar(0, &[remapping(4, bytes)]);
        let first = Dmar::parse(&bytes).unwrap().structures().next().unwrap();
        first.map(|structure| match structure {
            Remapping::Andd(device) => device.name.to_owned(),
            other => unreachable!("{other:?}"),
        })
    };
    assert_eq!(name(b"\0\0\0\x01\\_SB.X\0junk").unwrap(), "\\_SB.X");
    // Firmware that leaves the last zero out.
    assert_eq!(name(b"\0\0\0\x01\\_SB").unwrap(), "\\_SB");
    for (odd, value) in [
        (&b"\0\0\0\x01A B\0"[..], 0x20),
        (b"\0\0\0\x01\xc3\xa4\0", 0xc3),
    ] {
        let field = "character in a device's name";
        let refused = error(Signature::DMAR, 48, Rule::BadValue { field, value });
        assert_eq!(name(odd), Err(refused));
    }
}

#[test]
fn records_say_where_they_are() {
    let bytes = full_dmar();
    let records: Vec<_> = Dmar::parse(&bytes).unwrap().records().collect();
    let mut offset = 48;
    for (record, kind) in records.iter().zip([0, 0, 1, 2, 3, 4, 5, 6, 9]) {
        let record = record.as_ref().unwrap();
        assert_eq!((record.offset, record.kind), (offset, kind));
        offset += record.length;
    }
    assert_eq!(offset as usize, bytes.len());
}

#[test]
fn all_ports_need_no_scopes() {
    let bytes = dmar(0, &[listing(2, 1, 3, &[])]);
    let first = Dmar::parse(&bytes).unwrap().structures().next().unwrap();
    assert!(matches!(first, Ok(Remapping::Atsr(ports)) if ports.all_ports && ports.segment == 3));
}
