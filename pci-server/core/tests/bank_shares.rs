//! Device memory is split for many clients: none of them can take so much of it that others get no page.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::memory32;
use common::kernel::{Kernel, Place};
use common::{Booted, World, client, pci_info};
use ipc_proto::{ClientId, ContextChoice, Refusal, Rule};
use pci_core::RegionId;
use pci_core::bank::{Bank, PageSize};
use proptest::prelude::*;
use sim::config::{BarShape, Endpoint, Machine};
use system::model::DeviceMatch;

const CLIENTS: u16 = 4;
const SLOTS: u32 = 4096;
/// Pages of one split: each of these costs one more.
const APART: u32 = 32;
/// Splits that a client can have in any case: of its slots some are for splits above those that are pages.
const SHARE: u32 = (SLOTS / 2 / CLIENTS as u32 - 128) / APART;

fn bank() -> (Kernel, Bank) {
    let (mut kernel, mut bank) = (Kernel::new(), Bank::new());
    kernel.slot_limit = SLOTS;
    kernel.give_untyped(100, 0x80_0000_0000, 36);
    bank.add(100, 0x80_0000_0000, 36).unwrap();
    bank.divide(CLIENTS.into(), SLOTS);
    (kernel, bank)
}

/// The BAR of a client: 4 GiB.
fn region(client: u16) -> RegionId {
    RegionId {
        base: 0x80_0000_0000 + (u64::from(client) << 32),
        bytes: 1 << 32,
    }
}

/// Places one page, and empties the slot again as the client would.
fn one(bank: &mut Bank, kernel: &mut Kernel, client: u16, page: u32) -> Result<(), Refusal> {
    let id = ClientId(client);
    bank.place(kernel, region(client), PageSize::Small, page, 1, id, 0)?;
    kernel.delete(Place::Window(client, 0));
    Ok(())
}

/// One page out of each split, until it is refused; how many.
fn greed(bank: &mut Bank, kernel: &mut Kernel, client: u16) -> u32 {
    for n in 0.. {
        match one(bank, kernel, client, n * APART) {
            Ok(()) => {}
            Err(refusal) if refusal.rule == Rule::SlotsExhausted => return n,
            Err(other) => panic!("{other:?}"),
        }
    }
    unreachable!()
}

#[test]
fn a_greedy_client_leaves_each_other_its_share() {
    let (mut kernel, mut bank) = bank();
    let at_boot = kernel.state();
    let first = greed(&mut bank, &mut kernel, 0);
    // More than its share, as long as nobody wants it.
    assert!(first > 2 * SHARE, "{first}");
    for other in 1..CLIENTS {
        let had = greed(&mut bank, &mut kernel, other);
        assert!(had >= SHARE, "client {other}: {had}");
    }
    for client in 0..CLIENTS {
        bank.revoke(&mut kernel, region(client)).unwrap();
    }
    assert_eq!(kernel.state(), at_boot);
    assert_eq!(greed(&mut bank, &mut kernel, 3), first);
}

#[test]
fn a_refused_client_keeps_what_it_has_and_gets_more_when_others_give_back() {
    let (mut kernel, mut bank) = bank();
    let had = greed(&mut bank, &mut kernel, 0);
    let before = kernel.state();
    assert_eq!(
        one(&mut bank, &mut kernel, 0, had * APART)
            .unwrap_err()
            .rule,
        Rule::SlotsExhausted
    );
    assert_eq!(kernel.state(), before);
    // A page of a split that it has.
    one(&mut bank, &mut kernel, 0, 1).unwrap();
    bank.revoke(&mut kernel, region(0)).unwrap();
    one(&mut bank, &mut kernel, 0, had * APART).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    /// Whatever three clients ask for before, the fourth gets its share.
    #[test]
    fn whatever_others_have_a_share_is_left(
        requests in proptest::collection::vec((0..3u16, 0..1u32 << 20), 0..150),
    ) {
        let (mut kernel, mut bank) = bank();
        for (client, page) in requests {
            let _ = one(&mut bank, &mut kernel, client, page);
        }
        for n in 0..SHARE {
            prop_assert_eq!(one(&mut bank, &mut kernel, 3, n * APART), Ok(()));
        }
    }
}

/// The same over the interface: a client with a large BAR, and one with a small one.
#[test]
fn a_client_with_a_large_bar_does_not_keep_another_from_its_registers() {
    let mut machine = Machine::new();
    let large = machine.add(
        "00:03.0",
        Endpoint::new(0x1234, 1).bar(
            0,
            BarShape::Memory64 {
                size: 1 << 30,
                address: 0x80_4000_0000,
                prefetchable: true,
            },
        ),
    );
    let small = machine.add(
        "00:04.0",
        Endpoint::new(0x1234, 2).bar(0, memory32(1 << 20, 0xe000_0000)),
    );
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let clients = vec![client("zero", &[any]), client("one", &[any])];
    let booted = Booted::with(World::new(machine), pci_info(), clients);
    let greedy = booted.assigned(0, large, 0);
    for n in 0..8192 {
        let asked = greedy.bar_frames(0, n * APART, 1, 1);
        booted.world(|world| world.kernel.delete(Place::Window(0, 1)));
        if let Err(refusal) = asked {
            assert_eq!(refusal.rule, Rule::SlotsExhausted);
            assert!(n > 0);
            break;
        }
    }
    let modest = booted.assigned(1, small, 0);
    modest.bar_frames(0, 0, 32, 1).unwrap();
    greedy.release().unwrap();
    booted
        .client(0)
        .assign(large, 0, ContextChoice::Shared)
        .unwrap();
}
