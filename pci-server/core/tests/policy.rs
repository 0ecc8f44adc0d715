//! The table of registers, and registers that are operations: what they do is what the operation
//! does, with its rights.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::Sbdf;
use hw::capability::{Entry, id};
use ipc_proto::{ConfigRight, Mechanism, Refusal, ResetKind, Rule, Switch, Width};
use pci_core::Device;
use pci_core::config::plan;
use pci_core::registers::{Kind, extended, policy, standard};
use proptest::prelude::*;
use sim::config::{BarShape, Endpoint, ExpressShape, Machine, MsiShape, PortKind, Space};
use system::model::DeviceMatch;

const AT: &str = "00:03.0";

fn boot(space: impl Into<Space>) -> (Booted, Sbdf) {
    let mut machine = Machine::new();
    let at: Sbdf = AT.parse().unwrap();
    machine.insert(at, space.into());
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    (Booted::new(machine, vec![client("zero", &[any])]), at)
}

fn word(booted: &Booted, at: Sbdf, offset: usize) -> u16 {
    let bytes = booted.world(|world| world.machine.snapshot(at));
    u16::from_le_bytes(bytes[offset..offset + 2].try_into().unwrap())
}

/// Power management at 40h, MSI of four messages with masks at 48h, Express with a reset at 60h.
fn function(no_soft_reset: bool) -> Endpoint {
    Endpoint::new(0x1234, 0x5678)
        .command(0x0006)
        .bar(0, memory32(1 << 14, 0xe000_0000))
        .bar(
            2,
            BarShape::Memory64 {
                size: 1 << 14,
                address: 0x80_0000_0000,
                prefetchable: true,
            },
        )
        .power_management(no_soft_reset)
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
}

#[test]
fn every_known_capability_has_a_row_and_no_other() {
    for number in 0..=u8::MAX {
        let known = id::name(number) != "unknown";
        assert_eq!(standard::fields(number).is_some(), known, "{number:#x}");
    }
    for number in 0..=u16::MAX {
        let known = id::extended_name(number) != "unknown";
        let fields = extended::fields(number);
        assert_eq!(fields.is_some(), known, "{number:#x}");
        // The policy looks up no other one.
        let applied = number == id::extended::ERROR_REPORTING;
        assert!(applied || fields.unwrap_or(&[]).is_empty(), "{number:#x}");
    }
}

#[test]
fn no_bit_of_a_register_has_two_policies() {
    let shapes = [(false, false), (true, false), (false, true), (true, true)];
    let msi = shapes.map(|(wide, masks)| standard::msi(wide, masks));
    let tables = (0..=u8::MAX)
        .filter_map(standard::fields)
        .chain((0..=u16::MAX).filter_map(extended::fields))
        .chain([standard::HEADER, standard::VIRTIO_ACCESS])
        .chain(msi);
    let mut fields = 0;
    for table in tables {
        let mut seen = std::collections::HashMap::new();
        for field in table {
            assert_eq!(field.offset % 2, 0);
            let bits = match field.kind {
                Kind::Hidden | Kind::Emulated(_) => 0xffff,
                Kind::Writable(bits) | Kind::WriteOneToClear(bits) | Kind::Trapped(bits, _) => bits,
            };
            for offset in (field.offset..).step_by(2).take(field.words.into()) {
                let before = seen.entry(offset).or_insert(0);
                assert_eq!(*before & bits, 0, "{field:?}");
                *before |= bits;
                fields += 1;
            }
        }
    }
    assert!(fields > 20, "{fields}");
}

#[test]
fn bars_say_their_size_and_the_device_is_not_touched() {
    let (booted, at) = boot(function(true));
    let device = booted.assigned(0, at, 0);
    let before = booted.world(|world| (world.machine.snapshot(at), world.machine.writes()));
    let read = |offset| device.config_read(offset, Width::Dword).unwrap().value;
    for (bar, mask) in [
        (0, 0xffff_c000),
        (1, 0),
        (2, 0xffff_c00c),
        (3, 0xffff_ffff),
        (4, 0),
        (5, 0),
    ] {
        let offset = 0x10 + 4 * bar;
        let address = read(offset);
        for ones in [u32::MAX, 0xffff_fff0] {
            device.config_write(offset, Width::Dword, ones).unwrap();
            assert_eq!(read(offset), mask, "BAR {bar}");
            assert_eq!(
                device.config_read(offset + 3, Width::Byte).unwrap().value,
                mask >> 24
            );
            // Another address is refused, and changes nothing.
            let refused = device.config_write(offset, Width::Dword, 0xfee0_0000);
            assert_eq!(refused.unwrap_err().rule, Rule::RegisterReadOnly);
            assert_eq!(read(offset), mask);
        }
        device.config_write(offset, Width::Dword, address).unwrap();
        assert_eq!(read(offset), address);
    }
    let after = booted.world(|world| (world.machine.snapshot(at), world.machine.writes()));
    assert_eq!(before, after);
    // The next holder finds addresses.
    device.config_write(0x10, Width::Dword, u32::MAX).unwrap();
    device.release().unwrap();
    let device = booted.assigned(0, at, 0);
    let value = device.config_read(0x10, Width::Dword).unwrap().value;
    assert_eq!(value, 0xe000_0000);
}

#[test]
fn bus_mastering_through_command_is_the_operation() {
    let (booted, at) = boot(function(true));
    let device = booted.assigned(0, at, 0);
    booted.world(|world| world.machine.poke(at, 0x07, &[0xf9]));
    device.config_write(0x04, Width::Dword, 0x0446).unwrap();
    assert_eq!(word(&booted, at, 4), 0x0446);
    assert_eq!(word(&booted, at, 6) >> 8, 0xf9);
    device
        .config_write(0x04, Width::Dword, 0x0100_0402)
        .unwrap();
    assert_eq!(word(&booted, at, 4), 0x0402);
    assert_eq!(word(&booted, at, 6) >> 8, 0xf8);
}

#[test]
fn the_reset_bit_is_the_reset() {
    let (booted, at) = boot(function(true));
    let device = booted.assigned(0, at, 0);
    device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
    device.bus_master(Switch::On).unwrap();
    let before = booted.world(|world| world.machine.snapshot(at));
    device.config_write(0x68, Width::Word, 0x8000).unwrap();
    booted.world(|world| {
        assert_eq!(world.machine.resets(at), 1);
        assert_eq!(world.machine.snapshot(at), before);
    });
    // Of Advanced Features, too.
    let (booted, at) = boot(conventional(0xe000_0000));
    let device = booted.assigned(0, at, 0);
    let bytes = booted.world(|world| world.machine.snapshot(at));
    let control = (0x40..0x100usize)
        .step_by(4)
        .find(|place| bytes[*place] == 0x13)
        .unwrap() as u16
        + 4;
    device.config_write(control, Width::Byte, 1).unwrap();
    booted.world(|world| assert_eq!(world.machine.resets(at), 1));
}

#[test]
fn a_device_that_is_busy_with_its_reset_says_so() {
    let (booted, at) = boot(function(true).quiet_after_reset(3));
    let device = booted.assigned(0, at, 0);
    let badge = booted.badge_in(0, 0);
    let write = ipc_proto::pci::Request::ConfigWrite {
        offset: 0x68,
        width: Width::Word,
        value: 0x8000,
    };
    assert!(booted.send(badge, write).is_none());
    let refusal = device.config_write(0x68, Width::Word, 0x8000).unwrap_err();
    assert_eq!(refusal.rule, Rule::DeviceBusy);
    booted.settle();
    device.config_read(0, Width::Dword).unwrap();
}

#[test]
fn power_states_come_and_go_and_what_was_set_up_stays() {
    for no_soft_reset in [true, false] {
        let (booted, at) = boot(function(no_soft_reset));
        let device = booted.assigned(0, at, 0);
        device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
        device.bus_master(Switch::On).unwrap();
        device.config_write(0x68, Width::Word, 0x2810).unwrap();
        let before = booted.world(|world| world.machine.snapshot(at));
        device.config_write(0x44, Width::Word, 0x0003).unwrap();
        assert_eq!(word(&booted, at, 0x44) & 3, 3);
        // It is there, and asleep: the same again is nothing.
        device.config_write(0x44, Width::Byte, 0x03).unwrap();
        assert_eq!(device.config_read(0x44, Width::Byte).unwrap().value & 3, 3);
        // On the way back it forgets.
        if !no_soft_reset {
            booted.world(|world| {
                world.machine.poke(at, 0x10, &[0; 4]);
                world.machine.poke(at, 0x4a, &[0x84]);
                world.machine.poke(at, 0x4c, &[0; 10]);
                world.machine.poke(at, 0x68, &[0, 0]);
            });
        }
        device.config_write(0x44, Width::Word, 0x0000).unwrap();
        let mut after = booted.world(|world| world.machine.snapshot(at));
        if !no_soft_reset {
            // Read when it was still set: here it was forgotten too early.
            after[0x68..0x6a].copy_from_slice(&before[0x68..0x6a]);
        }
        let differs = (0..before.len()).find(|place| after[*place] != before[*place]);
        assert_eq!(differs, None, "{no_soft_reset}");
    }
}

#[test]
fn a_sleeping_device_is_woken_before_it_is_reset_or_taken_back() {
    for release in [false, true] {
        let (booted, at) = boot(function(true));
        let device = booted.assigned(0, at, 0);
        device.config_write(0x44, Width::Word, 0x0003).unwrap();
        if release {
            device.release().unwrap();
        } else {
            assert_eq!(device.reset().unwrap().kind, ResetKind::Flr);
        }
        assert_eq!(word(&booted, at, 0x44) & 3, 0);
        booted.world(|world| assert_eq!(world.machine.resets(at), 1));
    }
    // Without any reset.
    let (booted, at) = boot(Endpoint::new(1, 2).power_management(true));
    let device = booted.assigned(0, at, 0);
    device.config_write(0x44, Width::Word, 0x0003).unwrap();
    device.release().unwrap();
    assert_eq!(word(&booted, at, 0x44) & 3, 0);
}

#[test]
fn a_holder_that_dies_while_its_device_falls_asleep_leaves_it_at_rest() {
    let (booted, at) = boot(function(true));
    let device = booted.assigned(0, at, 0);
    device.bus_master(Switch::On).unwrap();
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    let write = ipc_proto::pci::Request::ConfigWrite {
        offset: 0x44,
        width: Width::Word,
        value: 3,
    };
    assert!(booted.send(booted.badge_in(0, 0), write).is_none());
    let supervisor = booted.supervisor();
    supervisor.client_gone(ipc_proto::ClientId(0)).unwrap();
    booted.settle();
    assert_eq!(supervisor.pending().unwrap().count, 0);
    assert_eq!(word(&booted, at, 0x44) & 3, 0);
    assert_eq!(word(&booted, at, 0x04) & 6, 0);
    assert_eq!(word(&booted, at, 0x4a) & 0x71, 0);
    booted.world(|world| assert_eq!(world.machine.resets(at), 1));
}

#[test]
fn message_control_switches_what_was_set_up_and_nothing_else() {
    let (booted, at) = boot(function(true));
    let device = booted.assigned(0, at, 0);
    let set = |value| device.config_write(0x4a, Width::Word, value);
    let control = || word(&booted, at, 0x4a) & 0x71;
    // Nothing is set up.
    assert_eq!(set(0x0001).unwrap_err().rule, Rule::InterruptsDisabled);
    let masks = device.config_write(0x58, Width::Dword, 1);
    assert_eq!(masks.unwrap_err().rule, Rule::InterruptsDisabled);
    assert_eq!(control(), 0);
    device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
    assert_eq!(control(), 0x21);
    // More messages than were set up.
    assert_eq!(set(0x0031).unwrap_err().rule, Rule::RegisterReadOnly);
    let message = booted.world(|world| world.machine.snapshot(at))[0x4c..0x58].to_vec();
    set(0x0020).unwrap();
    assert_eq!(control(), 0x20);
    // It stays off over a reset.
    device.reset().unwrap();
    assert_eq!(control(), 0x20);
    set(0x0021).unwrap();
    assert_eq!(control(), 0x21);
    device
        .config_write(0x58, Width::Dword, 0xffff_fffa)
        .unwrap();
    assert_eq!(word(&booted, at, 0x58), 0x000a);
    device.msi_mask(1, 1, Switch::Off).unwrap();
    assert_eq!(device.config_read(0x58, Width::Dword).unwrap().value, 8);
    device.config_write(0x58, Width::Byte, 0x01).unwrap();
    device.reset().unwrap();
    assert_eq!(word(&booted, at, 0x58), 1);
    let now = booted.world(|world| world.machine.snapshot(at))[0x4c..0x58].to_vec();
    assert_eq!(now, message);
    device.msi_disable().unwrap();
    assert_eq!(set(0x0001).unwrap_err().rule, Rule::InterruptsDisabled);
}

#[test]
fn the_function_mask_of_msi_x_is_its_holder_s() {
    let (booted, at) = boot(nvme(0xe000_0000));
    let device = booted.assigned(0, at, 0);
    let control = 0x48 + 2;
    assert_eq!(booted.world(|w| w.machine.snapshot(at))[0x48], 0x11);
    let refused = device.config_write(control, Width::Word, 0x8000);
    assert_eq!(refused.unwrap_err().rule, Rule::InterruptsDisabled);
    device.msi_enable(Mechanism::MsiX, 0, 3, 1).unwrap();
    device.config_write(control, Width::Word, 0xc000).unwrap();
    assert_eq!(word(&booted, at, 0x4a), 0xc040);
    device.reset().unwrap();
    assert_eq!(word(&booted, at, 0x4a), 0xc040);
    device.config_write(control, Width::Word, 0x8040).unwrap();
    assert_eq!(word(&booted, at, 0x4a), 0x8040);
}

#[test]
fn a_register_needs_the_rights_of_its_operation() {
    let (booted, at) = boot(function(true));
    let device = booted.assigned(0, at, 0);
    device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
    device
        .narrow(ConfigRight::Write, 0, 0, Switch::Off, 20)
        .unwrap();
    let narrow = booted.device(booted.badge_in(0, 20));
    let before = booted.world(|world| world.machine.snapshot(at));
    for (offset, value) in [
        (0x04, 0x0406),
        (0x44, 0x0003),
        (0x4a, 0x0020),
        (0x58, 0x0001),
        (0x68, 0x8000),
    ] {
        let refusal = narrow.config_write(offset, Width::Word, value).unwrap_err();
        assert_eq!(refusal.rule, Rule::NotInRights, "{offset:#x}");
    }
    assert_eq!(booted.world(|world| world.machine.snapshot(at)), before);
    narrow.config_write(0x68, Width::Word, 0x0010).unwrap();
    device
        .narrow(ConfigRight::Read, 0, 0, Switch::On, 21)
        .unwrap();
    let reader = booted.device(booted.badge_in(0, 21));
    let refusal: Refusal = reader.config_write(0x68, Width::Word, 0).unwrap_err();
    assert_eq!(refusal.rule, Rule::NotInRights);
}

/// A device every bit of which can be written, but those that the policy says are cleared by ones; in a
/// register of nothing but status all are.
struct Open<'d> {
    bytes: Vec<u8>,
    device: &'d Device,
}

impl Open<'_> {
    fn write(&mut self, offset: u16, value: &[u8]) {
        for (offset, value) in (offset..).zip(value) {
            let whole = policy(self.device, offset & !1);
            let status = whole.clear != 0 && whole.write | whole.trapped == 0;
            let clear = if status { 0xffff } else { whole.clear };
            let clear = clear.to_le_bytes()[usize::from(offset & 1)];
            let byte = &mut self.bytes[usize::from(offset)];
            *byte = *byte & clear & !value | value & !clear;
        }
    }

    fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    fn read<const N: usize>(&self, offset: u16) -> [u8; N] {
        self.bytes[usize::from(offset)..][..N].try_into().unwrap()
    }
}

impl hw::ConfigSpace for Open<'_> {
    fn read8(&self, _: Sbdf, offset: u16) -> u8 {
        u8::from_le_bytes(self.read(offset))
    }
    fn read16(&self, _: Sbdf, offset: u16) -> u16 {
        self.word(offset)
    }
    fn read32(&self, _: Sbdf, offset: u16) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }
    fn write8(&mut self, _: Sbdf, offset: u16, value: u8) {
        self.write(offset, &value.to_le_bytes());
    }
    fn write16(&mut self, _: Sbdf, offset: u16, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }
    fn write32(&mut self, _: Sbdf, offset: u16, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 4))]
    #[test]
    fn whatever_the_device_holds_a_write_changes_no_bit_but_the_holder_s(
        content in prop::collection::vec(any::<u8>(), 4096),
        capabilities in prop::collection::vec((0u8..0x16, 0x10u8..0x3f), 0..10),
        errors in prop_oneof![Just(0), (0x40u16..0x3f0).prop_map(|place| place * 4)],
        place in prop_oneof![0u16..0x110, any::<u16>()],
        near in any::<bool>(),
        width in prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)],
        value in prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)],
        same in any::<u32>(),
    ) {
        let at: Sbdf = AT.parse().unwrap();
        let mut device = Device::new(at, None);
        device.config_bytes = 4096;
        device.error_reporting = errors;
        for (id, offset) in capabilities {
            device.capabilities.push(Entry { id, offset: offset * 4 }).unwrap();
        }
        let place = if near && errors != 0 { errors + place % 0x20 } else { place % 4096 };
        let offset = place & !(width as u16 - 1);
        let mut open = Open { bytes: content, device: &device };
        // Some bits as they are: otherwise most writes change what is trapped.
        let now = u32::from_le_bytes(open.read(offset & !3)) >> (8 * (offset & 3));
        let value = value & !same | now & same;
        let before = open.bytes.clone();
        if let Ok(planned) = plan(&open, &device, offset, width, value) {
            planned.carry_out(&mut open, &device);
        }
        let mut written = [0u8; 4096];
        let mut ones = [0u8; 4096];
        for (n, byte) in value.to_le_bytes().into_iter().take(width as usize).enumerate() {
            written[usize::from(offset) + n] = 0xff;
            ones[usize::from(offset) + n] = byte;
        }
        for (n, (old, new)) in before.iter().zip(&open.bytes).enumerate() {
            let policy = policy(&device, n as u16 & !1);
            let half = |bits: u16| bits.to_le_bytes()[n & 1];
            let may = half(policy.write) & written[n] | half(policy.clear) & ones[n];
            prop_assert_eq!((old ^ new) & !may, 0, "{:#x}: {:#x} -> {:#x}", n, old, new);
        }
    }
}
