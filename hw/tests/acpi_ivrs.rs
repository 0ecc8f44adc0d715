//! An IVRS built byte by byte here, read by `hw::acpi`: blocks, entries of all
//! kinds, and which rule each broken one breaks.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use hw::acpi::{
    BlockKind, Declared, DeviceEntry, DeviceSettings, Ivhd, Ivrs, IvrsBlock, MemoryFlags,
    MemoryUsers, Rule, Signature, TableError, Uid, UnitFlags,
};
use portcullis_hw as hw;
use tables::{acpi_entry, all_entries, entry, full_ivrs, ivhd, ivmd, ivrs, long_entry, seal};

fn error(offset: u32, rule: Rule) -> TableError {
    TableError {
        table: Signature::IVRS,
        offset,
        rule,
    }
}

fn bad(offset: u32, field: &'static str, value: u64) -> TableError {
    error(offset, Rule::BadValue { field, value })
}

/// The first block of a table, which is a unit.
fn unit(bytes: &[u8]) -> Ivhd<'_> {
    match Ivrs::parse(bytes).unwrap().blocks().next().unwrap() {
        Ok(IvrsBlock::Unit(unit)) => unit,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn blocks_are_read() {
    let bytes = full_ivrs();
    let ivrs = Ivrs::parse(&bytes).unwrap();
    assert_eq!(ivrs.physical_address_bits(), 48);
    assert_eq!(ivrs.virtual_address_bits(), 64);
    assert!(ivrs.protected_before_boot());
    let all: Vec<_> = ivrs.blocks().map(Result::unwrap).collect();
    let [
        IvrsBlock::Unit(basic),
        IvrsBlock::Unit(extended),
        IvrsBlock::Memory(everyone),
        IvrsBlock::Memory(one),
        IvrsBlock::Memory(range),
        IvrsBlock::Unit(mixed),
        IvrsBlock::Unit(second),
        IvrsBlock::Other {
            kind: 0x51,
            length: 32,
        },
    ] = all[..]
    else {
        unreachable!("{all:?}");
    };
    assert_eq!(
        [basic.kind, extended.kind, mixed.kind],
        [BlockKind::Basic, BlockKind::Extended, BlockKind::Mixed]
    );
    assert!(BlockKind::Basic < BlockKind::Extended && BlockKind::Extended < BlockKind::Mixed);
    assert_eq!((basic.id, basic.capability), (2, 0x40));
    assert_eq!((basic.base, basic.segment), (0xfd20_0000, 0));
    assert_eq!((basic.extended_features, basic.information), (0, 0x103));
    assert!(basic.flags.contains(UnitFlags::REMOTE_IOTLB));
    assert_eq!(extended.extended_features, 0x2465_77ef_a225_4afa);
    assert_eq!(mixed.extended_features_2, 0x10);
    assert_eq!((second.segment, second.base), (1, 0xfd28_0000));
    assert_eq!(
        (everyone.users, one.users),
        (MemoryUsers::All, MemoryUsers::One(0xc407))
    );
    assert_eq!((everyone.base, everyone.limit), (0x7d90_0000, 0x7d9f_ffff));
    assert!(one.flags.contains(MemoryFlags::EXCLUSION));
    assert_eq!(range.users, MemoryUsers::Range(0x300, 0x3ff));
    assert_eq!(range.limit, 0x1_0000_0fff);
}

#[test]
fn entries_of_all_kinds_are_read() {
    let bytes = ivrs(&[ivhd(0x11, 2, 0xfd20_0000, 0, &all_entries())]);
    let entries: Vec<_> = unit(&bytes).entries().map(Result::unwrap).collect();
    let settings = DeviceSettings::from_bits_retain;
    let with = |bits| Declared {
        settings: settings(bits),
        ..Declared::default()
    };
    let alias = |id| Declared {
        alias: Some(id),
        ..Declared::default()
    };
    let no_ats = Declared {
        ats_disabled: true,
        ..Declared::default()
    };
    let select = |id, declared| DeviceEntry::Select { id, declared };
    let start = |id, declared| DeviceEntry::RangeStart { id, declared };
    let expected = [
        DeviceEntry::Padding,
        DeviceEntry::All(with(0x80)),
        select(0x10, with(0)),
        start(0x18, with(1)),
        DeviceEntry::RangeEnd { id: 0xff },
        DeviceEntry::Padding,
        select(0x200, alias(0xa4)),
        start(0x300, alias(0xa5)),
        DeviceEntry::RangeEnd { id: 0x3ff },
        select(0x400, no_ats),
        start(0x408, no_ats),
        DeviceEntry::RangeEnd { id: 0x40f },
        DeviceEntry::IoApic {
            handle: 0x20,
            id: 0xa0,
            settings: settings(0xd7),
        },
        DeviceEntry::Hpet {
            handle: 0,
            id: 0xa0,
            settings: settings(0),
        },
    ];
    assert_eq!(entries, expected);
}

#[test]
fn devices_of_the_name_space_are_read() {
    let read = |entry: Vec<u8>| {
        let bytes = ivrs(&[ivhd(0x40, 2, 0xfd20_0000, 0, &[entry])]);
        let first = unit(&bytes).entries().next().unwrap();
        first.map(|entry| match entry {
            DeviceEntry::Acpi(device) => {
                assert_eq!((device.id, &device.hardware_id), (0xa5, b"AMDI0020"));
                match device.uid {
                    Uid::Text(text) => text.to_owned(),
                    Uid::Integer(number) => number.to_string(),
                    Uid::None => String::new(),
                }
            }
            other => unreachable!("{other:?}"),
        })
    };
    let device = |format, uid: &[u8]| read(acpi_entry(0xa5, b"AMDI0020", format, uid));
    assert_eq!(device(0, &[]).unwrap(), "");
    assert_eq!(device(1, &[1, 2]).unwrap(), "513");
    assert_eq!(device(1, &[0xff; 8]).unwrap(), u64::MAX.to_string());
    assert_eq!(device(2, b"\\_SB.FUR0").unwrap(), "\\_SB.FUR0");
    // The block begins at 48, its entries 40 bytes further.
    assert_eq!(device(1, &[0; 9]), Err(bad(88, "length of a number", 9)));
    assert_eq!(device(3, &[]), Err(bad(88, "format of a _UID", 3)));
    assert_eq!(device(2, b"A B"), Err(bad(88, "character in a _UID", 0x20)));
}

#[test]
fn entries_that_do_not_fit_end_the_block() {
    let read = |entries: &[Vec<u8>]| {
        let bytes = ivrs(&[ivhd(0x10, 2, 0xfd20_0000, 0, entries)]);
        unit(&bytes).entries().last().unwrap().map(|_| ())
    };
    let beyond = |length, available| {
        let rule = Rule::RecordBeyondEnd { length, available };
        Err(error(76, rule))
    };
    let first = entry(2, 1, 0);
    assert_eq!(read(&[first.clone(), vec![2, 0]]), beyond(4, 2));
    assert_eq!(read(&[first.clone(), entry(0x42, 1, 0)]), beyond(8, 4));
    assert_eq!(read(&[first.clone(), entry(0x80, 1, 0)]), beyond(16, 4));
    assert_eq!(read(&[first.clone(), entry(0xc0, 1, 0)]), beyond(32, 4));
    assert_eq!(read(&[first.clone(), entry(0xf0, 1, 0)]), beyond(22, 4));
    let mut long = acpi_entry(0, b"AMDI0020", 2, b"ABC");
    long.pop();
    assert_eq!(read(&[first.clone(), long]), beyond(25, 24));
    let unknown = Err(bad(76, "type of a device entry", 0xf1));
    assert_eq!(read(&[first.clone(), vec![0xf1; 64]]), unknown);
    // Kinds whose length is known are passed over.
    let padded = [
        vec![0x80; 16],
        vec![0xc0; 32],
        long_entry(0x7f, 0, 0, [0; 4]),
        first,
    ];
    assert_eq!(read(&padded), Ok(()));
}

#[test]
fn broken_blocks_are_errors_by_themselves() {
    let short = |kind, length: u16| {
        let mut block = ivhd(kind, 2, 0xfd20_0000, 0, &[]);
        block.truncate(usize::from(length));
        block[2..4].copy_from_slice(&length.to_le_bytes());
        block
    };
    let too_short = |offset, length, minimum| {
        let rule = Rule::RecordTooShort { length, minimum };
        Err(error(offset, rule))
    };
    for (block, refused) in [
        (short(0x10, 23), too_short(48, 23, 24)),
        (short(0x11, 24), too_short(48, 24, 40)),
        (short(0x40, 39), too_short(48, 39, 40)),
        (
            ivhd(0x10, 2, 0xfd20_1000, 0, &[]),
            Err(bad(48, "register base address", 0xfd20_1000)),
        ),
        (
            ivmd(0x22, 1, 9, 8, 0x1000, 0x1000),
            Err(bad(48, "last device of a memory block", 8)),
        ),
        (
            ivmd(0x20, 1, 0, 0, 0x1001, 0x1000),
            Err(bad(48, "reserved region's base", 0x1001)),
        ),
        (
            ivmd(0x20, 1, 0, 0, 0x1000, 0),
            Err(bad(48, "reserved region's length", 0)),
        ),
        (
            ivmd(0x20, 1, 0, 0, u64::MAX - 0xfff, 0x2000),
            Err(bad(48, "reserved region's length", 0x2000)),
        ),
    ] {
        let bytes = ivrs(&[block, ivhd(0x10, 2, 0xfd20_0000, 0, &[])]);
        let all: Vec<_> = Ivrs::parse(&bytes).unwrap().blocks().collect();
        assert_eq!(all[0].map(|_| ()), refused);
        assert!(matches!(all[1], Ok(IvrsBlock::Unit(_))));
    }
    let mut empty = ivrs(&[ivhd(0x10, 2, 0xfd20_0000, 0, &[])]);
    empty[50] = 0;
    seal(&mut empty, 9);
    let all: Vec<_> = Ivrs::parse(&empty).unwrap().blocks().collect();
    let rule = Rule::RecordTooShort {
        length: 0,
        minimum: 4,
    };
    assert_eq!(all, [Err(error(48, rule))]);
}

#[test]
fn a_unit_with_counters_has_more_registers() {
    let with = |features: u32| {
        let mut block = ivhd(0x10, 2, 0xfd20_0000, 0, &[]);
        block[20..24].copy_from_slice(&features.to_le_bytes());
        let bytes = ivrs(&[block]);
        unit(&bytes).register_bytes()
    };
    assert_eq!(with(0), 0x4000);
    assert_eq!(with(0x8004_8f6e), 0x8_0000);
    assert_eq!(with(0x0004_0200), 0x4000);
    // The wider blocks tell by an extended feature.
    let with = |features: u64| {
        let mut block = ivhd(0x11, 2, 0xfd20_0000, 0, &[]);
        block[24..32].copy_from_slice(&features.to_le_bytes());
        let bytes = ivrs(&[block]);
        unit(&bytes).register_bytes()
    };
    assert_eq!(with(1 << 9), 0x8_0000);
    assert_eq!(with(!(1 << 9)), 0x4000);
}
