//! What `iasl` makes of source text is read as the text says. Without `iasl` nothing is shown, and that is said.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use root_core::aml::resources::Resources;
use root_core::aml::{HostBridge, Reader, Said};
use root_core::region::Region;
use std::path::PathBuf;
use std::process::Command;

/// Translates tables and reads them, the DSDT first; `None` where there is no `iasl`.
fn read(test: &str, tables: &[(&str, &str)]) -> Option<Said> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("aml-{test}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut reader = Reader::default();
    for (number, (signature, body)) in tables.iter().enumerate() {
        let source = folder.join(format!("{number}.asl"));
        let text = format!(
            "DefinitionBlock (\"\", \"{signature}\", 2, \"TEST\", \"TABLE{number}\", 1) {{\n{body}\n}}"
        );
        std::fs::write(&source, text).unwrap();
        let prefix = folder.join(number.to_string());
        let run = Command::new("iasl")
            .args(["-vs", "-ve", "-p"])
            .arg(&prefix)
            .arg(&source)
            .output();
        let Ok(run) = run else {
            eprintln!("NOT TESTED: there is no iasl (Debian: acpica-tools)");
            return None;
        };
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stdout)
        );
        reader.table(&std::fs::read(prefix.with_extension("aml")).unwrap());
    }
    Some(reader.said())
}

const fn host(segment: u16, bus: u8, proximity: Option<u32>) -> HostBridge {
    HostBridge {
        segment,
        bus,
        proximity,
        resources: None,
    }
}

#[test]
fn constants_of_all_forms_are_read() {
    let dsdt = r#"
        Scope (\_SB) {
            Device (PCI0) { Name (_HID, EisaId ("PNP0A08")) Name (_CID, EisaId ("PNP0A03")) Name (_PXM, Zero) }
            Device (PC40) { Name (_HID, "PNP0A08") Name (_BBN, 0x40) Name (_PXM, One) }
            Device (PC80) {
                Name (_HID, "ACPI0016")
                Name (_CID, Package () { "ABCD1234", EisaId ("PNP0A08") })
                Method (_BBN) { Return (0x80) }
                Method (_SEG, 0, NotSerialized) { Return (One) }
                Name (_PXM, 0x12345678)
            }
            Device (PCC0) { Name (_HID, EisaId ("PNP0A03")) Name (_BBN, 0xC0) }
            Device (LNKA) { Name (_HID, EisaId ("PNP0C0F")) Name (_PXM, 7) }
        }"#;
    let Some(said) = read("constants", &[("DSDT", dsdt)]) else {
        return;
    };
    let expected = [
        host(0, 0, Some(0)),
        host(0, 0x40, Some(1)),
        host(1, 0x80, Some(0x1234_5678)),
        host(0, 0xc0, None),
    ];
    assert_eq!(said.hosts, expected);
    assert_eq!((said.code, said.skipped), (0, 0));
}

#[test]
fn a_later_table_adds_to_a_device_and_a_module_lends_its_domain() {
    let dsdt = r#"
        Device (\_SB.MOD0) {
            Name (_HID, "ACPI0004") Name (_PXM, 3)
            Device (PC20) { Name (_HID, EisaId ("PNP0A08")) Name (_BBN, 0x20) }
        }
        Device (\_SB.PC60) { Name (_HID, EisaId ("PNP0A08")) Name (_BBN, 0x60) }"#;
    let ssdt = r#"
        External (\_SB.PC60, DeviceObj)
        Scope (\_SB.PC60) { Name (_PXM, 2) }"#;
    let Some(said) = read("later", &[("DSDT", dsdt), ("SSDT", ssdt)]) else {
        return;
    };
    assert_eq!(said.hosts, [host(0, 0x20, Some(3)), host(0, 0x60, Some(2))]);
}

#[test]
fn what_only_code_says_is_not_guessed() {
    let dsdt = r#"
        Name (\FLAG, 1)
        Device (\_SB.PC00) {
            Name (_HID, EisaId ("PNP0A08"))
            Method (_PXM) { If (\FLAG) { Return (1) } Return (2) }
        }
        Device (\_SB.PC01) {
            Name (_HID, EisaId ("PNP0A08"))
            Method (_BBN) { Return (Add (\FLAG, 4)) }
        }"#;
    let Some(said) = read("code", &[("DSDT", dsdt)]) else {
        return;
    };
    // The bus of the second is not known, so nothing of it is.
    assert_eq!((said.hosts, said.code), (vec![host(0, 0, None)], 2));
}

#[test]
fn everything_else_that_firmware_declares_is_passed_over() {
    let dsdt = r#"
        Name (BUF0, Buffer (0x20) { 1, 2, 3 })
        CreateDWordField (BUF0, 4, DW00)
        CreateField (BUF0, 3, 9, FLD0)
        CreateBitField (BUF0, 7, BIT0)
        OperationRegion (DBG0, SystemIO, 0x402, One)
        Field (DBG0, ByteAcc, NoLock, Preserve) { DBGB, 8 }
        Name (BASE, 0xFED40000)
        OperationRegion (TPM0, SystemMemory, Add (BASE, 0x20), ShiftLeft (1, Subtract (BASE, 0xFED3FFF0)))
        Field (TPM0, DWordAcc, NoLock, Preserve) { Offset (4), REG0, 32, , 3, REG1, 5 }
        IndexField (DBGB, REG1, ByteAcc, NoLock, Preserve) { IDX0, 8 }
        BankField (TPM0, REG1, 2, ByteAcc, NoLock, Preserve) { BNK0, 8 }
        Mutex (MUT0, 1)
        Event (EVT0)
        Alias (BASE, BAS2)
        Name (PKG0, Package () { 1, "text", Package () { BASE, 0xFFFFFFFFFFFFFFFF }, Buffer () { 9 } })
        PowerResource (PWR0, 0, 0) { Method (_STA) { Return (1) } Method (_ON) { } Method (_OFF) { } }
        ThermalZone (TZ00) { Method (_TMP) { Return (3000) } }
        Processor (\_SB.CPU0, 0, 0x410, 6) { }
        Method (LOOP, 2, Serialized, 3) { While (One) { Store (Arg0, Local0) Increment (Local0) } Return (Local0) }
        If (One) { Name (COND, 5) } Else { Name (CON2, 6) }
        Store (BASE, DW00)
        Device (\_SB.PC00) {
            Name (_CRS, ResourceTemplate () {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
            })
            Name (_HID, EisaId ("PNP0A08"))
            Method (_PRT) { Return (Package () { Package () { 0xFFFF, 0, 0, 16 } }) }
            Name (_PXM, 4)
        }"#;
    let Some(said) = read("everything", &[("DSDT", dsdt)]) else {
        return;
    };
    let passed = Resources {
        buses: Some(hw::BusRange::ALL),
        ..Resources::default()
    };
    let declared = HostBridge {
        resources: Some(passed),
        ..host(0, 0, Some(4))
    };
    assert_eq!(said.hosts, [declared]);
    // The block under the condition is not run.
    assert_eq!((said.code, said.skipped), (0, 1));
}

/// What the one host bridge with this template passes on, and how many bridges are not known.
fn passes(test: &str, template: &str) -> Option<(Option<Resources>, usize)> {
    let dsdt = format!(
        "Device (\\_SB.PCI0) {{ Name (_CRS, ResourceTemplate () {{ {template} }}) Name (_HID, EisaId (\"PNP0A08\")) }}"
    );
    let said = read(test, &[("DSDT", &dsdt)])?;
    let [host] = &said.hosts[..] else {
        panic!("{said:?}")
    };
    Some((host.resources.clone(), said.unknown_resources))
}

fn region(first: u64, last: u64) -> Region {
    Region::new(first, last + 1).unwrap()
}

#[test]
fn ranges_that_a_host_bridge_passes_on_are_read_in_all_forms() {
    // As QEMU's q35 has it, and the other forms.
    let template = r"
        WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0x7F, 0, 0x80)
        IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
        WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0, 0x0CF7, 0, 0x0CF8)
        WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0D00, 0xFFFF, 0, 0xF300)
        DWordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0, 0, 0, 0, , , NONE)
        DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite, 0, 0xA0000, 0xBFFFF, 0, 0x20000)
        QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0, 0x800000000, 0xFFFFFFFFF, 0, 0x800000000)
        ExtendedMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0, 0xC0000000, 0xCFFFFFFF, 0, 0x10000000)
        DWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadOnly, 0, 0x1000, 0x1FFF, 0, 0x1000)
        Memory32Fixed (ReadWrite, 0xFED00000, 0x400)
        IRQNoFlags () { 5 }
        Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 16 }";
    let Some(found) = passes("ranges", template) else {
        return;
    };
    let expected = Resources {
        memory: vec![
            region(0xa_0000, 0xb_ffff),
            region(0x8_0000_0000, 0xf_ffff_ffff),
            region(0xc000_0000, 0xcfff_ffff),
        ],
        io: vec![(0, 0xcf7), (0xd00, 0xffff)],
        buses: hw::BusRange::new(0, 0x7f),
    };
    assert_eq!(found, (Some(expected), 0));
}

#[test]
fn ranges_that_can_be_elsewhere_make_the_whole_unknown() {
    let good = "QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0, 0x80000000, 0x8FFFFFFF, 0, 0x10000000)";
    for (name, other) in [
        // Other addresses behind the bridge.
        (
            "translated",
            "QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0, 0x90000000, 0x9FFFFFFF, 0x1000000000, 0x10000000)",
        ),
        // Anywhere between the ends.
        (
            "floating",
            "DWordMemory (ResourceProducer, PosDecode, MinNotFixed, MaxNotFixed, NonCacheable, ReadWrite, 0xFFFF, 0x90000000, 0x9FFFFFFF, 0, 0x10000)",
        ),
    ] {
        let Some(found) = passes(name, &format!("{good} {other}")) else {
            return;
        };
        assert_eq!(found, (None, 1), "{name}");
    }
}

#[test]
fn resources_that_only_code_says_are_not_known_and_others_records_stay_few() {
    // More devices with resources than are kept: the host bridge behind them is found.
    let others: String = (0..400)
        .map(|n| {
            format!("Device (\\_SB.D{n:03X}) {{ Name (_CRS, ResourceTemplate () {{ IRQNoFlags () {{ 5 }} }}) }}\n")
        })
        .collect();
    let bridges = r#"
        Name (\FLAG, 0x40)
        Device (\_SB.PC00) {
            Name (_HID, EisaId ("PNP0A08"))
            Name (BUF0, ResourceTemplate () { WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100) })
            Method (_CRS, 0, Serialized) { CreateWordField (BUF0, 8, MINB) Store (0, MINB) Return (BUF0) }
        }
        Device (\_SB.PC01) {
            Name (_HID, EisaId ("PNP0A08"))
            Method (_BBN) { Return (Add (\FLAG, 0x40)) }
            Method (_CRS) { Return (ResourceTemplate () { WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x80, 0xFF, 0, 0x80) }) }
        }"#;
    let Some(said) = read("resources", &[("DSDT", &format!("{others}{bridges}"))]) else {
        return;
    };
    assert_eq!((said.code, said.unknown_resources), (1, 1));
    // The first bus of the second is known from what it passes on.
    let second = HostBridge {
        resources: Some(Resources {
            buses: hw::BusRange::new(0x80, 0xff),
            ..Resources::default()
        }),
        ..host(0, 0x80, None)
    };
    assert_eq!(said.hosts, [host(0, 0, None), second]);
}
