//! BARs that lie alone in large pages, and large frames of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::kernel::{Object, Place};
use common::*;
use hw::Sbdf;
use ipc_proto::{ConfigRight, Mechanism, Refusal, Rule, Switch, Width, pci};
use sim::config::{BarShape, Endpoint, Machine};
use system::model::DeviceMatch;

/// One BAR of 1 MiB and one of 8 MiB, and one of ports.
const WIDE: &str = "0000:00:03.0";
/// 16 KiB with an MSI-X table in its third page.
const NVME: &str = "0000:00:04.0";
/// Not to be alone.
const PLAIN: &str = "0000:00:05.0";

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn booted() -> Booted {
    let mut machine = Machine::new();
    let large = BarShape::Memory64 {
        size: 8 << 20,
        address: 0,
        prefetchable: true,
    };
    let wide = Endpoint::new(1, 3)
        .bar(0, memory32(1 << 20, 0xe010_0000))
        .bar(2, large)
        .bar(
            4,
            BarShape::Io {
                bits: 16,
                size: 32,
                address: 0xc000,
            },
        );
    machine.add(WIDE, wide);
    machine.add(NVME, nvme(0x80_0000_0000));
    machine.add(PLAIN, edu(0xe000_0000));
    let mut info = pci_info();
    for device in [WIDE, NVME] {
        let alone = DeviceMatch::Address(at(device).to_bits());
        info.large_bars.push(alone).unwrap();
    }
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    Booted::with(World::new(machine), info, vec![client("any", &[any])])
}

fn refused(reply: Result<pci::BarLargeReply, Refusal>, rule: Rule, about: u64) {
    assert_eq!(reply.unwrap_err(), Refusal::new(rule, about));
}

/// Where the frames in a client's window are, and how large.
fn frames(booted: &Booted) -> Vec<(u16, Object)> {
    let held = booted.world(|world| world.kernel.held_by_clients());
    let frames = held.into_iter().filter_map(|(place, object)| match place {
        Place::Window(0, slot) if !matches!(object, Object::Device { .. }) => Some((slot, object)),
        _ => None,
    });
    frames.collect()
}

fn holder_frames(booted: &Booted, device: &str) -> u32 {
    (0..)
        .map_while(|index| booted.supervisor().holder(index).ok())
        .find(|holder| holder.device == at(device))
        .unwrap()
        .frames
}

#[test]
fn one_large_frame_has_a_whole_bar_and_goes_with_the_device() {
    let booted = booted();
    let device = booted.assigned(0, at(WIDE), 0);
    assert_eq!(device.bar_large(0, 0, 1, 1).unwrap().placed, 1);
    assert_eq!(device.bar_large(2, 0, 3, 2).unwrap().placed, 3);
    assert_eq!(device.bar_large(2, 3, 1, 5).unwrap().placed, 1);
    assert_eq!(holder_frames(&booted, WIDE), 5);
    let base = |bar| booted.supervisor().holder_bar(0, bar).unwrap().base;
    let (first, second) = (base(0), base(2));
    assert_eq!((first | second) % (2 << 20), 0);
    let placed = frames(&booted);
    let expected: Vec<_> = [
        first,
        second,
        second + (2 << 20),
        second + (4 << 20),
        second + (6 << 20),
    ]
    .into_iter()
    .zip(1..)
    .map(|(base, slot)| (slot, Object::Frame { base, bits: 21 }))
    .collect();
    assert_eq!(placed, expected);
    assert!(booted.supervisor().figures().unwrap().untyped_used >= 10 << 20);
    device.release().unwrap();
    assert_eq!(frames(&booted), []);
    assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
    // Then small ones are possible again, and large ones after them.
    for _ in 0..2 {
        let device = booted.assigned(0, at(WIDE), 0);
        device.bar_frames(0, 0, 200, 1).unwrap();
        device.release().unwrap();
        let device = booted.assigned(0, at(WIDE), 0);
        device.bar_large(0, 0, 1, 1).unwrap();
        device.release().unwrap();
    }
    assert_eq!(holder_frames(&booted, WIDE), 0);
}

#[test]
fn each_broken_rule_has_its_own_error_and_changes_nothing() {
    let booted = booted();
    let wide = booted.assigned(0, at(WIDE), 0);
    let plain = booted.assigned(0, at(PLAIN), 10);
    let nvme = booted.assigned(0, at(NVME), 20);
    wide.bar_large(2, 0, 1, 5).unwrap();
    let before = booted.state();
    refused(plain.bar_large(0, 0, 1, 11), Rule::NotLarge, 0);
    // Ports, nothing, no such number.
    refused(wide.bar_large(4, 0, 1, 1), Rule::NotMemoryBar, 4);
    refused(wide.bar_large(1, 0, 1, 1), Rule::NoSuchBar, 1);
    refused(wide.bar_large(6, 0, 1, 1), Rule::NoSuchBar, 6);
    refused(wide.bar_large(255, 0, 1, 1), Rule::NoSuchBar, 255);
    for (bar, pages, first, count) in [
        (0, 1, 0, 0),
        (0, 1, 0, 2),
        (0, 1, 1, 1),
        (0, 1, 0xffff, 0xffff),
        (2, 4, 4, 1),
        (2, 4, 1, 4),
        (2, 4, 0, 0xffff),
    ] {
        refused(
            wide.bar_large(bar, first, count, 1),
            Rule::PageOutOfRange,
            pages,
        );
    }
    // The table is in the third small page, the pending bits are in the fourth.
    refused(nvme.bar_large(0, 0, 1, 21), Rule::PageWithheld, 2);
    refused(
        wide.bar_large(0, 0, 1, 256),
        Rule::WindowSlotOutOfRange,
        256,
    );
    refused(
        wide.bar_large(2, 1, 3, 254),
        Rule::WindowSlotOutOfRange,
        256,
    );
    refused(wide.bar_large(0, 0, 1, 5), Rule::WindowSlotOccupied, 5);
    // The second of them is in the way.
    refused(wide.bar_large(2, 1, 2, 4), Rule::WindowSlotOccupied, 5);
    assert_eq!(format!("{:#?}", booted.state()), format!("{before:#?}"));
}

#[test]
fn small_and_large_frames_of_the_same_memory_never_exist_together() {
    let booted = booted();
    let device = booted.assigned(0, at(WIDE), 0);
    device.bar_frames(0, 3, 1, 1).unwrap();
    let refusal = device.bar_large(0, 0, 1, 2).unwrap_err();
    assert_eq!(refusal.rule, Rule::PageWithheld);
    device.bar_large(2, 1, 1, 2).unwrap();
    // In the same large page; in another.
    let refusal = device.bar_frames(2, 0x200, 1, 3).unwrap_err();
    assert_eq!(refusal.rule, Rule::PageWithheld);
    device.bar_frames(2, 0x400, 1, 3).unwrap();
    device.release().unwrap();
    assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
}

#[test]
fn messages_are_enabled_beside_a_bar_that_is_alone() {
    let booted = booted();
    let device = booted.assigned(0, at(NVME), 0);
    device.bar_large(0, 0, 1, 1).unwrap_err();
    device.bar_frames(0, 0, 2, 1).unwrap();
    device.msi_enable(Mechanism::MsiX, 0, 1, 3).unwrap();
    device.bar_read(0, 0x2ffc, Width::Dword).unwrap();
    device.release().unwrap();
    assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
}

#[test]
fn a_narrowed_capability_has_large_frames_of_its_bars_alone() {
    let booted = booted();
    let device = booted.assigned(0, at(WIDE), 0);
    device
        .narrow(ConfigRight::None, 0b100, 0, Switch::Off, 1)
        .unwrap();
    let view = booted.device(booted.badge_in(0, 1));
    assert_eq!(
        view.bar_large(0, 0, 1, 2).unwrap_err().rule,
        Rule::NotInRights
    );
    assert_eq!(frames(&booted).len(), 0);
    view.bar_large(2, 0, 1, 2).unwrap();
    assert_eq!(holder_frames(&booted, WIDE), 1);
    device.release().unwrap();
    assert_eq!(frames(&booted), []);
    assert_eq!(
        view.bar_large(2, 0, 1, 2).unwrap_err().rule,
        Rule::StaleCapability
    );
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    for n in 0.. {
        let booted = booted();
        let device = booted.assigned(0, at(WIDE), 0);
        let before = format!("{:#?}", booted.state());
        let start = booted.world(|world| {
            world.kernel.fail_at = Some(world.kernel.calls + n);
            world.kernel.calls
        });
        let result = device.bar_large(2, 0, 4, 1);
        let calls = booted.world(|world| {
            world.kernel.fail_at = None;
            world.kernel.calls - start
        });
        if calls <= n {
            assert_eq!(result.unwrap().placed, 4);
            assert!(n >= 5, "a frame at least, and four places: {n}");
            device.release().unwrap();
            assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
            return;
        }
        assert_eq!(result.unwrap_err().rule, Rule::KernelRefused, "call {n}");
        assert_eq!(format!("{:#?}", booted.state()), before, "call {n}");
        device.bar_large(2, 0, 4, 1).unwrap();
        device.release().unwrap();
        assert_eq!(booted.supervisor().figures().unwrap().untyped_used, 0);
    }
}

#[test]
fn a_client_that_dies_leaves_no_large_frame() {
    let booted = booted();
    let device = booted.assigned(0, at(WIDE), 0);
    device.bar_large(0, 0, 1, 1).unwrap();
    booted.world(|world| world.kernel.client_copies(Place::Window(0, 1)));
    booted
        .supervisor()
        .client_gone(ipc_proto::ClientId(0))
        .unwrap();
    booted.settle();
    assert_eq!(frames(&booted), []);
    let figures = booted.supervisor().figures().unwrap();
    assert_eq!((figures.assigned, figures.untyped_used), (0, 0));
}
