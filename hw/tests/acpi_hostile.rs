//! ACPI tables cut at every byte, changed at every byte, or of any bytes: what is
//! wrong gives an error, and nothing panics or goes on for ever.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use hw::acpi::plan::NoTopology;
use hw::acpi::{
    Dmar, Hpet, InterruptPlan, IommuPlan, Ivrs, IvrsBlock, Madt, Mcfg, ProximityPlan, Record,
    Remapping, RootTable, Rsdp, Rule, Signature, Slit, Srat, TableError,
};
use portcullis_hw as hw;
use proptest::prelude::*;
use tables::{full_dmar, full_ivrs, full_madt, full_srat, hpet, mcfg, rsdp, seal, slit, table};

#[test]
fn broken_root_pointers_are_refused() {
    for revision in [0, 2] {
        let good = rsdp(revision, 0x1000, 0x2000);
        for length in 0..good.len() {
            let refused = Rsdp::parse(&good[..length]).unwrap_err();
            assert!(matches!(refused.rule, Rule::Truncated { .. }), "{refused}");
        }
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x10;
            assert!(Rsdp::parse(&bad).is_err(), "byte {index} changed");
        }
    }
}

/// Reads everything that there is in a table, whatever it is.
fn read_all(bytes: &[u8]) -> usize {
    let mut records = 0;
    if let Ok(mcfg) = Mcfg::parse(bytes) {
        records += mcfg.windows().count();
    }
    if let Ok(madt) = Madt::parse(bytes) {
        records += madt.entries().count();
    }
    if let Ok(dmar) = Dmar::parse(bytes) {
        for structure in dmar.structures() {
            records += 1 + match structure {
                Ok(Remapping::Drhd(unit)) => unit.scopes.iter().count(),
                Ok(Remapping::Rmrr(region)) => region.scopes.iter().count(),
                Ok(Remapping::Atsr(ports)) => ports.scopes.iter().count(),
                Ok(Remapping::Satc(devices)) => devices.scopes.iter().count(),
                Ok(Remapping::Sidp(devices)) => devices.scopes.iter().count(),
                _ => 0,
            };
        }
    }
    if let Ok(ivrs) = Ivrs::parse(bytes) {
        for block in ivrs.blocks() {
            records += 1 + match block {
                Ok(IvrsBlock::Unit(unit)) => unit.entries().count(),
                _ => 0,
            };
        }
    }
    if let Ok(srat) = Srat::parse(bytes) {
        records += srat.entries().count();
    }
    if let Ok(slit) = Slit::parse(bytes) {
        records += slit.localities() * slit.localities();
    }
    let _ = Hpet::parse(bytes);
    let _ = InterruptPlan::from_bytes(bytes);
    let _ = ProximityPlan::from_bytes(bytes);
    if let Ok(plan) = IommuPlan::from_bytes(bytes) {
        assert!(plan.claims(&NoTopology).is_ok());
        assert!(!plan.show(&NoTopology).to_string().is_empty());
    }
    for kind in [Signature::RSDT, Signature::XSDT] {
        if let Ok(root) = RootTable::parse(bytes, kind) {
            records += root.addresses().count();
        }
    }
    records
}

fn all_tables() -> Vec<Vec<u8>> {
    vec![
        mcfg(&[(0xb000_0000, 0, 0, 255), (0xc000_0000, 1, 0, 63)]),
        full_dmar(),
        full_madt(),
        hpet(0, 0xfed0_0000),
        full_ivrs(),
        full_srat(),
        slit(4, &[10; 16]),
        table(b"XSDT", &[0x10; 64]),
    ]
}

#[test]
fn a_table_cut_anywhere_is_refused_as_truncated() {
    for good in all_tables() {
        let signature = Signature([good[0], good[1], good[2], good[3]]);
        for length in 0..good.len() {
            let cut = &good[..length];
            let refused = match &signature.0 {
                b"MCFG" => Mcfg::parse(cut).map(|_| ()),
                b"DMAR" => Dmar::parse(cut).map(|_| ()),
                b"APIC" => Madt::parse(cut).map(|_| ()),
                b"HPET" => Hpet::parse(cut).map(|_| ()),
                b"IVRS" => Ivrs::parse(cut).map(|_| ()),
                b"SRAT" => Srat::parse(cut).map(|_| ()),
                b"SLIT" => Slit::parse(cut).map(|_| ()),
                _ => RootTable::parse(cut, signature).map(|_| ()),
            };
            let refused = refused.unwrap_err();
            assert_eq!(refused.table, signature);
            assert!(matches!(refused.rule, Rule::Truncated { .. }), "{refused}");
        }
    }
}

#[test]
fn a_table_that_says_it_is_shorter_is_read_to_there_or_refused() {
    for good in all_tables() {
        for length in 0..good.len() {
            let mut short = good.clone();
            short[4..8].copy_from_slice(&(length as u32).to_le_bytes());
            if length > 9 {
                seal(&mut short[..length], 9);
            }
            assert!(read_all(&short) <= good.len());
        }
    }
}

#[test]
fn every_changed_byte_is_noticed_by_the_checksum() {
    for good in all_tables() {
        assert!(read_all(&good) > 0 || good.starts_with(b"HPET"));
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            assert_eq!(read_all(&bad), 0, "byte {index} changed");
        }
    }
}

/// Every length in a table: where it is, its bytes, and where what it is about begins and ends.
/// Found from what the readers say about the whole table.
fn lengths(table: &[u8]) -> Vec<(usize, usize, usize, usize)> {
    fn ends<T>(record: &Record<T>) -> (usize, usize) {
        let start = record.offset as usize;
        (start, start + record.length as usize)
    }
    let mut found = Vec::new();
    let mut add = |at: usize, width: usize, (start, end): (usize, usize)| {
        found.push((start + at, width, start, end));
    };
    match &table[..4] {
        b"APIC" => {
            let madt = Madt::parse(table).unwrap();
            madt.records().for_each(|r| add(1, 1, ends(&r.unwrap())));
        }
        b"SRAT" => {
            let srat = Srat::parse(table).unwrap();
            srat.records().for_each(|r| add(1, 1, ends(&r.unwrap())));
        }
        b"IVRS" => {
            let ivrs = Ivrs::parse(table).unwrap();
            ivrs.records().for_each(|r| add(2, 2, ends(&r.unwrap())));
        }
        b"DMAR" => {
            let dmar = Dmar::parse(table).unwrap();
            for record in dmar.records().map(Result::unwrap) {
                add(2, 2, ends(&record));
                let scopes = match record.body {
                    Remapping::Drhd(unit) => unit.scopes,
                    Remapping::Rmrr(region) => region.scopes,
                    Remapping::Atsr(ports) => ports.scopes,
                    Remapping::Satc(devices) => devices.scopes,
                    Remapping::Sidp(devices) => devices.scopes,
                    _ => continue,
                };
                scopes.records().for_each(|r| add(1, 1, ends(&r.unwrap())));
            }
        }
        _ => {}
    }
    found
}

/// All errors of a table, of whatever depth.
fn errors(table: &[u8]) -> Vec<TableError> {
    let mut errors = Vec::new();
    match &table[..4] {
        b"APIC" => errors.extend(
            Madt::parse(table)
                .unwrap()
                .entries()
                .filter_map(Result::err),
        ),
        b"SRAT" => errors.extend(
            Srat::parse(table)
                .unwrap()
                .entries()
                .filter_map(Result::err),
        ),
        b"IVRS" => {
            for block in Ivrs::parse(table).unwrap().blocks() {
                match block {
                    Ok(IvrsBlock::Unit(unit)) => {
                        errors.extend(unit.entries().filter_map(Result::err));
                    }
                    Ok(_) => {}
                    Err(error) => errors.push(error),
                }
            }
        }
        _ => {
            for structure in Dmar::parse(table).unwrap().structures() {
                let scopes = match structure {
                    Ok(Remapping::Drhd(unit)) => unit.scopes,
                    Ok(Remapping::Rmrr(region)) => region.scopes,
                    Ok(Remapping::Atsr(ports)) => ports.scopes,
                    Ok(Remapping::Satc(devices)) => devices.scopes,
                    Ok(Remapping::Sidp(devices)) => devices.scopes,
                    Ok(_) => continue,
                    Err(error) => {
                        errors.push(error);
                        continue;
                    }
                };
                errors.extend(scopes.iter().filter_map(Result::err));
            }
        }
    }
    errors
}

#[test]
fn a_length_of_nothing_or_beyond_the_end_is_a_typed_error() {
    let mut lengths_tried = 0;
    for good in [full_dmar(), full_ivrs(), full_madt(), full_srat()] {
        assert_eq!(errors(&good), []);
        for (at, width, start, end) in lengths(&good) {
            let most = if width == 1 { 0xff } else { 0xffff };
            let rest = good.len() - start;
            for length in [0, 1, rest + 1, most] {
                // A length of one byte cannot name all of a long table.
                if length > most || (1 < length && length <= rest) {
                    continue;
                }
                let mut bad = good.clone();
                bad[at..at + width].copy_from_slice(&length.to_le_bytes()[..width]);
                seal(&mut bad, 9);
                let errors = errors(&bad);
                let found = errors.iter().find(|error| error.offset as usize == start);
                let found = found.unwrap_or_else(|| unreachable!("{start}..{end}: {errors:?}"));
                let expected = match length {
                    0 | 1 => matches!(found.rule, Rule::RecordTooShort { .. }),
                    _ => matches!(found.rule, Rule::RecordBeyondEnd { .. }),
                };
                assert!(expected, "{found}");
                assert_eq!(&found.table.0, &good[..4]);
                lengths_tried += 1;
            }
        }
    }
    assert!(lengths_tried > 100, "{lengths_tried}");
}

/// Each record loses its last bytes, one by one; its length and the table's follow. Where fields
/// are missing the error says so; lists only become shorter. What holds a nested record keeps its
/// length, and so takes bytes of what is next.
#[test]
fn a_record_without_its_last_fields_is_a_typed_error() {
    let mut refused = 0;
    for good in [full_dmar(), full_ivrs(), full_madt(), full_srat()] {
        for (at, width, start, end) in lengths(&good) {
            let head = at - start + width;
            for cut in 1..end - start - head {
                let mut bad = good.clone();
                bad.drain(end - cut..end);
                let length = end - start - cut;
                bad[at..at + width].copy_from_slice(&length.to_le_bytes()[..width]);
                let whole = (bad.len() as u32).to_le_bytes();
                bad[4..8].copy_from_slice(&whole);
                seal(&mut bad, 9);
                for error in errors(&bad) {
                    let rule = matches!(
                        error.rule,
                        Rule::RecordTooShort { .. }
                            | Rule::RecordBeyondEnd { .. }
                            | Rule::BadValue { .. }
                    );
                    assert!(rule && error.offset as usize <= bad.len(), "{error}");
                    refused += 1;
                }
                let _ = IommuPlan::from_bytes(&bad);
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

proptest! {
    #[test]
    fn resealed_changes_never_panic(
        which in 0usize..8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = all_tables().swap_remove(which);
        for (index, value) in changes {
            // Signature and length stay: behind them it gets interesting.
            let index = 8 + index.index(bytes.len() - 8);
            bytes[index] = value;
        }
        seal(&mut bytes, 9);
        prop_assert!(read_all(&bytes) <= bytes.len());
    }

    #[test]
    fn any_bytes_behind_a_valid_header_never_panic(
        signature in prop::sample::select(vec![
            *b"MCFG", *b"DMAR", *b"APIC", *b"HPET", *b"IVRS", *b"SRAT", *b"SLIT", *b"XSDT", *b"RSDT",
        ]),
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..20], 0..400),
    ) {
        let bytes = table(&signature, &body);
        prop_assert!(read_all(&bytes) <= bytes.len());
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(read_all(&bytes), 0);
        let _ = Rsdp::parse(&bytes);
        let _ = Rsdp::find(&bytes);
    }
}
