//! MSI and MSI-X as the device sees them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::*;
use hw::Sbdf;
use ipc_proto::{Mechanism, Refusal, Rule};
use sim::config::Machine;
use system::model::DeviceMatch;

fn booted() -> (Booted, [Sbdf; 3]) {
    let mut machine = Machine::new();
    let devices = [
        machine.add("00:03.0", edu(0xe000_0000)),
        machine.add("00:04.0", nvme(0x80_0000_0000)),
        machine.add("00:05.0", conventional(0xe010_0000)),
    ];
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    (Booted::new(machine, vec![client("zero", &[any])]), devices)
}

fn bytes<const N: usize>(booted: &Booted, at: Sbdf, offset: usize) -> [u8; N] {
    booted.world(|world| {
        world.machine.snapshot(at)[offset..offset + N]
            .try_into()
            .unwrap()
    })
}

#[test]
fn msi_is_programmed_before_it_is_enabled() {
    let (booted, [edu, ..]) = booted();
    let device = booted.assigned(0, edu, 0);
    assert_eq!(
        (
            device.msi_info().unwrap().msi,
            device.msi_info().unwrap().msix
        ),
        (1, 0)
    );
    booted.world(|world| world.did.clear());
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    // Control: enabled, one message, 64-bit; address; data.
    assert_eq!(bytes(&booted, edu, 0x42), [0x81, 0x00]);
    assert_eq!(
        bytes(&booted, edu, 0x44),
        [0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x40, 0]
    );
    let enabled_last = booted.world(|world| world.did.last().cloned());
    assert!(
        matches!(
            enabled_last,
            Some(Did::Wrote {
                offset: 0x42,
                value: 0x81,
                ..
            })
        ),
        "{enabled_last:?}"
    );
    // INTx may not be asserted meanwhile.
    assert_eq!(bytes::<2>(&booted, edu, 4)[1] & 4, 4);
    assert_eq!(booted.supervisor().holder(0).unwrap().messages, 1);
    assert_eq!(
        device.msi_enable(Mechanism::Msi, 0, 1, 2).unwrap_err().rule,
        Rule::InterruptsEnabled
    );
    device.msi_disable().unwrap();
    assert_eq!(bytes(&booted, edu, 0x42), [0x80, 0x00]);
    assert_eq!(
        device.msi_disable().unwrap_err().rule,
        Rule::InterruptsDisabled
    );
    assert_eq!(booted.supervisor().holder(0).unwrap().messages, 0);
    assert!(booted.world(|world| world.vectors.is_empty()));
}

#[test]
fn several_messages_of_msi_are_aligned_and_unmasked() {
    let (booted, [_, _, net]) = booted();
    let device = booted.assigned(0, net, 0);
    booted.world(|world| world.machine.poke(net, 0x4c, &[0xff; 4]));
    device.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
    // Two to the power of two messages, maskable.
    assert_eq!(bytes(&booted, net, 0x42), [0x01 | 2 << 4 | 2 << 1, 0x01]);
    let data = u16::from_le_bytes(bytes(&booted, net, 0x48));
    assert_eq!(data % 4, 0);
    // Four mask bits exist and all are clear.
    assert_eq!(bytes::<4>(&booted, net, 0x4c)[0] & 0xf, 0);
    device.msi_disable().unwrap();
    device.msi_enable(Mechanism::Msi, 0, 2, 1).unwrap();
    assert_eq!(bytes(&booted, net, 0x42), [0x01 | 1 << 4 | 2 << 1, 0x01]);
    assert_eq!(bytes::<4>(&booted, net, 0x4c)[0] & 0xf, 0b1100);
}

#[test]
fn numbers_of_messages_that_do_not_fit_are_refused() {
    let (booted, [edu, nvme, net]) = booted();
    let [edu, nvme, net] =
        [(edu, 0), (nvme, 1), (net, 2)].map(|(at, slot)| booted.assigned(0, at, slot));
    let before = booted.state();
    let refused =
        |refusal: Refusal, most| assert_eq!(refusal, Refusal::new(Rule::BadMessageCount, most));
    for (first, count) in [(0, 0), (0, 2), (1, 1), (0, 3), (0, 0xffff)] {
        refused(
            edu.msi_enable(Mechanism::Msi, first, count, 9).unwrap_err(),
            1,
        );
    }
    for (first, count) in [(0, 3), (0, 8), (1, 2)] {
        refused(
            net.msi_enable(Mechanism::Msi, first, count, 9).unwrap_err(),
            4,
        );
    }
    for (first, count) in [(0, 0), (0, 66), (65, 1), (64, 2), (0xffff, 0xffff)] {
        refused(
            nvme.msi_enable(Mechanism::MsiX, first, count, 9)
                .unwrap_err(),
            65,
        );
    }
    assert_eq!(
        edu.msi_enable(Mechanism::MsiX, 0, 1, 9).unwrap_err().rule,
        Rule::NoSuchMechanism
    );
    assert_eq!(
        nvme.msi_enable(Mechanism::Msi, 0, 1, 9).unwrap_err().rule,
        Rule::NoSuchMechanism
    );
    assert_eq!(
        nvme.msi_enable(Mechanism::MsiX, 0, 2, 255)
            .unwrap_err()
            .rule,
        Rule::WindowSlotOutOfRange
    );
    assert_eq!(
        nvme.msi_enable(Mechanism::MsiX, 0, 2, 0).unwrap_err(),
        Refusal::new(Rule::WindowSlotOccupied, 0)
    );
    assert_eq!(booted.state(), before);
}

#[test]
fn msi_x_masks_every_entry_but_those_asked_for() {
    let (booted, [_, nvme, _]) = booted();
    let device = booted.assigned(0, nvme, 0);
    device.msi_enable(Mechanism::MsiX, 3, 5, 1).unwrap();
    // Enabled, not masked as a whole.
    assert_eq!(bytes::<2>(&booted, nvme, 0x4a)[1] & 0xc0, 0x80);
    booted.world(|world| {
        let table = 0x80_0000_2000u64;
        let word =
            |entry: u64, field: u64| world.memory.get(&(table + entry * 16 + field)).copied();
        // A block of four vectors, aligned, then one.
        let data: Vec<_> = (3..8).map(|entry| word(entry, 8).unwrap()).collect();
        assert_eq!(data, [0x40, 0x41, 0x42, 0x43, 0x44]);
        for entry in 0..65 {
            let used = (3..8).contains(&entry);
            assert_eq!(word(entry, 12), Some(u32::from(!used)), "entry {entry}");
            assert_eq!(word(entry, 0), used.then_some(0xfee0_0000), "entry {entry}");
        }
        assert_eq!(word(65, 12), None);
        // Nothing is sent before all is written.
        let writes: Vec<_> = world
            .did
            .iter()
            .filter_map(|did| match did {
                Did::Wrote {
                    offset: 0x4a,
                    value,
                    ..
                } => Some(value >> 14),
                Did::WroteTable { .. } => Some(99),
                _ => None,
            })
            .collect();
        let mut steps = writes.clone();
        steps.dedup();
        // At boot it was off; then on but masked, the table, then on.
        assert_eq!(steps, [0b11, 99, 0b10]);
    });
    device.msi_disable().unwrap();
    assert_eq!(bytes::<2>(&booted, nvme, 0x4a)[1] & 0xc0, 0);
}

#[test]
fn pages_of_the_msi_x_table_are_never_given_out() {
    let (booted, [_, nvme, _]) = booted();
    let device = booted.assigned(0, nvme, 0);
    let bar = device.bar(0).unwrap();
    assert_eq!(
        (bar.bytes, bar.withheld_first, bar.withheld_count),
        (16 << 10, 2, 2)
    );
    for (first, count, about) in [(2, 1, 2), (3, 1, 3), (0, 4, 2), (1, 2, 2)] {
        let refusal = device.bar_frames(0, first, count, 1).unwrap_err();
        assert_eq!(refusal, Refusal::new(Rule::PageWithheld, about));
    }
    // Not even while the shard itself has them mapped, nor afterwards.
    device.msi_enable(Mechanism::MsiX, 0, 1, 10).unwrap();
    assert_eq!(
        device.bar_frames(0, 2, 1, 1).unwrap_err().rule,
        Rule::PageWithheld
    );
    device.bar_frames(0, 0, 2, 1).unwrap();
    booted.world(|world| {
        for (_, object) in world.kernel.held_by_clients() {
            if let common::kernel::Object::Frame { base, .. } = object {
                assert!(base < 0x80_0000_2000, "{base:#x}");
            }
        }
    });
}

#[test]
fn frames_of_what_is_no_memory_are_refused() {
    let (booted, [edu, ..]) = booted();
    let device = booted.assigned(0, edu, 0);
    let refused = |bar, first, count| device.bar_frames(bar, first, count, 1).unwrap_err();
    assert_eq!(refused(1, 0, 1), Refusal::new(Rule::NoSuchBar, 1));
    assert_eq!(refused(6, 0, 1), Refusal::new(Rule::NoSuchBar, 6));
    assert_eq!(refused(255, 0, 1), Refusal::new(Rule::NoSuchBar, 255));
    assert_eq!(device.bar(6).unwrap_err(), Refusal::new(Rule::NoSuchBar, 6));
    assert_eq!(refused(0, 256, 1), Refusal::new(Rule::PageOutOfRange, 256));
    assert_eq!(refused(0, 255, 2), Refusal::new(Rule::PageOutOfRange, 256));
    assert_eq!(refused(0, 0, 0), Refusal::new(Rule::PageOutOfRange, 256));
    assert_eq!(
        refused(0, u32::MAX, 1),
        Refusal::new(Rule::PageOutOfRange, 256)
    );
    assert_eq!(
        device.bar_frames(0, 0, 2, 255).unwrap_err().rule,
        Rule::WindowSlotOutOfRange
    );
    // All of 1 MiB but what does not fit the window.
    assert_eq!(device.bar_frames(0, 0, 250, 1).unwrap().placed, 250);
    assert_eq!(booted.supervisor().holder(0).unwrap().frames, 250);
}
