//! Masks and pending bits of messages, and registers on pages that hold messages.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::scene::*;
use common::*;
use hw::ConfigSpace;
use ipc_proto::{Mechanism, Refusal, Rule, Switch, Width};

/// Vector control of an entry of the controller's table.
fn control(booted: &Booted, entry: u64) -> u32 {
    booted.world(|world| world.memory[&(0x80_0000_2000 + entry * 16 + 12)])
}

fn not_enabled(message: u64) -> Refusal {
    Refusal::new(Rule::MessageNotEnabled, message)
}

#[test]
fn entries_of_msi_x_are_masked_one_by_one_and_stay_so_over_a_reset() {
    let booted = booted();
    let device = booted.assigned(0, at(NVME), 0);
    assert_eq!(
        device.msi_mask(0, 1, Switch::On).unwrap_err(),
        not_enabled(0)
    );
    device.msi_enable(Mechanism::MsiX, 3, 5, 1).unwrap();
    device.msi_mask(4, 2, Switch::On).unwrap();
    let masked = || {
        (3..8)
            .map(|entry| control(&booted, entry))
            .collect::<Vec<_>>()
    };
    assert_eq!(masked(), [0, 1, 1, 0, 0]);
    for (first, count, about) in [(2, 1, 2), (3, 6, 8), (7, 2, 8), (0xffff, 2, 0xffff)] {
        assert_eq!(
            device.msi_mask(first, count, Switch::On).unwrap_err(),
            not_enabled(about)
        );
    }
    assert_eq!(masked(), [0, 1, 1, 0, 0]);
    device.msi_mask(5, 1, Switch::Off).unwrap();
    // A reset takes the table away.
    booted.world(|world| world.memory.clear());
    device.reset().unwrap();
    assert_eq!(masked(), [0, 1, 0, 0, 0]);
    // Enabled anew, nothing is masked.
    device.msi_disable().unwrap();
    device.msi_enable(Mechanism::MsiX, 3, 5, 1).unwrap();
    assert_eq!(masked(), [0; 5]);
}

#[test]
fn messages_of_msi_are_masked_where_they_can_be() {
    let booted = booted();
    let net = booted.assigned(0, at(NET), 0);
    net.msi_enable(Mechanism::Msi, 0, 4, 1).unwrap();
    net.msi_mask(1, 2, Switch::On).unwrap();
    let mask = || booted.world(|world| world.machine.read32(at(NET), 0x4c)) & 0xf;
    assert_eq!(mask(), 0b0110);
    net.msi_mask(2, 1, Switch::Off).unwrap();
    assert_eq!(mask(), 0b0010);
    assert_eq!(net.msi_mask(4, 1, Switch::On).unwrap_err(), not_enabled(4));
    booted.world(|world| world.machine.poke(at(NET), 0x50, &[0b1010]));
    assert_eq!(net.msi_pending(0, 4).unwrap().pending, 0b1010);
    assert_eq!(net.msi_pending(1, 2).unwrap().pending, 0b01);
    assert_eq!(net.msi_pending(3, 1).unwrap().pending, 0b1);
    assert_eq!(
        net.msi_pending(0, 5).unwrap_err(),
        Refusal::new(Rule::BadMessageCount, 4)
    );
    let edu = booted.assigned(0, at(EDU), 20);
    edu.msi_enable(Mechanism::Msi, 0, 1, 21).unwrap();
    let none = Refusal::new(Rule::NoSuchMechanism, at(EDU).to_bits().into());
    assert_eq!(edu.msi_mask(0, 1, Switch::On).unwrap_err(), none);
    assert_eq!(edu.msi_pending(0, 1).unwrap_err(), none);
}

#[test]
fn pending_bits_of_msi_x_begin_anywhere() {
    let booted = booted();
    let device = booted.assigned(0, at(NVME), 0);
    booted.world(|world| {
        let words = [0x8000_0001u32, 0x0000_0003, 0x0000_0001];
        for (n, word) in (0..).zip(words) {
            world.memory.insert(0x80_0000_3000 + 4 * n, word);
        }
    });
    let pending = |first, count| device.msi_pending(first, count).map(|reply| reply.pending);
    assert_eq!(pending(0, 64).unwrap(), 0x0000_0003_8000_0001);
    assert_eq!(pending(1, 64).unwrap(), 1 << 63 | 0x1_c000_0000);
    assert_eq!(pending(31, 3).unwrap(), 0b111);
    assert_eq!(pending(64, 1).unwrap(), 1);
    assert_eq!(pending(0, 0).unwrap(), 0);
    for (first, count) in [(0, 65), (2, 64), (65, 1), (0xffff, 0xffff)] {
        assert_eq!(
            pending(first, count).unwrap_err(),
            Refusal::new(Rule::BadMessageCount, 65)
        );
    }
    let before = booted.supervisor().figures().unwrap();
    assert!(before.untyped_used > 0);
    device.release().unwrap();
    assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
}

#[test]
fn registers_beside_the_messages_are_reached_and_the_messages_are_not() {
    let booted = booted();
    let device = booted.assigned(0, at(NVME), 0);
    // The table takes 410h bytes of the third page, the pending bits 10h of the fourth.
    for place in [0x2410u64, 0x2ffc, 0x3010, 0x3ffc] {
        device
            .bar_write(0, place, Width::Dword, 0x1122_3344)
            .unwrap();
        let read = |offset, width| device.bar_read(0, place + offset, width).unwrap().value;
        assert_eq!(read(0, Width::Dword), 0x1122_3344);
        assert_eq!(read(2, Width::Word), 0x1122);
        assert_eq!(read(1, Width::Byte), 0x33);
        device.bar_write(0, place + 3, Width::Byte, 0xaa).unwrap();
        assert_eq!(read(0, Width::Dword), 0xaa22_3344);
    }
    let before = booted.world(|world| world.memory.clone());
    let refused = |bar: u8, offset: u64, width: Width, rule: Rule, about: u64| {
        let refusal = Refusal::new(rule, about);
        assert_eq!(device.bar_read(bar, offset, width).unwrap_err(), refusal);
        assert_eq!(
            device.bar_write(bar, offset, width, 0).unwrap_err(),
            refusal
        );
    };
    refused(0, 0x2000, Width::Dword, Rule::PageWithheld, 2);
    refused(0, 0x240c, Width::Dword, Rule::PageWithheld, 2);
    refused(0, 0x240f, Width::Byte, Rule::PageWithheld, 2);
    refused(0, 0x3000, Width::Byte, Rule::PageWithheld, 3);
    refused(0, 0x300e, Width::Word, Rule::PageWithheld, 3);
    refused(0, 0x1ffc, Width::Dword, Rule::PageNotWithheld, 1);
    refused(0, 0x2412, Width::Dword, Rule::BadAccess, 0x2412);
    refused(0, 0x4000, Width::Byte, Rule::BadAccess, 0x4000);
    refused(0, u64::MAX, Width::Byte, Rule::BadAccess, u64::MAX);
    refused(0, !3, Width::Dword, Rule::BadAccess, !3);
    refused(1, 0, Width::Dword, Rule::NoSuchBar, 1);
    refused(200, 0, Width::Dword, Rule::NoSuchBar, 200);
    assert_eq!(booted.world(|world| world.memory.clone()), before);
    // Also while the shard has the table mapped for itself.
    device.msi_enable(Mechanism::MsiX, 0, 2, 1).unwrap();
    assert_eq!(
        device.bar_read(0, 0x2410, Width::Dword).unwrap().value,
        0xaa22_3344
    );
    assert_eq!(control(&booted, 0), 0);
    device.release().unwrap();
    assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
}

#[test]
fn a_page_that_cannot_be_mapped_is_refused_and_comes_back_with_the_device() {
    for n in 0..2 {
        let booted = booted();
        let device = booted.assigned(0, at(NVME), 0);
        booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls + n));
        let refusal = device.bar_read(0, 0x2800, Width::Dword).unwrap_err();
        assert_eq!(refusal.rule, Rule::KernelRefused, "{n}");
        booted.world(|world| world.kernel.fail_at = None);
        device.bar_read(0, 0x2800, Width::Dword).unwrap();
        device.release().unwrap();
        assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
    }
}
