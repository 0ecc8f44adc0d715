//! Mediated configuration space: what a holder may write, and that no sequence
//! of writes changes anything else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::Sbdf;
use ipc_proto::{Mechanism, Refusal, Rule, Switch, Width};
use proptest::prelude::*;
use sim::config::{Endpoint, ExpressShape, Machine, MsiShape, PortKind, Space};
use system::model::DeviceMatch;

/// A function with everything the policy knows. Power management at 40h, MSI at 48h, Express at 60h,
/// vital product data at 9ch, Advanced Error Reporting at 100h.
fn whole() -> Space {
    let endpoint = Endpoint::new(0x1af4, 0x1042)
        .command(0x0006)
        .bar(0, memory32(1 << 14, 0xe000_0000))
        .bar(
            4,
            sim::config::BarShape::Memory64 {
                size: 1 << 14,
                address: 0x80_0000_0000,
                prefetchable: true,
            },
        )
        .rom(1 << 16, 0xe100_0000)
        .power_management(true)
        .msi(MsiShape {
            wide: true,
            maskable: true,
            vectors_log2: 2,
        })
        .express(ExpressShape {
            kind: PortKind::Integrated,
            flr: true,
            slot: None,
        })
        .capability(0x03, &[0, 0, 0, 0, 0, 0], &[0xff; 6])
        .extended(1, 2, &[0; 0x28])
        .extended(0x0b, 1, &[0xaa; 8]);
    let mut space = Space::from(endpoint);
    // AER: both status registers are cleared by writing ones; masks and severity can be written.
    space.allow_clear(0x104, &[0xff; 4]);
    space.allow_clear(0x110, &[0xff; 4]);
    space.allow(0x108, &[0xff; 8]);
    space.allow(0x114, &[0xff; 4]);
    // A vendor's registers that change the device.
    space.allow(0x12c + 4, &[0xff; 8]);
    space.allow(0xe0, &[0xff; 16]);
    space
}

fn boot(space: Space) -> (Booted, Sbdf) {
    let mut machine = Machine::new();
    let at: Sbdf = "00:03.0".parse().unwrap();
    machine.insert(at, space);
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let booted = Booted::new(machine, vec![client("zero", &[any])]);
    (booted, at)
}

fn registers(booted: &Booted, at: Sbdf) -> Vec<u8> {
    booted.world(|world| world.machine.snapshot(at))
}

#[test]
fn reads_show_the_device_as_it_is() {
    let (booted, at) = boot(whole());
    let device = booted.assigned(0, at, 0);
    let bytes = registers(&booted, at);
    for (offset, byte) in (0..).zip(&bytes) {
        assert_eq!(
            device.config_read(offset, Width::Byte).unwrap().value,
            u32::from(*byte)
        );
    }
    for (offset, word) in (0..).step_by(4).zip(bytes.chunks(4)) {
        let value = u32::from_le_bytes(word.try_into().unwrap());
        assert_eq!(
            device.config_read(offset, Width::Dword).unwrap().value,
            value
        );
    }
}

#[test]
fn accesses_outside_the_space_or_across_its_grain_are_refused() {
    let (booted, at) = boot(whole());
    let device = booted.assigned(0, at, 0);
    for (offset, width) in [
        (1, Width::Word),
        (2, Width::Dword),
        (4095, Width::Word),
        (4096, Width::Byte),
        (0xffff, Width::Byte),
        (0xfffc, Width::Dword),
    ] {
        let refused = Refusal::new(Rule::BadAccess, offset.into());
        assert_eq!(device.config_read(offset, width).unwrap_err(), refused);
        assert_eq!(device.config_write(offset, width, 0).unwrap_err(), refused);
    }
    // A conventional function has 256 bytes.
    let (booted, at) = boot(edu(0xe000_0000).into());
    let device = booted.assigned(0, at, 0);
    device.config_read(0xfc, Width::Dword).unwrap();
    assert_eq!(
        device.config_read(0x100, Width::Dword).unwrap_err(),
        Refusal::new(Rule::BadAccess, 0x100)
    );
}

#[test]
fn what_has_an_operation_of_its_own_or_is_not_the_holder_s_is_refused() {
    let (booted, at) = boot(whole());
    let device = booted.assigned(0, at, 0);
    let before = registers(&booted, at);
    for (offset, width, value) in [
        (0x00, Width::Dword, 0xffff_ffff), // ids
        (0x04, Width::Word, 0x0400),       // memory decoding off
        (0x04, Width::Byte, 0x01),         // IO decoding on
        (0x04, Width::Word, 0x0407),       // with bus mastering
        (0x10, Width::Dword, 0xfee0_0000), // BARs
        (0x10, Width::Word, 0xffff),
        (0x30, Width::Dword, 0xe100_0001), // expansion ROM
        (0x3c, Width::Byte, 0x05),         // interrupt line
        (0x44, Width::Word, 0x0001),       // power states D1 and D2
        (0x44, Width::Byte, 0x02),
        (0x48 + 2, Width::Word, 0x0011), // MSI: the number of messages
        (0x48 + 4, Width::Dword, 0xfee0_0000),
        (0x48 + 12, Width::Word, 0x000e),
        (0x60 + 0x10, Width::Word, 0x0003), // Link Control
        (0x60 + 0x28, Width::Word, 0x0010), // Device Control 2
        (0x9c + 2, Width::Word, 0x8000),    // vital product data
        (0xe0, Width::Dword, 0x1234_5678),  // a vendor's registers
        (0x108, Width::Dword, 0xffff_ffff), // error masks
        (0x130, Width::Dword, 0x0),
    ] {
        let refusal = device.config_write(offset, width, value).unwrap_err();
        assert_eq!(refusal, Refusal::new(Rule::RegisterReadOnly, offset.into()));
        assert_eq!(registers(&booted, at), before, "{offset:#x}");
    }
    booted.world(|world| assert_eq!(world.machine.resets(at), 0));
}

#[test]
fn the_holder_s_bits_can_be_written_in_any_width() {
    let (booted, at) = boot(whole());
    let device = booted.assigned(0, at, 0);
    let read = |offset, width| device.config_read(offset, width).unwrap().value;
    // Parity response, together with what Command already holds.
    device.config_write(0x04, Width::Word, 0x0442).unwrap();
    assert_eq!(read(0x04, Width::Word), 0x0442);
    device.config_write(0x04, Width::Byte, 0x02).unwrap();
    assert_eq!(read(0x04, Width::Word), 0x0402);
    // SERR# enable is not the holder's: written, and nothing of it.
    device.config_write(0x04, Width::Word, 0x0542).unwrap();
    assert_eq!(read(0x04, Width::Word), 0x0442);
    // Relaxed ordering; no snoop, in the upper byte.
    device.config_write(0x68, Width::Word, 0x0010).unwrap();
    device.config_write(0x69, Width::Byte, 0x08).unwrap();
    assert_eq!(read(0x68, Width::Word), 0x0810);
}

#[test]
fn clearing_status_bits_disturbs_no_neighbour() {
    let (booted, at) = boot(whole());
    let device = booted.assigned(0, at, 0);
    device.bus_master(Switch::On).unwrap();
    booted.world(|world| {
        world.machine.poke(at, 0x06, &[0x10, 0xf9]);
        world.machine.poke(at, 0x45, &[0x80]);
        world.machine.poke(at, 0x6a, &[0x0f]);
        world.machine.poke(at, 0x104, &[0xff; 4]);
        world.machine.poke(at, 0x110, &[0xff; 4]);
    });
    let byte = |offset: usize| registers(&booted, at)[offset];
    let mut expected = registers(&booted, at);
    let mut check = |offset: u16, width, value, changes: &[(usize, u8)]| {
        device.config_write(offset, width, value).unwrap();
        changes.iter().for_each(|&(at, byte)| expected[at] = byte);
        assert_eq!(registers(&booted, at), expected, "{offset:#x}");
    };
    // One bit of Status, by word, by byte, and through a dword that holds Command too.
    check(0x06, Width::Word, 0x0100, &[(7, 0xf8)]);
    check(0x07, Width::Byte, 0x08, &[(7, 0xf0)]);
    check(0x04, Width::Dword, 0x1000_0406, &[(7, 0xe0)]);
    // Writing Command clears nothing.
    check(0x04, Width::Word, 0x0446, &[(4, 0x46)]);
    check(0x04, Width::Dword, 0x0000_0406, &[(4, 0x06)]);
    // PME status, and not the power state beside it; nothing when it is not meant.
    check(0x44, Width::Word, 0x0000, &[]);
    check(0x44, Width::Word, 0x8000, &[(0x45, 0x00)]);
    // Device Status: one bit; writing Device Control leaves the others.
    check(0x6a, Width::Word, 0x0001, &[(0x6a, 0x0e)]);
    check(0x68, Width::Word, 0x0810, &[(0x68, 0x10), (0x69, 0x08)]);
    check(0x68, Width::Dword, 0x0002_0810, &[(0x6a, 0x0c)]);
    // Advanced Error Reporting.
    check(
        0x104,
        Width::Dword,
        0x0100_0010,
        &[(0x104, 0xef), (0x107, 0xfe)],
    );
    check(0x110, Width::Byte, 0x01, &[(0x110, 0xfe)]);
    assert_eq!(byte(0x04) & 0x06, 0x06);
}

#[test]
fn virtio_s_window_into_bars_is_neither_read_nor_written() {
    // cfg_type 5: 16 bytes, then four of data.
    let mut body = vec![20, 5];
    body.resize(18, 0);
    let endpoint = Endpoint::new(0x1af4, 0x1041)
        .bar(0, memory32(4096, 0xe000_0000))
        .capability(9, &[16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[])
        .capability(9, &body, &[0xff; 18]);
    let (booted, at) = boot(endpoint.into());
    let device = booted.assigned(0, at, 0);
    // The capability is at 50h, its window at 60h.
    for offset in 0x60..0x64 {
        assert_eq!(
            device.config_read(offset, Width::Byte).unwrap_err(),
            Refusal::new(Rule::RegisterHidden, offset.into())
        );
        assert_eq!(
            device.config_write(offset, Width::Byte, 1).unwrap_err(),
            Refusal::new(Rule::RegisterHidden, offset.into())
        );
    }
    assert_eq!(
        device.config_read(0x60, Width::Dword).unwrap_err().rule,
        Rule::RegisterHidden
    );
    for offset in (0x40..0x60).step_by(4) {
        device.config_read(offset, Width::Dword).unwrap();
        assert_eq!(
            device
                .config_write(offset, Width::Dword, 0)
                .unwrap_err()
                .rule,
            Rule::RegisterReadOnly
        );
    }
    // Another vendor's capability of that shape is its own affair.
    let mut body = vec![20, 5];
    body.resize(18, 0);
    let (booted, at) = boot(Endpoint::new(0x1234, 1).capability(9, &body, &[]).into());
    booted
        .assigned(0, at, 0)
        .config_read(0x50, Width::Dword)
        .unwrap();
}

#[test]
fn where_capabilities_overlap_the_stricter_one_holds() {
    // Power management begins in the middle of MSI: its PMCSR is MSI's data register.
    let endpoint = Endpoint::new(1, 1)
        .msi(MsiShape {
            wide: true,
            maskable: false,
            vectors_log2: 0,
        })
        .link_last_to(0x48)
        .raw(0x48, &[1, 0]);
    let (booted, at) = boot(endpoint.into());
    let device = booted.assigned(0, at, 0);
    let before = registers(&booted, at);
    // At 42h is message control, in which this changes nothing.
    device.config_write(0x42, Width::Word, 0x8000).unwrap();
    for offset in (0x40..0x50).step_by(2).filter(|offset| *offset != 0x42) {
        assert_eq!(
            device
                .config_write(offset, Width::Word, 0x8003)
                .unwrap_err()
                .rule,
            Rule::RegisterReadOnly
        );
    }
    assert_eq!(registers(&booted, at), before);
}

#[test]
fn where_capabilities_overlap_the_order_of_the_list_does_not_matter() {
    // MSI begins in the middle of power management.
    let endpoint = Endpoint::new(1, 1)
        .power_management(true)
        .link_last_to(0x44)
        .raw(0x44, &[5, 0, 0x80, 0]);
    let (booted, at) = boot(endpoint.into());
    let device = booted.assigned(0, at, 0);
    let refusal = device.config_write(0x44, Width::Word, 0x8005).unwrap_err();
    assert_eq!(refusal, Refusal::new(Rule::RegisterReadOnly, 0x44));
}

/// What no write of a holder may change: the header but its own bits, message registers, power state.
fn guarded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut mask = |offset: usize, own: &[u8]| {
        for (byte, own) in bytes[offset..].iter_mut().zip(own) {
            *byte &= !own;
        }
    };
    mask(0x04, &[0x44, 0x00, 0x00, 0xf9]);
    mask(0x44, &[0x03, 0x80]);
    mask(0x4a, &[0x01]);
    mask(0x58, &[0x0f]);
    mask(0x68, &[0x10, 0x78, 0x0f]);
    mask(0x104, &[0xff; 4]);
    mask(0x110, &[0xff; 4]);
    bytes
}

#[derive(Clone, Debug)]
struct Write {
    offset: u16,
    width: Width,
    value: u32,
}

fn write() -> impl Strategy<Value = Write> {
    let width = prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)];
    // Mostly where something is.
    let offset = prop_oneof![8 => 0u16..0xa4, 2 => 0x100u16..0x140, 1 => any::<u16>()];
    let value = prop_oneof![
        any::<u32>(),
        Just(0),
        Just(u32::MAX),
        (0u32..32).prop_map(|bit| 1 << bit)
    ];
    (offset, width, value).prop_map(|(offset, width, value)| {
        let offset = offset & !(width as u16 - 1);
        // Not the bit that starts a reset, which changes everything.
        let value = match offset {
            0x68 => value & !0x8000,
            0x69 => value & !0x80,
            _ => value,
        };
        Write {
            offset,
            width,
            value,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn no_sequence_of_writes_changes_what_is_guarded(writes in prop::collection::vec(write(), 1..60), master in any::<bool>()) {
        let (booted, at) = boot(whole());
        let device = booted.assigned(0, at, 0);
        device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
        if master {
            device.bus_master(Switch::On).unwrap();
        }
        booted.world(|world| {
            world.machine.poke(at, 0x07, &[0xf9]);
            world.machine.poke(at, 0x104, &[0x5a; 4]);
        });
        let before = guarded(&registers(&booted, at));
        for write in &writes {
            let all = registers(&booted, at);
            let result = device.config_write(write.offset, write.width, write.value);
            let after = registers(&booted, at);
            if result.is_err() {
                prop_assert_eq!(&all, &after, "{:?} was refused and did something", write);
            }
            // Nothing outside the bytes written changes.
            let touched = usize::from(write.offset)..usize::from(write.offset) + write.width as usize;
            for (offset, (old, new)) in all.iter().zip(&after).enumerate() {
                prop_assert!(old == new || touched.contains(&offset), "{:?} changed {:#x}", write, offset);
            }
        }
        prop_assert_eq!(guarded(&registers(&booted, at)), before);
        prop_assert_eq!(booted.world(|world| world.machine.resets(at)), 0);
    }
}
