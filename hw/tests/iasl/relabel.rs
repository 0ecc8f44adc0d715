//! Structures that `iasl` 20200925 does not know, under the type of one that it does
//! and that has the same layout: IVHD 40h as 11h (without entries of type F0h), SATC
//! and SIDP as ATSR, a generic port as an initiator.

use hw::acpi::{BlockKind, DeviceEntry, Ivrs, IvrsBlock};
use portcullis_hw as hw;

use super::ours::Decoded;
use crate::tables::seal;

/// The table with other types, if it has any of these structures.
pub fn relabel(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = match &bytes[..4] {
        b"DMAR" => retype(bytes, 2, &[(5, 2), (6, 2)]),
        b"SRAT" => retype(bytes, 1, &[(6, 5)]),
        b"IVRS" => mixed_as_extended(bytes),
        _ => return None,
    };
    if out == bytes {
        return None;
    }
    let length = (out.len() as u32).to_le_bytes();
    out[4..8].copy_from_slice(&length);
    seal(&mut out, 9);
    Some(out)
}

/// Where the records of a table begin and end, their lengths being at `length_at`.
fn records(bytes: &[u8], length_at: usize) -> Vec<(usize, usize)> {
    let mut at = 48;
    let mut found = Vec::new();
    while at < bytes.len() {
        let length = match length_at {
            1 => usize::from(bytes[at + 1]),
            _ => usize::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]])),
        };
        found.push((at, at + length));
        at += length;
    }
    found
}

fn retype(bytes: &[u8], length_at: usize, types: &[(u8, u8)]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (at, _) in records(bytes, length_at) {
        if let Some((_, to)) = types.iter().find(|(from, _)| *from == bytes[at]) {
            out[at] = *to;
        }
    }
    out
}

fn mixed_as_extended(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..48].to_vec();
    for (at, end) in records(bytes, 2) {
        let start = out.len();
        if bytes[at] != 0x40 {
            out.extend(&bytes[at..end]);
            continue;
        }
        out.extend(&bytes[at..at + 40]);
        let mut entry = at + 40;
        while entry < end {
            let length = match bytes[entry] {
                0x00..0x40 => 4,
                0x40..0x80 => 8,
                0xf0 => 22 + usize::from(bytes[entry + 21]),
                other => unreachable!("entry of type {other:#x}"),
            };
            if bytes[entry] != 0xf0 {
                out.extend(&bytes[entry..entry + length]);
            }
            entry += length;
        }
        let length = (out.len() - start) as u16;
        out[start] = 0x11;
        out[start + 2..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    out
}

/// Both tables say the same, but for what was changed. How many fields, or entries, say so.
pub fn same(original: &[u8], relabelled: &[u8]) -> usize {
    if original.starts_with(b"IVRS") {
        let (ours, theirs) = (units(original), units(relabelled));
        assert_eq!(ours, theirs);
        return ours.iter().map(Vec::len).sum();
    }
    // A SIDP has no flags.
    let fields = |bytes| {
        let mut fields = Decoded::of(bytes).fields;
        fields.retain(|field| !["Subtable Type", "Flags"].contains(&field.name));
        let fields = fields.into_iter();
        fields
            .map(|field| (field.offset, field.name, field.value))
            .collect::<Vec<_>>()
    };
    let ours = fields(original);
    assert_eq!(ours, fields(relabelled));
    ours.len()
}

/// What is said about the units that have images of feature registers.
fn units(bytes: &[u8]) -> Vec<Vec<String>> {
    let ivrs = Ivrs::parse(bytes).unwrap();
    let mut units = Vec::new();
    for block in ivrs.blocks() {
        let Ok(IvrsBlock::Unit(unit)) = block else {
            continue;
        };
        if unit.kind == BlockKind::Basic {
            continue;
        }
        let mut said = vec![format!(
            "{:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:?}",
            unit.id,
            unit.capability,
            unit.base,
            unit.segment,
            unit.information,
            unit.features,
            unit.extended_features,
            unit.extended_features_2,
            unit.flags
        )];
        let entries = unit.entries().map(Result::unwrap);
        let known = entries.filter(|entry| !matches!(entry, DeviceEntry::Acpi(_)));
        said.extend(known.map(|entry| format!("{entry:?}")));
        units.push(said);
    }
    units
}
