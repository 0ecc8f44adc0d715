//! Narrowed device capabilities: what each right allows, that none ever widens, and that all go with the device.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::kernel::{Object, Place};
use common::scene::*;
use common::*;
use ipc_proto::{
    Badge, BadgeKind, ClientId, ConfigRight, Mechanism, Refusal, Rule, Switch, Width, pci,
};
use pci_core::shard::{MAX_VIEWS, MAX_VIEWS_OF_CLIENT};
use proptest::prelude::*;

/// Narrows the capability in slot `from` of client 0 to what is in slot `to`.
fn narrow(
    booted: &Booted,
    from: u16,
    (config, bars, messages, control): (ConfigRight, u8, u16, Switch),
    to: u16,
) -> Result<(), Refusal> {
    booted
        .device(booted.badge_in(0, from))
        .narrow(config, bars, messages, control, to)
        .map(drop)
}

const NOTHING: (ConfigRight, u8, u16, Switch) = (ConfigRight::None, 0, 0, Switch::Off);

fn in_slot(booted: &Booted, slot: u16) -> pci::Stub<Caller<'_>> {
    booted.device(booted.badge_in(0, slot))
}

fn not_in_rights<T>(result: Result<T, Refusal>) {
    assert_eq!(
        result.map(drop).unwrap_err(),
        Refusal::new(Rule::NotInRights, at(NVME).to_bits().into())
    );
}

#[test]
fn a_capability_without_rights_tells_what_it_is_of_and_nothing_else() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    narrow(&booted, 0, NOTHING, 1).unwrap();
    let view = in_slot(&booted, 1);
    let before = booted.state();
    assert_eq!(view.info().unwrap().device, at(NVME));
    assert_eq!(view.msi_info().unwrap().msix, 65);
    not_in_rights(view.config_read(0, Width::Dword));
    not_in_rights(view.config_write(4, Width::Word, 0));
    not_in_rights(view.bar(0));
    not_in_rights(view.bar_frames(0, 0, 1, 2));
    not_in_rights(view.bus_master(Switch::On));
    not_in_rights(view.reset());
    not_in_rights(view.release());
    not_in_rights(view.msi_enable(Mechanism::MsiX, 0, 1, 2));
    not_in_rights(view.msi_disable());
    not_in_rights(view.msi_bind(0, 1));
    not_in_rights(view.msi_mask(0, 1, Switch::On));
    not_in_rights(view.msi_pending(0, 1));
    not_in_rights(view.msi_affinity(0, 1, 0));
    not_in_rights(view.intx_enable());
    not_in_rights(view.intx_disable());
    not_in_rights(view.bar_read(0, 0x2800, Width::Dword));
    not_in_rights(view.bar_write(0, 0x2800, Width::Dword, 0));
    not_in_rights(view.bar_large(0, 0, 1, 2));
    not_in_rights(view.bus_reset());
    not_in_rights(view.agree_bus_reset());
    not_in_rights(view.virtual_functions(1));
    assert_eq!(booted.state(), before);
}

#[test]
fn each_right_allows_its_operations() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    let read = (ConfigRight::Read, 0, 0, Switch::Off);
    narrow(&booted, 0, read, 1).unwrap();
    let reader = in_slot(&booted, 1);
    reader.config_read(0, Width::Dword).unwrap();
    not_in_rights(reader.config_write(6, Width::Word, 0));
    let write = (ConfigRight::Write, 0, 0, Switch::Off);
    narrow(&booted, 0, write, 2).unwrap();
    let writer = in_slot(&booted, 2);
    writer.config_read(0, Width::Dword).unwrap();
    writer.config_write(6, Width::Word, 0xf900).unwrap();
    narrow(&booted, 0, (ConfigRight::None, 1, 0, Switch::Off), 3).unwrap();
    let mapper = in_slot(&booted, 3);
    mapper.bar(0).unwrap();
    mapper.bar_frames(0, 0, 1, 10).unwrap();
    not_in_rights(mapper.bar(1));
    not_in_rights(mapper.bar(255));
    narrow(&booted, 0, (ConfigRight::None, 0, 3, Switch::Off), 4).unwrap();
    let signalled = in_slot(&booted, 4);
    not_in_rights(signalled.msi_enable(Mechanism::MsiX, 0, 4, 20));
    signalled.msi_enable(Mechanism::MsiX, 5, 3, 20).unwrap();
    signalled.msi_disable().unwrap();
    narrow(&booted, 0, (ConfigRight::None, 0, 0, Switch::On), 5).unwrap();
    let driver = in_slot(&booted, 5);
    driver.bus_master(Switch::On).unwrap();
    driver.reset().unwrap();
    driver.release().unwrap();
    // With the device every capability of it is gone.
    for slot in 0..6 {
        assert_eq!(
            booted.world(|world| world.kernel.object(Place::Window(0, slot))),
            None
        );
    }
}

#[test]
fn a_view_narrows_itself_and_never_widens() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    let rights = (ConfigRight::Read, 0b01, 2, Switch::Off);
    narrow(&booted, 0, rights, 1).unwrap();
    let before = booted.state();
    for wider in [
        (ConfigRight::Write, 0, 0, Switch::Off),
        (ConfigRight::None, 0b10, 0, Switch::Off),
        (ConfigRight::None, 0b11, 0, Switch::Off),
        (ConfigRight::None, 0, 3, Switch::Off),
        (ConfigRight::None, 0, 0, Switch::On),
    ] {
        not_in_rights(narrow(&booted, 1, wider, 2));
    }
    assert_eq!(
        narrow(&booted, 0, (ConfigRight::None, 0x40, 0, Switch::Off), 2).unwrap_err(),
        Refusal::new(Rule::BadArgument, 1)
    );
    assert_eq!(booted.state(), before);
    narrow(&booted, 1, (ConfigRight::Read, 0, 1, Switch::Off), 2).unwrap();
    let narrower = in_slot(&booted, 2);
    narrower.config_read(0, Width::Dword).unwrap();
    not_in_rights(narrower.bar(0));
    assert_eq!(
        narrow(&booted, 0, NOTHING, 1).unwrap_err(),
        Refusal::new(Rule::WindowSlotOccupied, 1)
    );
    assert_eq!(
        narrow(&booted, 0, NOTHING, 256).unwrap_err().rule,
        Rule::WindowSlotOutOfRange
    );
}

#[test]
fn those_who_look_see_every_view_with_its_rights() {
    let booted = booted();
    booted.assigned(1, at(NET), 0);
    booted.assigned(0, at(NVME), 0);
    narrow(&booted, 0, (ConfigRight::Read, 0b101, 7, Switch::On), 1).unwrap();
    let inspector = Badge::plain(BadgeKind::Inspect, 1);
    let look = |index| booted.device(inspector).view_at(index);
    let view = look(0).unwrap();
    assert_eq!((view.device, view.holder), (at(NVME), 1));
    assert_eq!(
        (view.config, view.bars, view.messages, view.control),
        (ConfigRight::Read, 0b101, 7, Switch::On)
    );
    assert_eq!(look(1).unwrap_err().rule, Rule::EndOfList);
    in_slot(&booted, 0).release().unwrap();
    assert_eq!(look(0).unwrap_err().rule, Rule::EndOfList);
}

#[test]
fn a_client_leaves_views_to_others_and_all_come_back() {
    let booted = booted();
    let slots = || booted.supervisor().figures().unwrap().slots_used;
    let before = slots();
    for round in 0..(2 * MAX_VIEWS / MAX_VIEWS_OF_CLIENT) {
        booted.assigned(0, at(NVME), 0);
        for slot in 1..=MAX_VIEWS_OF_CLIENT as u16 {
            narrow(&booted, 0, NOTHING, slot).unwrap();
        }
        assert_eq!(
            narrow(&booted, 0, NOTHING, 100).unwrap_err(),
            Refusal::new(Rule::TooManyViews, MAX_VIEWS_OF_CLIENT as u64)
        );
        assert_eq!(slots(), before + 1 + MAX_VIEWS_OF_CLIENT as u32);
        let other = booted.assigned(1, at(NET), 0);
        other
            .narrow(ConfigRight::None, 0, 0, Switch::Off, 1)
            .unwrap();
        other.release().unwrap();
        if round % 2 == 0 {
            in_slot(&booted, 3).info().unwrap();
            in_slot(&booted, 0).release().unwrap();
        } else {
            in_slot(&booted, 0).reset().unwrap();
            in_slot(&booted, 9).info().unwrap();
            in_slot(&booted, 0).release().unwrap();
        }
        assert_eq!(slots(), before);
    }
    booted.assigned(0, at(NVME), 0);
    narrow(&booted, 0, NOTHING, 1).unwrap();
    booted.world(|world| world.kernel.client_copies(Place::Window(0, 1)));
    booted.supervisor().client_gone(ClientId(0)).unwrap();
    booted.settle();
    assert_eq!(slots(), before);
    booted.world(|world| {
        let device = |(_, object): &(Place, Object)| matches!(object, Object::Device { .. });
        assert_eq!(
            world
                .kernel
                .held_by_clients()
                .iter()
                .filter(|held| device(held))
                .count(),
            0
        );
    });
}

#[test]
fn narrowing_that_fails_changes_nothing_and_a_master_that_stays_breaks_the_device() {
    let booted = booted();
    booted.assigned(0, at(EDU), 0);
    let before = booted.state();
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls));
    assert_eq!(
        narrow(&booted, 0, NOTHING, 1).unwrap_err().rule,
        Rule::KernelRefused
    );
    booted.world(|world| world.kernel.fail_at = None);
    assert_eq!(booted.state(), before);
    narrow(&booted, 0, NOTHING, 1).unwrap();
    // The second revocation is the view's.
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls + 1));
    let view = in_slot(&booted, 1);
    in_slot(&booted, 0).release().unwrap_err();
    booted.world(|world| world.kernel.fail_at = None);
    assert_eq!(view.info().unwrap_err().rule, Rule::StaleCapability);
    assert_eq!(
        booted.client(0).query(at(EDU)).unwrap().state,
        ipc_proto::DeviceState::Broken
    );
}

proptest! {
    #![proptest_config(ProptestConfig::default())]
    /// No badge but one that was given out does anything, whatever its generation and its index say.
    #[test]
    fn invented_badges_are_stale(generation in 0u16..4, index in 0u16..0x1000) {
        let booted = booted();
        booted.assigned(0, at(NVME), 0);
        narrow(&booted, 0, (ConfigRight::Read, 0, 0, Switch::Off), 1).unwrap();
        let badge = Badge::new(BadgeKind::Device, generation, index);
        let known = [0, 1].map(|slot| booted.badge_in(0, slot));
        let read = booted.device(badge).config_read(0, Width::Dword);
        if known.contains(&badge) {
            prop_assert!(read.is_ok());
        } else {
            prop_assert_eq!(read.unwrap_err().rule, Rule::StaleCapability);
        }
    }
}

/// The number of a view that is gone is another device's view: a badge of before does not mean that.
#[test]
fn a_view_of_before_is_not_one_of_another_device_with_its_number() {
    let booted = booted();
    let first = booted.assigned(0, at(NVME), 0);
    booted.assigned(0, at(EDU), 1);
    let all = (ConfigRight::Write, 0x3f, 16, Switch::On);
    narrow(&booted, 0, all, 2).unwrap();
    let (badge, stale) = (booted.badge_in(0, 2), in_slot(&booted, 2));
    first.release().unwrap();
    narrow(&booted, 1, all, 3).unwrap();
    let now = booted.badge_in(0, 3);
    assert_eq!(
        (badge.index >> 6, badge.generation),
        (now.index >> 6, now.generation)
    );
    assert_eq!(stale.info().unwrap_err().rule, Rule::StaleCapability);
    assert_eq!(
        stale.config_read(0, Width::Dword).unwrap_err().rule,
        Rule::StaleCapability
    );
}
